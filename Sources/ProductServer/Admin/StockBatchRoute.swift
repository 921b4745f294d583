import Hummingbird
import NIOCore
import ServerKit
import StockGate

/// `POST /internal/stock/batch`: what the order server gathered while its last call was out. Each item is a request of its own, with the same
/// promises and its own answer; they only share the way.
struct StockBatchRoute: Sendable {
    static let path = "/internal/stock/batch"
    /// Items in one call at most.
    static let maximumItems = 512
    /// Bytes of a body at most: 512 items with keys of the largest size.
    static let maximumBytes = 512 * 512

    let engine: StockEngine

    private enum Item: Sendable {
        case decrease(DecreaseRequest)
        case increase(IncreaseRequest)
        case refused(APIError)
    }

    private enum Direction: String, CaseIterable {
        case out = "OUT"
        case `in` = "IN"
    }

    func register(on router: ServerRouter) {
        router.post(RouterPath(Self.path)) { request, context -> Response in
            let body = try await request.jsonObject(upTo: Self.maximumBytes)
            let items = try body.objects("items", count: 1...Self.maximumItems).map(Self.item)
            let results = await decide(items, on: context.channel.eventLoop)
            let language = Language.negotiated(request.headers[.acceptLanguage])
            return Self.response(results, language)
        }
    }

    /// A malformed item is refused alone; the others go on.
    private static func item(_ object: JSONObjectReader) -> Item {
        do throws(APIError) {
            let product = ProductID(try object.int("productId", in: Values.idRange))
            let orderID = try object.int("orderId", in: Values.idRange)
            let quantity = try object.int("quantity", in: Values.quantityRange)
            let key = try Values.idempotencyKey(try object.string("key", length: 1...255), field: "key")
            let attempt = try object.optionalInt("attempt", in: Values.attemptRange) ?? 1
            switch try object.choice("direction", Direction.self) {
            case .out:
                return .decrease(
                    DecreaseRequest(
                        product: product,
                        key: try StockRequest.decreaseKey(key),
                        orderID: orderID,
                        quantity: quantity,
                        isRepeat: attempt > 1
                    )
                )
            case .in:
                return .increase(
                    IncreaseRequest(product: product, key: try StockRequest.increaseKey(key), orderID: orderID, quantity: quantity)
                )
            }
        } catch {
            return .refused(error)
        }
    }

    private typealias Outcome = Result<StockResult, APIError>

    /// All items begin in one turn of the loop, so that their reserves leave in one write and their commits wait together.
    private func decide(_ items: [Item], on loop: any EventLoop) async -> [Outcome] {
        await withCheckedContinuation { continuation in
            loop.execute {
                let gathered = GatheredOutcomes(count: items.count) { continuation.resume(returning: $0) }
                for (index, item) in items.enumerated() {
                    switch item {
                    case .refused(let error): gathered.set(index, .failure(error))
                    case .decrease(let request):
                        engine.decrease(request, on: loop) { answer in
                            gathered.set(index, Result { () throws(APIError) in try answer.result() })
                        }
                    case .increase(let request):
                        engine.increase(request, on: loop) { answer in
                            gathered.set(index, Result { () throws(APIError) in try answer.result() })
                        }
                    }
                }
            }
        }
    }

    private static func response(_ results: [Outcome], _ language: Language) -> Response {
        .json { json in
            json.object { json in
                json.name("items")
                json.array(results) { json, result in
                    json.object { json in
                        switch result {
                        case .success(let result):
                            json.member("status", 200)
                            json.member("remainingStock", result.remaining)
                            json.member("replayed", result.isReplayed)
                            json.member("message", result.message)
                        case .failure(let error):
                            json.member("status", error.code.status)
                            json.member("error", error.code.rawValue)
                            json.member("message", error.message.text(language, details: error.details))
                            json.member("retryAfter", error.retryAfter.map { $0.components.seconds })
                        }
                    }
                }
            }
        }
    }
}

/// Outcomes that come one by one, on one event loop.
private final class GatheredOutcomes {
    private var results: [Result<StockResult, APIError>?]
    private var missing: Int
    private let done: ([Result<StockResult, APIError>]) -> Void

    init(count: Int, done: @escaping ([Result<StockResult, APIError>]) -> Void) {
        self.results = Array(repeating: nil, count: count)
        self.missing = count
        self.done = done
    }

    func set(_ index: Int, _ result: Result<StockResult, APIError>) {
        guard results[index] == nil else { return }
        results[index] = result
        missing -= 1
        if missing == 0 { done(results.map { $0 ?? .failure(APIError(.internalError)) }) }
    }
}
