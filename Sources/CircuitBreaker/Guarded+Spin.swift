import Synchronization

extension Guarded {
    /// `withLock` for a lock that is held for some tens of nanoseconds: it tries for a while before it asks the kernel to wait, because that costs a hundred
    /// times as much as the wait for the lock. The number of tries is bounded; then it waits as `withLock` does, for the holder may have been taken off its
    /// core.
    @inline(__always)
    borrowing func withLockSpinningFirst(_ body: (inout Value) -> Void) {
        for _ in 0..<100 where withLockIfAvailable({ body(&$0) }) != nil { return }
        withLock { body(&$0) }
    }
}
