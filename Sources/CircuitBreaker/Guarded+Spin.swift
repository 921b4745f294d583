import Synchronization

extension Guarded {
    /// `withLock` for a lock that is held for some tens of nanoseconds: tries a while before it asks the kernel to wait, which costs a hundred
    /// times what there is to wait for. Bounded: after the tries it waits as `withLock` does, so a holder that was taken off its core is not
    /// spun against.
    @inline(__always)
    borrowing func withLockSpinningFirst(_ body: (inout Value) -> Void) {
        for _ in 0..<100 where withLockIfAvailable({ body(&$0) }) != nil { return }
        withLock { body(&$0) }
    }
}
