import Synchronization

/// The number of the present outage of Redis, or of the next one while Redis is well, and the progress of its recovery. Work that a recovery has done counts
/// for one outage only.
///
/// An outage ends when a recovery has passed and the breaker has let calls through after it, and when Redis holds another dataset.
final class Outage: Sendable {
    private let counter = Atomic<UInt64>(1)
    private let recovering = Atomic<Bool>(false)
    /// Whether a recovery has passed, and the breaker has not yet decided whether to let calls through after it.
    private let deciding = Atomic<Bool>(false)
    private let dataset = Mutex<String?>(nil)

    /// The outage's number, which only grows.
    var number: UInt64 { counter.load(ordering: .acquiring) }

    /// Whether a recovery runs, or has passed and is not used yet.
    var isRecovering: Bool { recovering.load(ordering: .acquiring) }

    func recoveryBegan() {
        recovering.store(true, ordering: .releasing)
        // It was not seen whether calls were let through after the recovery before this one, so the work of that recovery may be void.
        if deciding.exchange(false, ordering: .acquiringAndReleasing) { end() }
    }

    /// A recovery has passed. The breaker decides next.
    func recoveryDone() { deciding.store(true, ordering: .releasing) }

    /// A recovery failed. The work that it did still counts.
    func recoveryFailed() { recovering.store(false, ordering: .releasing) }

    /// The breaker has let calls through after the recovery, or has decided against that.
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

    /// The ledger's data has another history now. Work that was based on the old one counts no more.
    func ledgerMoved() { end() }

    private func end() { counter.wrappingAdd(1, ordering: .releasing) }
}
