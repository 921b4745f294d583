// `POST /orders` and `POST /v2/orders` in front of the router, because a rush consists of these requests. A request that this path cannot decide quickly is
// left to the router's routes of the same names, which give the same answers.

import APIErrors
import HotPath
import HTTPTypes
import NIOCore
import ServerKit
import StockContract

struct PlaceOrderHotPath: HotPathEndpoint {
    /// One of the routes on this path.
    struct Route: Sendable {
        let path: String
        /// Accepts orders that go over the broker; nil if orders do not.
        let accepting: OrderAccepting?
        let metrics: RouteMetrics
    }

    let placing: OrderPlacing
    let routes: [Route]

    init(placing: OrderPlacing, accepting: OrderAccepting?, metrics: HTTPMetrics) {
        self.placing = placing
        let route = { (path: String, accepting: OrderAccepting?) in
            Route(path: path, accepting: accepting, metrics: metrics.ofRoute(path, method: "POST"))
        }
        routes = [route("/orders", nil), route("/v1/orders", nil)] + (accepting.map { [route("/v2/orders", $0)] } ?? [])
    }

    struct Match {
        let route: Route
        let key: String?
        let traceparent: String?
    }

    func match(_ head: RequestHead) -> Match? {
        guard head.method == .post else { return nil }
        let path = head.path
        guard let route = routes.first(where: { $0.path == path }) else { return nil }
        guard head.saysJSON, head.field("prefer") == nil else { return nil }
        let key: String?
        do throws(APIError) {
            key = try head.idempotencyKey()
        } catch {
            // The router's route refuses a bad key.
            return nil
        }
        let trace = route.accepting != nil ? head.field("traceparent").flatMap { isTraceparent($0) ? $0 : nil } : nil
        return Match(route: route, key: key, traceparent: trace)
    }

    func respond(
        to match: Match,
        head: RequestHead,
        body: ByteBuffer,
        on eventLoop: any EventLoop,
        answer: @escaping (HotPathAnswer) -> Void
    ) {
        let call = HotCall(head, match.route.metrics, answer: answer)
        let read = call.read(body) { (json) throws(APIError) in try OrderDraft(json, idempotencyKey: match.key) }
        guard var draft = read else { return }
        draft.requestID = head.id
        let accepting = match.route.accepting
        let isAsynchronous = accepting != nil
        let bound = NIOLoopBound(call, eventLoop: eventLoop)
        let done = { @Sendable (result: Result<PlacedOrder, APIError>) in
            if eventLoop.inEventLoop {
                bound.value.finish(HotPathAnswer(result, isAsynchronous: isAsynchronous, to: head))
            } else {
                eventLoop.execute { bound.value.finish(HotPathAnswer(result, isAsynchronous: isAsynchronous, to: head)) }
            }
        }
        if let accepting {
            draft.traceparent = match.traceparent
            accepting.accept(draft, done: done)
        } else {
            placing.place(draft, done: done)
        }
    }
}

extension OrderDraft {
    /// The body of `POST /orders`.
    init(_ body: JSONObjectReader, idempotencyKey: String?) throws(APIError) {
        self.init(
            productID: try body.int("productId", in: Values.idRange),
            productCode: nil,
            buyerID: try body.optionalString("buyerId", length: Values.userIDLength),
            quantity: try body.int("quantity", in: Values.quantityRange),
            unitPrice: nil,
            idempotencyKey: idempotencyKey
        )
    }
}
