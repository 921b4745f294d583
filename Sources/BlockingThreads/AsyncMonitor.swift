public import Synchronization

/// State under a lock, with tasks that wait until it is as they want it: a monitor whose condition variable suspends instead of blocking.
///
/// Invariant: whoever waits looks at the state again after every `update`; a look and the decision to wait are one step under the lock.
/// Bounds: every wait ends at its deadline or when its task is cancelled.
public final class AsyncMonitor<State: Sendable>: Sendable {
    @usableFromInline
    struct Guarded {
        @usableFromInline var state: State
        @usableFromInline var waiting: [UInt64: CheckedContinuation<Void, Never>] = [:]
        @usableFromInline var nextID: UInt64 = 0

        @usableFromInline init(state: State) { self.state = state }
    }

    @usableFromInline let guarded: Mutex<Guarded>

    /// Makes a monitor of a state.
    public init(_ state: State) { guarded = Mutex(Guarded(state: state)) }

    /// Reads or changes the state without waking anybody: for what nobody waits for.
    @inlinable
    public func withLock<T: Sendable>(_ body: (inout State) -> T) -> T { guarded.withLock { body(&$0.state) } }

    /// Changes the state and lets all who wait look at it.
    @inlinable
    public func update<T: Sendable>(_ body: (inout State) -> T) -> T {
        let (result, waiting) = guarded.withLock { guarded in
            let result = body(&guarded.state)
            let waiting = guarded.waiting
            if !waiting.isEmpty { guarded.waiting = [:] }
            return (result, waiting)
        }
        for continuation in waiting.values { continuation.resume() }
        return result
    }

    /// Waits until `take` gives something.
    ///
    /// - Returns: nil at the deadline, or when the task is cancelled.
    @inlinable
    public func wait<T: Sendable>(until deadline: ContinuousClock.Instant, _ take: @Sendable (inout State) -> T?) async -> T? {
        if let taken = guarded.withLock({ take(&$0.state) }) { return taken }
        while true {
            if Task.isCancelled || ContinuousClock.now >= deadline { return nil }
            if let taken = await waitOnce(until: deadline, take) { return taken }
            if let taken = guarded.withLock({ take(&$0.state) }) { return taken }
        }
    }

    @inlinable
    func waitOnce<T: Sendable>(until deadline: ContinuousClock.Instant, _ take: @Sendable (inout State) -> T?) async -> T? {
        let id = guarded.withLock { guarded in
            guarded.nextID += 1
            return guarded.nextID
        }
        let timer = Task { [weak self] in
            try? await Task.sleep(until: deadline, tolerance: .milliseconds(1), clock: .continuous)
            self?.wake(id)
        }
        defer { timer.cancel() }
        let taken = Mutex<T?>(nil)
        await withTaskCancellationHandler {
            await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
                let goesOn = guarded.withLock { guarded in
                    if let value = take(&guarded.state) {
                        taken.withLock { $0 = value }
                        return true
                    }
                    // A cancellation or a deadline that came before this is seen here; one that comes later finds the continuation.
                    if Task.isCancelled || ContinuousClock.now >= deadline { return true }
                    guarded.waiting[id] = continuation
                    return false
                }
                if goesOn { continuation.resume() }
            }
        } onCancel: {
            wake(id)
        }
        return taken.withLock { $0 }
    }

    @usableFromInline
    func wake(_ id: UInt64) {
        guarded.withLock { $0.waiting.removeValue(forKey: id) }?.resume()
    }
}
