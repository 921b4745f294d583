import APIErrors
import HotPath
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
    let own: OwnProducts

    func register(on router: ServerRouter) {
        router.post(RouterPath(StockBatch.path)) { request, context -> Response in
            let items = try StockBatchItem.all(of: try await request.jsonObject(upTo: StockBatch.maximumBytes), own)
            let loop = context.channel.eventLoop
            let answers = await withCheckedContinuation { continuation in
                loop.execute { engine.decide(items, on: loop) { continuation.resume(returning: $0) } }
            }
            if context.logger.logLevel <= .debug { StockBatchItem.log(items, answers, context.logger) }
            return .json(bytes: StockBatchAnswer.json(answers, .negotiated(request.headers[.acceptLanguage])))
        }
    }
}

/// The batch call in front of the router, because every order of a rush comes through it. A request that this path cannot decide quickly is left to
/// ``StockBatchRoute``, which gives the same answers.
struct StockBatchHotPath: HotPathEndpoint {
    let engine: StockEngine
    let own: OwnProducts
    let callers: AdminGuard
    let metrics: RouteMetrics
    /// Whether a line is logged for each item. Then this path takes no request, because only the router's route has what belongs into the lines.
    let isLogging: Bool

    struct Match {}

    var maximumBodyBytes: Int { StockBatch.maximumBytes }

    func match(_ head: RequestHead) -> Match? {
        guard head.method == .post, head.isPath(StockBatch.path), !isLogging, head.saysJSON else { return nil }
        return callers.admits(head, template: StockBatch.path) ? Match() : nil
    }

    func respond(
        to match: Match,
        head: RequestHead,
        body: ByteBuffer,
        on eventLoop: any EventLoop,
        answer: @escaping (HotPathAnswer) -> Void
    ) {
        let call = HotCall(head, metrics, answer: answer)
        let read = call.read(body) { (json) throws(APIError) in try StockBatchItem.all(of: json, own) }
        guard let items = read else { return }
        let language = Language.negotiated(head.field("accept-language"))
        engine.decide(items, on: eventLoop) { call.finish(HotPathAnswer(json: StockBatchAnswer.json($0, language))) }
    }
}

/// One item of a batch call.
struct StockBatchItem: Sendable {
    enum Kind: Sendable {
        case decrease(DecreaseRequest)
        case increase(IncreaseRequest)
        /// The item cannot be read.
        case refused(APIError)
    }

    var kind: Kind
    /// The `X-Request-Id` of the request for which the order server makes the change.
    var requestID: String?

    /// The items of a call's body.
    /// - Throws: `VALIDATION_ERROR` for a body that is no list of items
    static func all(of body: JSONObjectReader, _ own: OwnProducts) throws(APIError) -> [StockBatchItem] {
        try StockBatch.items(of: body).map { StockBatchItem($0, own) }
    }

    /// Reads an item. A malformed item, or one for another cell's product, is refused alone, and the others go on.
    private init(_ object: JSONObjectReader, _ own: OwnProducts) {
        let change: StockChange
        do throws(APIError) {
            change = try StockChange(object)
            try own.check(change.productID)
        } catch {
            kind = .refused(error)
            requestID = (try? StockChange.requestID(of: object)) ?? nil
            return
        }
        requestID = change.requestID
        let product = ProductID(change.productID)
        switch change.direction {
        case .out:
            kind = .decrease(
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
            kind = .increase(
                IncreaseRequest(product: product, key: change.key, orderID: change.orderID, quantity: Quantity(change.quantity))
            )
        }
    }

    /// Logs a line for each item, with the id of the request that it was made for. The call's own id is in every line.
    static func log(_ items: [StockBatchItem], _ answers: [StockBatchAnswer], _ logger: Logger) {
        for (item, answer) in zip(items, answers) {
            var metadata: Logger.Metadata = [:]
            switch item.kind {
            case .decrease(let request): metadata["key"] = "\(request.key)"
            case .increase(let request): metadata["key"] = "\(request.key)"
            case .refused: break
            }
            metadata["itemRequestId"] = item.requestID.map { "\($0)" }
            switch answer.outcome {
            case .success: metadata["outcome"] = "OK"
            case .failure(let error): metadata["outcome"] = "\(error.code.rawValue)"
            }
            logger.debug("stock request of a batch", metadata: metadata)
        }
    }
}

/// What became of one item of a batch call.
enum StockBatchAnswer: Sendable {
    /// There is no answer yet.
    case none
    case decrease(DecreaseAnswer)
    case increase(IncreaseAnswer)
    case refused(APIError)

    /// The result of the item, or the error that says why there is none.
    var outcome: Result<StockResult, APIError> {
        switch self {
        case .none: .failure(APIError(.internalError))
        case .decrease(let answer): Result { () throws(APIError) in try answer.result() }
        case .increase(let answer): Result { () throws(APIError) in try answer.result() }
        case .refused(let error): .failure(error)
        }
    }

    /// The answer to a call.
    static func json(_ answers: [StockBatchAnswer], _ language: Language) -> [UInt8] {
        var json = JSONWriter(capacity: 32 + 72 * answers.count)
        let items = answers.lazy.map { answer in
            switch answer.outcome {
            case .success(let result):
                StockItemAnswer(remainingStock: result.remaining, isReplayed: result.isReplayed, message: result.message)
            case .failure(let error): StockItemAnswer(error, language: language)
            }
        }
        StockBatch.answer(items, to: &json)
        return json.bytes
    }
}

extension StockEngine {
    /// Begins all items in one turn of the loop, so that their reserves leave in one write and their commits wait together. To be called on the loop.
    /// `completion` is called once, there.
    fileprivate func decide(_ items: [StockBatchItem], on loop: any EventLoop, completion: @escaping ([StockBatchAnswer]) -> Void) {
        let gathered = GatheredAnswers(count: items.count, done: completion)
        for (index, item) in items.enumerated() {
            switch item.kind {
            case .refused(let error): gathered.set(index, .refused(error))
            case .decrease(let request): decrease(request, on: loop, isPatient: false) { gathered.set(index, .decrease($0)) }
            case .increase(let request): increase(request, on: loop, isPatient: false) { gathered.set(index, .increase($0)) }
            }
        }
    }
}

/// Collects answers that arrive one by one, on one event loop.
private final class GatheredAnswers {
    private var answers: [StockBatchAnswer]
    private var missing: Int
    private let done: ([StockBatchAnswer]) -> Void

    init(count: Int, done: @escaping ([StockBatchAnswer]) -> Void) {
        answers = Array(repeating: .none, count: count)
        missing = count
        self.done = done
    }

    func set(_ index: Int, _ answer: StockBatchAnswer) {
        guard case .none = answers[index] else { return }
        answers[index] = answer
        missing -= 1
        if missing == 0 { done(answers) }
    }
}
