import APIErrors
import Hummingbird
import Logging
import NIOCore
import ServerKit
import StockGate
import StrictJSON

/// `POST /internal/stock/batch`: what the order server gathered while its last call was out. Each item is a request of its own, with the same
/// promises and its own answer; they only share the way.
///
/// Since all are answered together, none of them waits for a product's row that has been locked for a while: it is LOCK_TIMEOUT at once, for the order server to ask again.
struct StockBatchRoute: Sendable {
    static let path = "/internal/stock/batch"
    /// Items in one call at most.
    static let maximumItems = StockBatchLimits.maximumItems
    /// Bytes of a body at most. The admin port must let as much through.
    static let maximumBytes = StockBatchLimits.maximumBytes

    let engine: StockEngine

    private struct Item: Sendable {
        enum Kind: Sendable {
            case decrease(DecreaseRequest)
            case increase(IncreaseRequest)
            case refused(APIError)
        }

        var kind: Kind
        /// `X-Request-Id` of the request that the order server makes the change for.
        var requestID: String?
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
            if context.logger.logLevel <= .debug { Self.log(items, results, context.logger) }
            let language = Language.negotiated(request.headers[.acceptLanguage])
            return Self.response(results, language)
        }
    }

    /// A malformed item is refused alone; the others go on.
    private static func item(_ object: JSONObjectReader) -> Item {
        do throws(APIError) {
            let requestID = try object.text("requestId")
            guard requestID.map(ServerRequestContext.isRequestID) ?? true else {
                return Item(kind: .refused(.invalid(field: object.path("requestId"))))
            }
            return Item(kind: kind(object), requestID: requestID)
        } catch {
            return Item(kind: .refused(error))
        }
    }

    private static func kind(_ object: JSONObjectReader) -> Item.Kind {
        do throws(APIError) {
            let product = ProductID(try object.int("productId", in: Values.idRange))
            let orderID = try object.int("orderId", in: Values.idRange)
            let quantity = try object.int("quantity", in: Values.quantityRange)
            let key = try Values.idempotencyKey(try object.string("key", length: 1...255), field: "key")
            let attempt = try object.optionalInt("attempt", in: Values.attemptRange) ?? 1
            var since: Int64?
            if let text = try object.text("since") {
                guard let time = Timestamp(rfc3339: text) else { throw .invalid(field: object.path("since")) }
                since = time.microsecondsSinceEpoch
            }
            switch try object.choice("direction", Direction.self) {
            case .out:
                return .decrease(
                    DecreaseRequest(
                        product: product,
                        key: try StockRequest.decreaseKey(key),
                        orderID: orderID,
                        quantity: quantity,
                        isRepeat: attempt > 1,
                        since: since
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
                    switch item.kind {
                    case .refused(let error): gathered.set(index, .failure(error))
                    case .decrease(let request):
                        engine.decrease(request, on: loop, isPatient: false) { answer in
                            gathered.set(index, Result { () throws(APIError) in try answer.result() })
                        }
                    case .increase(let request):
                        engine.increase(request, on: loop, isPatient: false) { answer in
                            gathered.set(index, Result { () throws(APIError) in try answer.result() })
                        }
                    }
                }
            }
        }
    }

    /// A line for each item, with the id of the request that it was made for: the call's own id is in all of them.
    private static func log(_ items: [Item], _ results: [Outcome], _ logger: Logger) {
        for (item, result) in zip(items, results) {
            var metadata: Logger.Metadata = [:]
            switch item.kind {
            case .decrease(let request): metadata["key"] = "\(request.key)"
            case .increase(let request): metadata["key"] = "\(request.key)"
            case .refused: break
            }
            metadata["itemRequestId"] = item.requestID.map { "\($0)" }
            switch result {
            case .success: metadata["outcome"] = "OK"
            case .failure(let error): metadata["outcome"] = "\(error.code.rawValue)"
            }
            logger.debug("stock request of a batch", metadata: metadata)
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
