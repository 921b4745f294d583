import DequeModule
import Synchronization

/// The products that wait for a round of resyncs. What is sold directly never goes before what is sold through Redis.
///
/// Bounds: one entry a product, which its schedule sees to.
final class ResyncQueue: Sendable {
    /// A product that waits, and who is told how its resync ended.
    struct Waiting: Sendable {
        var product: GatedProduct
        /// Whether to install even if nothing looks wrong.
        var isForced: Bool
        var ended: @Sendable (ResyncResult) -> Void
    }

    private struct State: Sendable {
        var urgent: Deque<Waiting> = []
        var patient: Deque<Waiting> = []
    }

    private let state = Mutex(State())
    private let wake: AsyncStream<Void>.Continuation
    /// An element whenever something has come since the last one was taken. For one reader.
    let arrivals: AsyncStream<Void>

    init() {
        (self.arrivals, self.wake) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
    }

    /// Adds a product to a next round. `isPatient`: others go first.
    func append(_ waiting: Waiting, isPatient: Bool) {
        state.withLock { if isPatient { $0.patient.append(waiting) } else { $0.urgent.append(waiting) } }
        wake.yield()
    }

    /// Takes a round of at most `count` products. What is sold directly gets an eighth of it at least, or it would wait for ever.
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
