// Invariant: every change is answered exactly once, by the call that carried it. A call is never larger than the product server accepts, in changes and in
//   bytes. A call that is refused for its size has decided nothing.
//
// Bounds: `maximumQueued` changes wait; one more is answered with *no answer* at once. `StockBatch` bounds a call; `maximumCalls` calls are out. A single
//   change is sent at the loop's next turn, without a timer. Nothing is repeated here; the saga repeats, under the same key. If a product server, or a proxy in
//   front of it, accepts less than the limits say, it answers 413. Then later calls are smaller, and the refused changes succeed when the saga repeats them.

import APIErrors
import CircuitBreaker
import NIOCore
import NIOHTTP1
import ServerKit
import ServerMetrics
import StockContract
import StrictJSON
import Synchronization

/// Sends changes of stock to the product server. Changes that come while calls are out gather and are sent together.
final class StockBatches: StockCalls {
    /// Where changes are sent.
    enum Route: Sendable {
        /// `POST /internal/stock/batch` on the admin port.
        case batch
        /// The public endpoints, with one change in each call.
        case single

        var maximumBatch: Int {
            switch self {
            case .batch: StockBatch.maximumItems
            case .single: 1
            }
        }
    }

    struct Configuration: Sendable {
        var maximumCalls = 2
        var maximumQueued = 20_000
        var callTimeout: Duration = .seconds(2)
        /// The token for `Authorization: Bearer`.
        var token: Secret<String>?
    }

    private struct Item {
        var change: StockChange
        /// The bytes that this change takes in a call at most.
        var bytes: Int
        var done: @Sendable (StockAnswer) -> Void
    }

    private struct State {
        var waiting: [Item] = []
        var calls = 0
        var isFlushDue = false
        /// The bytes of a call's body at most.
        var maximumBytes = StockBatch.maximumBytes
        /// The number of the last call.
        var lastCall: UInt64 = 0
    }

    /// A call that is about to be sent.
    private struct Call {
        var items: ArraySlice<Item>
        /// The bytes of the call's body at most.
        var bytes: Int
        var number: UInt64
    }

    private let state = Mutex(State())
    private let peers: HTTPPeers
    private let route: Route
    private let settings: Configuration
    private let breaker: CircuitBreaker
    private let answering: ProductAnswering
    private let loop: any EventLoop
    private let sizes: Histogram
    /// The prefix of every call's id. Each process has another one.
    private let callName = "batch-" + String(UInt64.random(in: 0...UInt64.max), radix: 36) + "-"

    init(
        peers: HTTPPeers,
        route: Route,
        settings: Configuration,
        breaker: CircuitBreaker,
        answering: ProductAnswering = ProductAnswering(),
        loop: any EventLoop,
        sizes: Histogram
    ) {
        self.answering = answering
        self.peers = peers
        self.route = route
        self.settings = settings
        self.breaker = breaker
        self.loop = loop
        self.sizes = sizes
    }

    /// Changes that wait.
    var queued: Int { state.withLock { $0.waiting.count } }

    func send(_ change: StockChange, done: @escaping @Sendable (StockAnswer) -> Void) {
        enum Step { case wait, flush, refuse }
        let item = Item(change: change, bytes: route == .batch ? change.maximumWireBytes : 0, done: done)
        let step = self.state.withLock { state -> Step in
            guard state.waiting.count < settings.maximumQueued else { return .refuse }
            state.waiting.append(item)
            guard !state.isFlushDue, state.calls < settings.maximumCalls else { return .wait }
            state.isFlushDue = true
            return .flush
        }
        switch step {
        case .wait: break
        // The flush runs at the loop's next turn, so that the orders of a group leave together.
        case .flush: loop.execute { self.flush() }
        case .refuse: done(.noAnswer(cause: APIErrorCode.overloaded.rawValue, retryAfter: nil))
        }
    }

    private func flush() {
        // The loop ends when nothing waits or enough calls are out. The end of a call runs it again.
        while true {
            let call = self.state.withLock { state -> Call? in
                state.isFlushDue = false
                guard state.calls < settings.maximumCalls, !state.waiting.isEmpty else { return nil }
                state.calls += 1
                state.lastCall &+= 1
                let (taken, bytes) = batch(of: state.waiting, within: state.maximumBytes)
                if taken.count == state.waiting.count {
                    state.waiting = []
                } else {
                    state.waiting.removeFirst(taken.count)
                }
                return Call(items: taken, bytes: bytes, number: state.lastCall)
            }
            guard let call else { return }
            send(call)
        }
    }

    /// The first changes that fit into one call, but at least one.
    private func batch(of waiting: [Item], within maximumBytes: Int) -> (items: ArraySlice<Item>, bytes: Int) {
        var bytes = StockBatch.frameBytes
        var count = 0
        for item in waiting.prefix(route.maximumBatch) {
            if bytes + item.bytes > maximumBytes, count > 0 { break }
            bytes += item.bytes
            count += 1
        }
        return (waiting.prefix(count), bytes)
    }

    private func send(_ call: Call) {
        let items = call.items
        let permit: Permit
        switch breaker.admit() {
        case .permitted(let given): permit = given
        case .rejected(let rejection):
            end(items, answers: nil, else: .noAnswer(cause: NoAnswerCause.breakerOpen, retryAfter: rejection.retryAfter))
            return
        }
        sizes.record(UInt64(items.count))
        let request = self.request(call)
        peers.next().call(request, timeout: settings.callTimeout).whenComplete { result in
            switch result {
            case .success(let answer):
                if answer.status == 413, self.route == .batch { self.learnLimit(answer, sent: request.body?.readableBytes ?? 0) }
                let answers = self.read(answer, count: items.count)
                let isTrouble = answers.allSatisfy(StockBatches.isTrouble)
                self.breaker.record(isTrouble ? .failure("HTTP \(answer.status)") : .success, for: permit)
                if isTrouble {
                    self.answering.failed(.stock, StockBatches.cause(answers), status: answer.status)
                } else {
                    self.answering.answered(.stock)
                }
                self.end(items, answers: answers, else: .noAnswer(cause: NoAnswerCause.malformedAnswer, retryAfter: nil))
            case .failure(let error):
                let cause = (error as? HTTPCallFailure)?.cause ?? NoAnswerCause.connectionLost
                self.breaker.record(.failure(cause), for: permit)
                self.answering.failed(.stock, cause)
                self.end(items, answers: nil, else: .noAnswer(cause: cause, retryAfter: nil))
            }
        }
    }

    /// Whether an answer tells of trouble with the product server. An answer that one product's row is locked does not: the breaker must not open for the
    /// buyers of other products. `MISDIRECTED` does not either: it is the answer while a product moves to another cell.
    private static func isTrouble(_ answer: StockAnswer) -> Bool {
        guard case .noAnswer(let cause, _) = answer else { return false }
        return cause != StockAnswer.lockTimeout && cause != APIErrorCode.misdirected.rawValue
    }

    /// Why a call's answers decide nothing. A call whose answer cannot be read has none.
    private static func cause(_ answers: [StockAnswer]) -> String {
        if case .noAnswer(let cause, _)? = answers.first { cause } else { NoAnswerCause.malformedAnswer }
    }

    private func end(_ items: ArraySlice<Item>, answers: [StockAnswer]?, else answer: StockAnswer) {
        self.state.withLock { $0.calls -= 1 }
        if let answers, answers.count == items.count {
            for (item, answer) in zip(items, answers) { item.done(answer) }
        } else {
            for item in items { item.done(answer) }
        }
        let mustFlush = self.state.withLock { state in
            guard !state.waiting.isEmpty, !state.isFlushDue else { return false }
            state.isFlushDue = true
            return true
        }
        if mustFlush { loop.execute { self.flush() } }
    }

    // MARK: The wire

    /// A smaller limit is not believed, because a change takes less than half of this.
    static let minimumBytes = 4096

    /// A body of this many bytes was too large. The new limit is the one that the answer names, or half of this size.
    private func learnLimit(_ answer: HTTPAnswer, sent: Int) {
        let details = (try? JSONObjectReader(Array(answer.body.readableBytesView)))?.value("details")
        let told: Int = if case .int(let bytes) = details?["maximumBytes"], bytes < sent { Int(bytes) } else { sent / 2 }
        state.withLock { $0.maximumBytes = min($0.maximumBytes, max(told, StockBatches.minimumBytes)) }
    }

    /// The call has an id of its own. Each change in it has the id of its order's request.
    private func request(_ call: Call) -> HTTPPeer.Request {
        let id = callName + String(call.number)
        var headers: HTTPHeaders = ["content-type": "application/json"]
        if let token = settings.token?.value { headers.add(name: "authorization", value: "Bearer " + token) }
        if route == .single, let change = call.items.first?.change {
            headers.add(name: "x-request-id", value: change.requestID ?? id)
            headers.add(name: "idempotency-key", value: change.key)
            headers.add(name: "idempotency-attempt", value: String(change.attempt))
            if let since = change.since { headers.add(name: "idempotency-since", value: since.description) }
            // A call for a locked product must not occupy a connection while others wait for one. The saga asks again.
            headers.add(name: "prefer", value: "wait=0")
            var json = JSONWriter(capacity: 64)
            json.object { json in
                json.member("orderId", change.orderID)
                json.member("quantity", change.quantity)
            }
            let verb = change.direction == .out ? "decrease" : "increase"
            return HTTPPeer.Request(
                method: .PATCH,
                path: "/products/\(change.productID)/stock/\(verb)-by-order",
                headers: headers,
                body: json.byteBuffer
            )
        }
        headers.add(name: "x-request-id", value: id)
        let body = StockBatch.call(call.items.lazy.map(\.change), capacity: call.bytes)
        return HTTPPeer.Request(method: .POST, path: StockBatch.path, headers: headers, body: body.byteBuffer)
    }

    /// One answer for each change. There are fewer if the response cannot be understood.
    private func read(_ answer: HTTPAnswer, count: Int) -> [StockAnswer] {
        let body = try? JSONObjectReader(Array(answer.body.readableBytesView))
        if route == .single {
            let isReplayed = answer.headers.first(name: "idempotency-replayed") == "true"
            return [StockBatches.one(body, status: answer.status, retryAfter: answer.retryAfter, isReplayed: isReplayed)]
        }
        guard answer.status == 200 else {
            // A refusal of the whole call decides nothing about the changes in it.
            let code = body.flatMap { try? $0.text("error") } ?? "HTTP_\(answer.status)"
            return Array(repeating: .noAnswer(cause: code, retryAfter: answer.retryAfter), count: count)
        }
        guard let body, let items = StockBatch.answers(body, count: count) else { return [] }
        return items.map { item in
            StockAnswer(
                status: item.status,
                code: item.error,
                remainingStock: item.remainingStock,
                retryAfter: item.retryAfter.map { .seconds($0) },
                isReplayed: item.isReplayed
            )
        }
    }

    private static func one(_ body: JSONObjectReader?, status: Int, retryAfter: Duration?, isReplayed: Bool) -> StockAnswer {
        StockAnswer(
            status: status,
            code: body.flatMap { try? $0.text("error") },
            remainingStock: body.flatMap { try? $0.int("remainingStock", in: Values.remainingRange) },
            retryAfter: retryAfter,
            isReplayed: isReplayed
        )
    }
}
