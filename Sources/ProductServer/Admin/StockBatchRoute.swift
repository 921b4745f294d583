import APIErrors
import Hummingbird
import Logging
import NIOCore
import ServerKit
import StockContract
import StockGate
import StrictJSON

/// `POST /internal/stock/batch`: the changes that the order server gathered while its last call was out. Each item is a request of its own, with the same
/// promises and its own answer. The items only share the call.
///
/// All items are answered together, so none of them waits for a product's row that has been locked for a while. Such an item is LOCK_TIMEOUT at once, and the
/// order server asks again.
struct StockBatchRoute: Sendable {
    let engine: StockEngine

    private struct Item: Sendable {
        enum Kind: Sendable {
            case decrease(DecreaseRequest)
            case increase(IncreaseRequest)
            case refused(APIError)

            init(_ change: StockChange) {
                let product = ProductID(change.productID)
                switch change.direction {
                case .out:
                    self = .decrease(
                        DecreaseRequest(
                            product: product,
                            key: change.key,
                            orderID: change.orderID,
                            quantity: Quantity(change.quantity),
                            isRepeat: change.attempt > 1,
                            since: change.since?.microsecondsSinceEpoch
                        )
                    )
                case .in:
                    self = .increase(
                        IncreaseRequest(product: product, key: change.key, orderID: change.orderID, quantity: Quantity(change.quantity))
                    )
                }
            }
        }

        var kind: Kind
        /// The `X-Request-Id` of the request for which the order server makes the change.
        var requestID: String?
    }

    func register(on router: ServerRouter) {
        router.post(RouterPath(StockBatch.path)) { request, context -> Response in
            let body = try await request.jsonObject(upTo: StockBatch.maximumBytes)
            let items = try StockBatch.items(of: body).map(Self.item)
            let results = await decide(items, on: context.channel.eventLoop)
            if context.logger.logLevel <= .debug { Self.log(items, results, context.logger) }
            let language = Language.negotiated(request.headers[.acceptLanguage])
            return Self.response(results, language)
        }
    }

    /// Reads an item. A malformed item is refused alone, and the others go on.
    private static func item(_ object: JSONObjectReader) -> Item {
        do throws(APIError) {
            let change = try StockChange(object)
            return Item(kind: Item.Kind(change), requestID: change.requestID)
        } catch {
            return Item(kind: .refused(error), requestID: (try? StockChange.requestID(of: object)) ?? nil)
        }
    }

    private typealias Outcome = Result<StockResult, APIError>

    /// Begins all items in one turn of the loop, so that their reserves leave in one write and their commits wait together.
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

    /// Logs a line for each item, with the id of the request that it was made for. The call's own id is in every line.
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
            let answers = results.lazy.map { result in
                switch result {
                case .success(let result):
                    StockItemAnswer(remainingStock: result.remaining, isReplayed: result.isReplayed, message: result.message)
                case .failure(let error): StockItemAnswer(error, language: language)
                }
            }
            StockBatch.answer(answers, to: &json)
        }
    }
}

/// Collects outcomes that arrive one by one, on one event loop.
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
