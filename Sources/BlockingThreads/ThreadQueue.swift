// Invariant: one thread takes from one queue; an item pushed is taken exactly once, in the order of pushing, also after `stop`.
// Bound: `push` refuses at its limit. The thread ends when the queue is stopped and empty; it sleeps in the kernel while there is nothing.

public import Dispatch
public import Synchronization

/// A queue with one consuming thread. Waking a sleeping consumer costs one semaphore signal; a busy one is not signalled at all.
public final class ThreadQueue<Item: Sendable>: Sendable {
    /// What became of an item.
    public enum Push: Sendable, Hashable {
        /// It will be taken.
        case accepted
        /// The limit is reached: it was not kept.
        case full
        /// The queue was stopped: it was not kept.
        case stopped
    }

    @usableFromInline
    struct State {
        @usableFromInline var items: [Item] = []
        @usableFromInline var isSleeping = false
        @usableFromInline var isStopped = false

        @usableFromInline init() {}
    }

    @usableFromInline let state = Mutex(State())
    @usableFromInline let wake = DispatchSemaphore(value: 0)

    /// Makes an empty queue.
    public init() {}

    /// Adds an item behind the others, unless `limit` items wait.
    @inlinable
    public func push(_ item: Item, limit: Int = .max) -> Push {
        let (push, mustWake) = state.withLock { state -> (Push, Bool) in
            if state.isStopped { return (.stopped, false) }
            if state.items.count >= limit { return (.full, false) }
            state.items.append(item)
            defer { state.isSleeping = false }
            return (.accepted, state.isSleeping)
        }
        if mustWake { wake.signal() }
        return push
    }

    /// Refuses items from now on; the thread still gets those that wait.
    @inlinable
    public func shutdown() {
        let mustWake = state.withLock { state in
            state.isStopped = true
            defer { state.isSleeping = false }
            return state.isSleeping
        }
        if mustWake { wake.signal() }
    }

    /// Whether the queue was stopped.
    @inlinable public var isStopped: Bool { state.withLock { $0.isStopped } }

    /// Items that wait.
    @inlinable public var count: Int { state.withLock { $0.items.count } }

    /// Everything that waits; sleeps until there is something. Nil: stopped and empty. For the one consuming thread.
    @inlinable
    public func takeAll() -> [Item]? {
        while true {
            let taken: [Item]?? = state.withLock { state in
                if !state.items.isEmpty {
                    defer { state.items = [] }
                    return state.items
                }
                if state.isStopped { return .some(nil) }
                state.isSleeping = true
                return nil
            }
            if let taken { return taken }
            wake.wait()
        }
    }
}
