import Synchronization

/// Which outage of Redis runs, or is the next one, and how far its recovery is. What a recovery has done counts for one outage.
///
/// An outage ends when its recovery has passed and the breaker has used it, and when Redis holds another dataset.
final class Outage: Sendable {
    private let counter = Atomic<UInt64>(1)
    private let recovering = Atomic<Bool>(false)
    /// A recovery is done, and the breaker has not been seen to use it yet.
    private let deciding = Atomic<Bool>(false)
    private let dataset = Mutex<String?>(nil)

    /// The outage's number, which only grows.
    var number: UInt64 { counter.load(ordering: .acquiring) }

    /// Whether a recovery runs, or is done and not used yet.
    var isRecovering: Bool { recovering.load(ordering: .acquiring) }

    /// A recovery begins.
    func recoveryBegan() {
        recovering.store(true, ordering: .releasing)
        // Nobody saw whether calls were let through since: what was done may be void.
        if deciding.exchange(false, ordering: .acquiringAndReleasing) { end() }
    }

    /// A recovery is done: it is the breaker's turn.
    func recoveryDone() { deciding.store(true, ordering: .releasing) }

    /// A recovery failed. What it did still counts.
    func recoveryFailed() { recovering.store(false, ordering: .releasing) }

    /// The breaker has used the recovery, or has not.
    /// - Returns: the outage that the recovery was for; nil if another recovery has begun since
    func decided(isUsed: Bool) -> UInt64? {
        guard deciding.exchange(false, ordering: .acquiringAndReleasing) else { return nil }
        let ended = number
        if isUsed { end() }
        recovering.store(false, ordering: .releasing)
        return ended
    }

    /// A connection learnt which dataset Redis holds.
    func saw(dataset: String) {
        let isAnother = self.dataset.withLock { known in
            defer { known = dataset }
            return known != nil && known != dataset
        }
        if isAnother { end() }
    }

    private func end() { counter.wrappingAdd(1, ordering: .releasing) }
}
