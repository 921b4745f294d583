import Synchronization

/// The end of a thread's work, and the tasks that wait for it. The thread says so once; whoever asks later returns at once.
///
/// Bound: as many tasks wait as the thread's owner lets ask.
public final class ThreadEnd: Sendable {
    private enum State {
        /// -> ended
        case running([CheckedContinuation<Void, Never>])
        /// Final.
        case ended
    }

    private let state = Mutex(State.running([]))

    /// Makes one for a thread that works.
    public init() {}

    /// The work has ended.
    public func reached() {
        let waiting = state.withLock { state -> [CheckedContinuation<Void, Never>] in
            guard case .running(let waiting) = state else { return [] }
            state = .ended
            return waiting
        }
        for continuation in waiting { continuation.resume() }
    }

    /// Returns when the work has ended.
    public func wait() async {
        await withCheckedContinuation { continuation in
            let isOver = state.withLock { state in
                guard case .running(let waiting) = state else { return true }
                state = .running(waiting + [continuation])
                return false
            }
            if isOver { continuation.resume() }
        }
    }
}
