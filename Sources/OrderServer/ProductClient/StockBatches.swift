// Invariant: every change that was handed in is answered exactly once, by the call that carried it.
//
// Bounds: `maximumQueued` changes wait; one more has no answer at once. `maximumBatch` changes a call, `maximumCalls` calls out. One change alone goes at the
// loop's next turn: no timer delays it. Nothing is repeated here; the saga repeats, under the same key.

import CircuitBreaker
import NIOCore
import NIOHTTP1
import ServerKit
import Synchronization

/// Sends changes of stock to the product server: those that come while calls are out gather and go together.
final class StockBatches: StockCalls {
    /// Where changes go.
    enum Route: Sendable {
        /// `POST /internal/stock/batch` on the admin port.
        case batch
        /// The public endpoints, one change each.
        case single

        var maximumBatch: Int {
            switch self {
            case .batch: 512
            case .single: 1
            }
        }
    }

    struct Settings: Sendable {
        var maximumCalls = 2
        var maximumQueued = 20_000
        var callTimeout: Duration = .seconds(2)
        /// Sent as `Authorization: Bearer`.
        var token: String?
    }

    private struct Item {
        var change: StockChange
        var done: @Sendable (StockAnswer) -> Void
    }

    private struct State {
        var waiting: [Item] = []
        var calls = 0
        var isFlushDue = false
    }

    private let state = Mutex(State())
    private let peers: HTTPPeers
    private let route: Route
    private let settings: Settings
    private let breaker: CircuitBreaker
    private let loop: any EventLoop
    private let sizes: Histogram

    init(peers: HTTPPeers, route: Route, settings: Settings, breaker: CircuitBreaker, loop: any EventLoop, sizes: Histogram) {
        self.peers = peers
        self.route = route
        self.settings = settings
        self.breaker = breaker
        self.loop = loop
        self.sizes = sizes
    }

    /// Changes that wait.
    var queued: Int { self.state.withLock { $0.waiting.count } }

    func send(_ change: StockChange, done: @escaping @Sendable (StockAnswer) -> Void) {
        enum Step { case wait, flush, refuse }
        let step = self.state.withLock { state -> Step in
            guard state.waiting.count < self.settings.maximumQueued else { return .refuse }
            state.waiting.append(Item(change: change, done: done))
            guard !state.isFlushDue, state.calls < self.settings.maximumCalls else { return .wait }
            state.isFlushDue = true
            return .flush
        }
        switch step {
        case .wait: break
        // At the loop's next turn, so that a group of orders that was just written leaves together.
        case .flush: self.loop.execute { self.flush() }
        case .refuse: done(.noAnswer(cause: "OVERLOADED", retryAfter: nil))
        }
    }

    private func flush() {
        // Ends when nothing waits or enough calls are out; the end of a call comes here again.
        while true {
            let items = self.state.withLock { state -> ArraySlice<Item> in
                state.isFlushDue = false
                guard state.calls < self.settings.maximumCalls, !state.waiting.isEmpty else { return [] }
                state.calls += 1
                let taken = state.waiting.prefix(self.route.maximumBatch)
                if taken.count == state.waiting.count {
                    state.waiting = []
                } else {
                    state.waiting.removeFirst(taken.count)
                }
                return taken
            }
            if items.isEmpty { return }
            self.call(items)
        }
    }

    private func call(_ items: ArraySlice<Item>) {
        let permit: Permit
        switch self.breaker.admit() {
        case .permitted(let given): permit = given
        case .rejected(let rejection):
            self.end(items, answers: nil, else: .noAnswer(cause: "BREAKER_OPEN", retryAfter: rejection.retryAfter))
            return
        }
        self.sizes.record(UInt64(items.count))
        let request = self.request(items)
        self.peers.next().call(request, timeout: self.settings.callTimeout).whenComplete { result in
            switch result {
            case .success(let answer):
                let answers = self.read(answer, count: items.count)
                let isTrouble = answers.allSatisfy { if case .noAnswer = $0 { true } else { false } }
                self.breaker.record(isTrouble ? .failure("HTTP \(answer.status)") : .success, for: permit)
                self.end(items, answers: answers, else: .noAnswer(cause: "MALFORMED_ANSWER", retryAfter: nil))
            case .failure(let error):
                let cause = (error as? HTTPCallFailure)?.cause ?? "CONNECTION_LOST"
                self.breaker.record(.failure(cause), for: permit)
                self.end(items, answers: nil, else: .noAnswer(cause: cause, retryAfter: nil))
            }
        }
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
        if mustFlush { self.loop.execute { self.flush() } }
    }

    // MARK: The wire

    private func request(_ items: ArraySlice<Item>) -> HTTPPeer.Request {
        var headers: HTTPHeaders = ["content-type": "application/json"]
        if let token = self.settings.token { headers.add(name: "authorization", value: "Bearer " + token) }
        if self.route == .single, let change = items.first?.change {
            headers.add(name: "idempotency-key", value: change.key)
            headers.add(name: "idempotency-attempt", value: String(change.attempt))
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
        var json = JSONWriter(capacity: 16 + items.count * 112)
        json.object { json in
            json.array("items", items) { json, item in
                json.object { json in
                    json.member("direction", item.change.direction.rawValue)
                    json.member("productId", item.change.productID)
                    json.member("orderId", item.change.orderID)
                    json.member("quantity", item.change.quantity)
                    json.member("key", item.change.key)
                    json.member("attempt", item.change.attempt)
                }
            }
        }
        return HTTPPeer.Request(method: .POST, path: "/internal/stock/batch", headers: headers, body: json.byteBuffer)
    }

    /// One answer for each change, or fewer if what came cannot be understood.
    private func read(_ answer: HTTPAnswer, count: Int) -> [StockAnswer] {
        let body = try? JSONObjectReader(Array(answer.body.readableBytesView))
        if self.route == .single {
            return [StockBatches.one(body, status: answer.status, retryAfter: answer.retryAfter)]
        }
        guard answer.status == 200 else {
            // A refusal of the whole call decides nothing about a change in it.
            let code = body.flatMap { try? $0.text("error") } ?? "HTTP_\(answer.status)"
            return Array(repeating: .noAnswer(cause: code, retryAfter: answer.retryAfter), count: count)
        }
        guard let items = try? body?.objects("items", count: count...count) else { return [] }
        return items.map { item in
            let status = (try? item.int("status", in: 100...599)) ?? 0
            let retryAfter = (try? item.optionalInt("retryAfter", in: 0...86_400)).flatMap { $0 }
            return StockBatches.one(item, status: Int(status), retryAfter: retryAfter.map { .seconds($0) })
        }
    }

    private static func one(_ body: JSONObjectReader?, status: Int, retryAfter: Duration?) -> StockAnswer {
        StockAnswer(
            status: status,
            code: body.flatMap { try? $0.text("error") },
            remainingStock: body.flatMap { try? $0.int("remainingStock", in: 0...Int64.max) },
            retryAfter: retryAfter
        )
    }
}
