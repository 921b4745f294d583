// The shell around `OrderWaiters`: it does what the machine says after it has released the lock. The bounds are those of the machine. While anybody waits, one
// task ticks, and another one runs while a look-up is out. Both end by themselves.

import APIErrors
import Logging
import ServerMetrics
import PostgresClient
import Synchronization

/// Lets callers wait until an order changes, whichever server changes it.
final class OrderWatch: Sendable {
    /// How a wait has ended.
    enum Outcome: Sendable, Equatable {
        /// The order has a version above the one seen.
        case changed(VersionedOrder)
        /// The wait's time is over.
        case timedOut
        /// The server stops.
        case stopped
        /// The caller has gone.
        case cancelled
    }

    typealias Lookup = @Sendable ([OrderWaiters.Wanted]) async throws(PostgresError) -> [VersionedOrder]

    private struct State {
        var machine: OrderWaiters
        var continuations: [OrderWaiters.ID: CheckedContinuation<Outcome, Never>] = [:]
    }

    private let state: Mutex<State>
    /// The number of callers that wait. If it is zero, reporting a change costs one load.
    private let waiters = Atomic<Int>(0)
    private let interval: Duration
    private let lookup: Lookup
    private let logger: Logger
    /// Look-ups that were made; look-ups that failed; waits that were refused because all places were taken.
    let lookups = Counter()
    let failedLookups = Counter()
    let refused = Counter()

    init(
        maximumWaiters: Int,
        batch: Int = 1_024,
        interval: Duration = .milliseconds(50),
        logger: Logger = Logger(label: "order-changes"),
        lookup: @escaping Lookup
    ) {
        state = Mutex(State(machine: OrderWaiters(maximumPlaces: maximumWaiters, batch: batch, interval: interval)))
        self.interval = interval
        self.lookup = lookup
        self.logger = logger
    }

    convenience init(maximumWaiters: Int, store: OrderStore, logger: Logger) {
        self.init(maximumWaiters: maximumWaiters, logger: logger) { (wanted) throws(PostgresError) in
            try await store.orders(newerThan: wanted)
        }
    }

    /// Places that are taken, by requests that wait and by event streams.
    var places: Int { state.withLock { $0.machine.places } }

    /// Reports that these orders were changed, once that is durable. If nobody waits, the ids are not even collected.
    func changed(_ orders: @autoclosure () -> [Int64]) {
        guard waiters.load(ordering: .sequentiallyConsistent) > 0 else { return }
        let orders = orders()
        run(state.withLock { $0.machine.changed(orders) })
    }

    // MARK: Waiting

    /// One caller's right to wait. It is given back when its last holder releases it.
    final class Place: Sendable {
        private let changes: OrderWatch

        fileprivate init(_ changes: OrderWatch) { self.changes = changes }

        deinit { changes.state.withLock { $0.machine.leave() } }

        /// Waits until the order has a version above `seen`, at most `bound`. Cancelling the task ends the wait.
        func next(order: Int64, after seen: Int64, within bound: Duration) async -> Outcome {
            await changes.next(order: order, after: seen, within: bound)
        }
    }

    /// Takes a place.
    /// - Throws: `OVERLOADED` if all are taken, `UNAVAILABLE` if the server stops
    func place() throws(APIError) -> Place {
        guard let place = try placeUnlessStopped() else { throw APIError(.unavailable, retryAfter: .seconds(1)) }
        return place
    }

    /// Takes a place; nil if the server stops.
    func placeUnlessStopped() throws(APIError) -> Place? {
        let (isTaken, isStopped) = state.withLock { ($0.machine.enter(), $0.machine.isClosed) }
        if isTaken { return Place(self) }
        if isStopped { return nil }
        refused.add()
        throw APIError(.overloaded, retryAfter: .seconds(1))
    }

    private func next(order: Int64, after seen: Int64, within bound: Duration) async -> Outcome {
        // The waiter is counted before the machine knows it, so that a change after this line is reported.
        waiters.add(1, ordering: .sequentiallyConsistent)
        defer { waiters.subtract(1, ordering: .sequentiallyConsistent) }
        let id = Mutex<OrderWaiters.ID?>(nil)
        return await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let begun = self.state.withLock { state -> (id: OrderWaiters.ID, next: OrderWaiters.Next)? in
                    let begun = state.machine.wait(for: order, after: seen, until: .now + bound)
                    if let begun { state.continuations[begun.id] = continuation }
                    return begun
                }
                guard let begun else {
                    continuation.resume(returning: .stopped)
                    return
                }
                id.withLock { $0 = begun.id }
                self.run(begun.next)
                // If the cancellation came before the id was known, its handler found no waiter.
                if Task.isCancelled { self.cancel(begun.id) }
            }
        } onCancel: {
            if let id = id.withLock({ $0 }) { self.cancel(id) }
        }
    }

    private func cancel(_ id: OrderWaiters.ID) {
        let continuation = self.state.withLock { state -> CheckedContinuation<Outcome, Never>? in
            guard state.machine.cancel(id) else { return nil }
            return state.continuations.removeValue(forKey: id)
        }
        continuation?.resume(returning: .cancelled)
    }

    /// Ends all waits and takes no more. May be called several times.
    func shutdown() {
        let stopped = self.state.withLock { state in
            state.machine.close().compactMap { state.continuations.removeValue(forKey: $0) }
        }
        for continuation in stopped { continuation.resume(returning: .stopped) }
    }

    // MARK: Driving

    private func run(_ next: OrderWaiters.Next) {
        if !next.lookup.isEmpty { startLookup(next.lookup) }
        if next.startsTicks { Task.detached { await self.tick() } }
    }

    private func startLookup(_ wanted: [OrderWaiters.Wanted]) {
        Task.detached { await self.look(wanted) }
    }

    private func tick() async {
        // The loop ends with the first tick that finds no waiter. The next waiter starts it again.
        while true {
            try? await Task.sleep(for: interval)
            let (expired, lookup, goesOn) = self.state.withLock { state in
                let (expired, lookup, goesOn) = state.machine.tick(now: .now)
                return (expired.compactMap { state.continuations.removeValue(forKey: $0) }, lookup, goesOn)
            }
            for continuation in expired { continuation.resume(returning: .timedOut) }
            if !lookup.isEmpty { startLookup(lookup) }
            guard goesOn else { return }
        }
    }

    private func look(_ wanted: [OrderWaiters.Wanted]) async {
        var wanted = wanted
        // The loop ends when no look-up is due at once. Each round is one statement, which its timeout bounds.
        while !wanted.isEmpty {
            lookups.add()
            do throws(PostgresError) {
                let orders = try await lookup(wanted)
                let (answered, next) = self.state.withLock { state in
                    let (answered, next) = state.machine.found(orders.map { ($0.order.id, $0.version) })
                    return (answered.map { (state.continuations.removeValue(forKey: $0.id), orders[$0.index]) }, next)
                }
                for (continuation, order) in answered { continuation?.resume(returning: .changed(order)) }
                wanted = next.lookup
            } catch {
                failedLookups.add()
                logger.debug("orders that somebody waits for could not be looked up", metadata: ["error": "\(error)"])
                self.state.withLock { $0.machine.lookupFailed() }
                return
            }
        }
    }
}

extension OrderWatch {
    /// Registers the watch's metrics.
    func register(in registry: MetricsRegistry) {
        registry.gauge("stockgate_orders_watched", help: "Requests that wait for an order and streams of an order's changes") { [self] in
            Double(self.places)
        }
        let counters = [
            ("stockgate_orders_watch_lookups_total", "Statements that looked for changes of orders waited for", lookups),
            ("stockgate_orders_watch_failed_lookups_total", "Such statements that failed", failedLookups),
            ("stockgate_orders_watch_refused_total", "Requests to wait that were OVERLOADED", refused),
        ]
        for (name, help, counter) in counters {
            registry.collector(name, help: help, kind: .counter) { [.init(Double(counter.value))] }
        }
    }
}
