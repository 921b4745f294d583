// The gate in Redis, as one event loop uses it. Each message costs both sides more than its content does. Therefore reserves of one product that come while a
// call for it is out gather, and leave together when that call has ended. Redis would not decide them sooner: it answers one connection in order. Whatever
// else the loop sends for one product during one turn goes out in one script call. Settles, which nobody waits for, go out with the loop's next message to
// Redis, or by themselves after `settleWait`.
//
// Invariant: an apply is handed to a connection at most once. A settle or release that cannot be sent is dropped; the sweep or the next resync finds its
//   reservation.
// Bounds: what waits here is bounded by the requests in flight, and by `maximumTold` settles, with which the flush comes at once. One script call carries at
//   most `maximumTold` entries.

import Algorithms
import CircuitBreaker
import NIOCore
import RedisClient

/// How the gate reports failures, on its event loop: trouble with Redis itself, one product's keys that cannot be used, a product whose slot this node does not
/// serve, and whatever else a node says of slots.
struct GateReports: Sendable {
    var trouble: @Sendable (GateFailure) -> Void
    var spoiled: @Sendable (ProductID, GateFailure) -> Void
    var elsewhere: @Sendable (ProductID) -> Void
    var saidOfSlots: @Sendable (RedisServerError) -> Void
}

/// The gate's time limits.
struct GateTimes: Sendable {
    /// For a reserve, which a buyer waits for.
    var command: TimeAmount
    /// For looks, installs, and every other call that no buyer waits for.
    var background: TimeAmount
    /// How long a settled mark is kept, milliseconds.
    var markRetention: Int64
}

// @unchecked Sendable: every member is used on `eventLoop` alone, and each entry point checks that it runs there.
final class RedisGate: @unchecked Sendable {
    typealias Answer<Value> = (Result<Value, GateFailure>) -> Void

    /// Products in one call of the background work at most. It takes Redis about a sixth of a millisecond, during which a reserve waits.
    static let maximumProducts = 32

    /// Entries in one script call at most. Lua's `unpack` has a limit, and a long call would hold up Redis' other callers.
    static let maximumTold = 400

    let eventLoop: any EventLoop
    /// The name of the ledger whose data is used. Empty until it is known, and where the ledger has none.
    private(set) var ledgerName = ""
    let client: RedisClient
    private let breaker: CircuitBreaker
    let times: GateTimes
    private let metrics: EngineMetrics
    let reports: GateReports
    /// For how many products one call looks, sweeps or prunes at most: 1 in a cluster, where the keys of one call have one slot.
    let productsInACall: Int

    private typealias Reserve = (request: DecreaseRequest, permit: Permit, answer: Answer<ReserveReply>)
    private struct Reserving {
        let keys: GateKeys
        /// The reserves that go out with the next call.
        var waiting: [Reserve] = []
        /// Calls that are out.
        var calls = 0

        /// Keeps a reserve for the next call. Returns whether that call is due now: for the first one, while no call is out.
        mutating func takes(_ reserve: Reserve) -> Bool {
            waiting.append(reserve)
            return calls == 0 && waiting.count == 1
        }

        /// Takes what goes out now, in calls of at most `limit` reserves; nil: nothing waits.
        mutating func send(atMost limit: Int) -> (GateKeys, [Reserve])? {
            guard !waiting.isEmpty else { return nil }
            defer { waiting = [] }
            calls = (waiting.count + limit - 1) / limit
            return (keys, waiting)
        }

        /// A call has ended. Returns how many reserves wait for the next one; nil while another call is out.
        mutating func ended() -> Int? {
            calls -= 1
            return calls == 0 ? waiting.count : nil
        }
    }
    private var reserving: [ProductID: Reserving] = [:]
    /// The products whose reserves go out with the next flush.
    private var due: [ProductID] = []

    private struct Told {
        var keys: GateKeys
        var settles: [(held: Held, key: String)] = []
        var releases: [(held: Held, key: String, abandoned: Bool)] = []
        var applies: [(fence: Fence, delta: Int64, key: String, answer: Answer<ApplyReply>)] = []
    }
    private var told: [ProductID: Told] = [:]
    private var isFlushScheduled = false
    /// Settles that wait.
    private var settling = 0
    /// Whether a timer will send the settles that wait.
    private var isSettleTimed = false
    /// How long a settle waits at most for something to go out with: about the time between two batches of orders.
    private static let settleWait = TimeAmount.milliseconds(10)

    init(
        eventLoop: any EventLoop,
        client: RedisClient,
        breaker: CircuitBreaker,
        times: GateTimes,
        metrics: EngineMetrics,
        reports: GateReports,
        productsInACall: Int
    ) {
        self.reports = reports
        self.productsInACall = max(1, productsInACall)
        self.eventLoop = eventLoop
        self.client = client
        self.breaker = breaker
        self.times = times
        self.metrics = metrics
    }

    /// Sets the ledger whose data is used. To be called on the loop.
    func serve(ledger name: String) {
        eventLoop.preconditionInEventLoop()
        ledgerName = name
    }

    // MARK: Reserve

    /// Asks the breaker to let one `reserve` through; nil if it refuses.
    func admit() -> Permit? {
        guard case .permitted(let permit) = breaker.admit() else { return nil }
        return permit
    }

    /// Reserves units in Redis. The breaker is told how the call went before the caller is answered.
    func reserve(_ request: DecreaseRequest, _ keys: GateKeys, _ permit: Permit, answer: @escaping Answer<ReserveReply>) {
        eventLoop.preconditionInEventLoop()
        guard reserving[request.product, default: Reserving(keys: keys)].takes((request, permit, answer)) else { return }
        due.append(request.product)
        flushSoon()
    }

    private func sendReserves(_ product: ProductID) {
        guard let (keys, requests) = reserving[product]?.send(atMost: Self.maximumTold) else { return }
        guard let connection = client.connection(on: eventLoop), let info = connection.attachment as? GateConnectionInfo else {
            reserving[product] = nil
            return fail(requests, .notConnected)
        }
        for part in requests.chunks(ofCount: Self.maximumTold) {
            metrics.reserves.add(UInt64(part.count))
            metrics.reserveCalls.add(1)
            // Nearly all buyers of a product want the same quantity; it goes out once then.
            let quantity = part.first?.request.quantity ?? 0
            let isSame = part.allSatisfy { $0.request.quantity == quantity }
            call(
                connection,
                info,
                .reserve,
                keys: [keys.stock, keys.meta, keys.pending, keys.marks, keys.marker],
                argumentCount: 4 + part.count + (isSame ? 1 : part.count),
                timeout: times.command
            ) { writer in
                writer.write(info.dataset)
                writer.write(WallClock.milliseconds())
                writer.write(self.ledgerName)
                writer.write(Int64(part.count))
                for entry in part { writer.write(entry.request.key) }
                if isSame {
                    writer.write(quantity.rawValue)
                } else {
                    for entry in part { writer.write(entry.request.quantity.rawValue) }
                }
            } answer: { result in
                var trouble: GateFailure?
                switch result {
                case .success(let value):
                    var replies = ReserveReplies(value, quantities: part.lazy.map { $0.request.quantity })
                    for entry in part {
                        guard let reply = replies?.next(entry.request.quantity) else {
                            self.report(.unreadable, of: product)
                            self.record(.unreadable, for: entry.permit)
                            entry.answer(.failure(.unreadable))
                            continue
                        }
                        self.breaker.record(.success, for: entry.permit)
                        entry.answer(.success(reply))
                    }
                case .failure(let failure):
                    if failure.isTrouble { trouble = failure }
                    self.report(failure, of: product)
                    self.fail(Array(part), failure)
                }
                self.reservesEnded(product, trouble)
            }
        }
    }

    private func fail(_ reserves: [Reserve], _ failure: GateFailure) {
        for entry in reserves {
            record(failure, for: entry.permit)
            entry.answer(.failure(failure))
        }
    }

    /// A call for the product has ended. What has gathered behind it goes out, or fails without being sent if Redis is in trouble: nobody waits for two calls that
    /// hang.
    private func reservesEnded(_ product: ProductID, _ trouble: GateFailure?) {
        guard let waiting = reserving[product]?.ended() else { return }
        guard waiting > 0 else {
            reserving[product] = nil
            return
        }
        guard let trouble else {
            due.append(product)
            return flushSoon()
        }
        guard let left = reserving.removeValue(forKey: product)?.waiting else { return }
        fail(left, GateFailure(sent: false, label: trouble.label, words: trouble.words, isTrouble: true))
    }

    private func record(_ failure: GateFailure, for permit: Permit) {
        breaker.record(failure.isTrouble ? .failure(failure.label) : .ignored, for: permit)
    }

    /// Reports a failure to the engine. This comes before the callers are answered, because they go on without Redis.
    private func report(_ failure: GateFailure, of product: ProductID) {
        if let words = failure.saysOfSlots { reports.saidOfSlots(words) }
        if failure.isOfSlot {
            reports.elsewhere(product)
        } else if failure.isOfProduct {
            reports.spoiled(product, failure)
        } else if failure.isTrouble {
            reports.trouble(failure)
        }
    }

    // MARK: Settle, release, apply

    func settle(_ product: ProductID, _ keys: GateKeys, _ held: Held, key: String) {
        eventLoop.preconditionInEventLoop()
        told[product, default: Told(keys: keys)].settles.append((held, key))
        settling += 1
        if settling >= Self.maximumTold { return flushSoon() }
        guard !isFlushScheduled, !isSettleTimed else { return }
        isSettleTimed = true
        eventLoop.assumeIsolated().scheduleTask(in: Self.settleWait) {
            self.isSettleTimed = false
            self.flush()
        }
    }

    func release(_ product: ProductID, _ keys: GateKeys, _ held: Held, key: String, abandoned: Bool) {
        tell(product, keys) { $0.releases.append((held, key, abandoned)) }
    }

    /// - Parameter key: the decrement's key, which gets a mark; empty for an increase.
    func apply(_ product: ProductID, _ keys: GateKeys, _ fence: Fence, delta: Int64, key: String, answer: @escaping Answer<ApplyReply>) {
        tell(product, keys) { $0.applies.append((fence, delta, key, answer)) }
    }

    private func tell(_ product: ProductID, _ keys: GateKeys, _ change: (inout Told) -> Void) {
        eventLoop.preconditionInEventLoop()
        change(&told[product, default: Told(keys: keys)])
        flushSoon()
    }

    private func flushSoon() {
        guard !isFlushScheduled else { return }
        isFlushScheduled = true
        // The flush runs at the end of this turn of the loop. Requests that came in one read, and the answers of one commit, leave in one call without waiting
        // for a timer.
        eventLoop.execute { self.flush() }
    }

    /// Sends everything that waits. To be called on the loop.
    func flush() {
        isFlushScheduled = false
        let products = due
        due = []
        for product in products { sendReserves(product) }
        let all = told
        told = [:]
        settling = 0
        for (product, told) in all { send(product, told) }
    }

    /// The connection for messages about changes of stock; nil while the breaker is open, because its recovery resyncs every product anyway.
    private var connectionForTelling: (RedisConnection, GateConnectionInfo)? {
        guard !breaker.isOpen, let connection = client.connection(on: eventLoop),
            let info = connection.attachment as? GateConnectionInfo
        else { return nil }
        return (connection, info)
    }

    private func send(_ product: ProductID, _ told: Told) {
        guard let (connection, info) = connectionForTelling else {
            metrics.untold.add(UInt64(told.settles.count + told.releases.count))
            for apply in told.applies { apply.answer(.failure(.breakerOpen)) }
            return
        }
        let keys = told.keys
        for part in told.settles.chunks(ofCount: Self.maximumTold) {
            // What one call reserved has one token, and is mostly sold in its order.
            let groups = part.chunked { $0.held == $1.held }
            call(
                connection,
                info,
                .settle,
                keys: [keys.meta, keys.pending, keys.marks],
                argumentCount: 3 + part.count + 3 * groups.count,
                timeout: times.background
            ) { writer in
                let now = WallClock.milliseconds()
                writer.write(now)
                writer.write(now - self.times.markRetention)
                writer.write(Int64(part.count))
                for entry in part { writer.write(entry.key) }
                for group in groups {
                    guard let held = group.first?.held else { continue }
                    writer.write(held.fence.rawValue)
                    writer.write(held.token.rawValue)
                    writer.write(Int64(group.count))
                }
            } answer: {
                self.note($0, of: product)
            }
        }
        for part in told.releases.chunks(ofCount: Self.maximumTold) {
            call(
                connection,
                info,
                .release,
                keys: [keys.stock, keys.meta, keys.pending],
                argumentCount: 4 * part.count,
                timeout: times.background
            ) { writer in
                for entry in part {
                    writer.write(entry.held.fence.rawValue)
                    writer.write(entry.key)
                    writer.write(entry.held.token.rawValue)
                    writer.write(entry.abandoned ? "A" as StaticString : "R")
                }
            } answer: {
                self.note($0, of: product)
            }
        }
        for part in told.applies.chunks(ofCount: Self.maximumTold) {
            call(
                connection,
                info,
                .apply,
                keys: [keys.stock, keys.meta, keys.owed, keys.marks],
                argumentCount: 2 + 3 * part.count,
                timeout: times.background
            ) { writer in
                writer.write(WallClock.milliseconds())
                writer.write(self.ledgerName)
                for entry in part {
                    writer.write(entry.fence.rawValue)
                    writer.write(entry.delta)
                    writer.write(entry.key)
                }
            } answer: { result in
                self.note(result, of: product)
                let replies = (try? result.get())?.array ?? []
                for (index, entry) in part.enumerated() {
                    if index < replies.count, let reply = replies[index].int.flatMap(ApplyReply.init(rawValue:)) {
                        entry.answer(.success(reply))
                    } else if case .failure(let failure) = result {
                        entry.answer(.failure(failure))
                    } else {
                        self.report(.unreadable, of: product)
                        entry.answer(.failure(.unreadable))
                    }
                }
            }
        }
    }

    /// Records a failure of a background call with the breaker, but only while the breaker is closed: in half-open the probes decide.
    private func note(_ result: Result<RedisValue, GateFailure>, of product: ProductID) {
        guard case .failure(let failure) = result else { return }
        report(failure, of: product)
        guard failure.isTrouble, breaker.state == .closed else { return }
        guard case .permitted(let permit) = breaker.admit() else { return }
        breaker.record(.failure(failure.label), for: permit)
    }

    /// Whether this loop's connection is ready. Asking starts a connection if there is none.
    var isConnected: Bool {
        eventLoop.preconditionInEventLoop()
        return client.connection(on: eventLoop)?.attachment is GateConnectionInfo
    }
}
