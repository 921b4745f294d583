// Invariant: no task passes before `open` or its own cancellation, and every task passes after one of these. Opening twice changes nothing.
//
// Bounds: as many wait as there are tasks that called `wait`: the services of one server, and the service group cancels them.

import Synchronization

/// Opens once, when a server is prepared: its database is there and migrated. Services that need it wait here before they begin.
public final class PreparedLatch: Sendable {
    private struct State {
        var isOpen: Bool
        var lastWaiter: UInt64 = 0
        var waiters: [UInt64: CheckedContinuation<Void, Never>] = [:]
    }

    private let state: Mutex<State>

    /// Makes a latch that is closed, unless told otherwise.
    public init(isOpen: Bool = false) { state = Mutex(State(isOpen: isOpen)) }

    /// Lets every task pass that waits now, or comes later.
    public func open() {
        let waiters = self.state.withLock { state in
            state.isOpen = true
            defer { state.waiters = [:] }
            return Array(state.waiters.values)
        }
        for waiter in waiters { waiter.resume() }
    }

    /// Returns when the latch is open, or as soon as the task is cancelled.
    public func wait() async {
        let id = self.state.withLock { state in
            state.lastWaiter += 1
            return state.lastWaiter
        }
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let mustWait = self.state.withLock { state in
                    // A cancellation that came before this lock found nobody to resume; `Task.isCancelled` is true by then.
                    guard !state.isOpen, !Task.isCancelled else { return false }
                    state.waiters[id] = continuation
                    return true
                }
                if !mustWait { continuation.resume() }
            }
        } onCancel: {
            self.state.withLock { $0.waiters.removeValue(forKey: id) }?.resume()
        }
    }

    /// How many tasks wait now.
    var waiting: Int { state.withLock { $0.waiters.count } }
}
