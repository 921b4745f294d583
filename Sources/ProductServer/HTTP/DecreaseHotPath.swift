// `PATCH /products/{id}/stock/decrease-by-order` in front of the router, because a rush consists of these requests. A request that this path cannot decide
// quickly is left to the router's route of the same name, which gives the same answers.

import APIErrors
import HotPath
import HTTPTypes
import NIOCore
import ServerKit
import StockGate
import StrictJSON

struct DecreaseHotPath: HotPathEndpoint {
    let engine: StockEngine
    let own: OwnProducts
    let services: ServiceGuard
    let metrics: RouteMetrics

    struct Match {
        let product: Int64
        let key: String
        let head: StockRequestHead
    }

    private static var suffix: StaticString { "/stock/decrease-by-order" }

    func match(_ head: RequestHead) -> Match? {
        guard head.method == .patch,
            let product = head.id(after: "/products/", before: Self.suffix) ?? head.id(after: "/v1/products/", before: Self.suffix)
        else { return nil }
        // The router's route refuses what another cell has, and a caller that may not change stock.
        guard own.has(product), services.admits(head) else { return nil }
        guard head.saysJSON else { return nil }
        // The router's route refuses bad keys and attempts.
        guard let key = try? StockRequestHead.decreaseKey(head), let rest = try? StockRequestHead(head) else { return nil }
        return Match(product: product, key: key, head: rest)
    }

    func respond(
        to match: Match,
        head: RequestHead,
        body: ByteBuffer,
        on eventLoop: any EventLoop,
        answer: @escaping (HotPathAnswer) -> Void
    ) {
        let call = HotCall(head, metrics, answer: answer)
        let request = call.read(body) { (json) throws(APIError) in
            try DecreaseRequest(json, product: match.product, key: match.key, match.head)
        }
        guard let request else { return }
        engine.decrease(request, on: eventLoop, isPatient: match.head.isPatient) { decided in
            call.finish { () throws(APIError) in try decided.result().hotPathAnswer }
        }
    }
}

extension StockResult {
    /// The answer of `response()`, in the form of the hot path.
    var hotPathAnswer: HotPathAnswer {
        var json = JSONWriter(capacity: 80)
        write(&json)
        var answer = HotPathAnswer(json: json.bytes)
        if isReplayed { answer.add(.idempotencyReplayed, "true") }
        return answer
    }
}
