import DequeModule
import Synchronization

/// The products that wait for a round of resyncs. Products that are sold through Redis go first.
///
/// Bounds: one entry for each product; the product's schedule sees to that.
final class ResyncQueue: Sendable {
    /// A product that waits, and the callback that gets the result of its resync.
    struct Waiting: Sendable {
        var product: GatedProduct
        /// Whether to install even if nothing looks wrong.
        var isForced: Bool
        var ended: @Sendable (ResyncResult) -> Void
    }

    private struct State: Sendable {
        var urgent: Deque<Waiting> = []
        var patient: Deque<Waiting> = []
        var isClosed = false
    }

    private let state = Mutex(State())
    private let wake: AsyncStream<Void>.Continuation
    /// Yields whenever a product was added since the last element was taken. For one reader.
    let arrivals: AsyncStream<Void>

    init() {
        (self.arrivals, wake) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    }

    /// Adds a product for a later round. A patient one lets the others go first.
    /// - Returns: false if the queue is closed, and nothing was added
    func append(_ waiting: Waiting, isPatient: Bool) -> Bool {
        let isAdded = state.withLock { state in
            guard !state.isClosed else { return false }
            if isPatient { state.patient.append(waiting) } else { state.urgent.append(waiting) }
            return true
        }
        wake.yield()
        return isAdded
    }

    /// Takes nothing more.
    /// - Returns: what waits
    func close() -> [Waiting] {
        state.withLock { state in
            state.isClosed = true
            defer { (state.urgent, state.patient) = ([], []) }
            return Array(state.urgent) + Array(state.patient)
        }
    }

    /// Takes a round of at most `count` products. Products that are sold directly get at least an eighth of it, so that they are never starved.
    func next(_ count: Int) -> [Waiting] {
        state.withLock { state in
            let reserved = min(state.patient.count, max(1, count / 8))
            var round: [Waiting] = []
            while round.count < max(1, count - reserved), let one = state.urgent.popFirst() { round.append(one) }
            while round.count < count, let one = state.patient.popFirst() { round.append(one) }
            return round
        }
    }
}
