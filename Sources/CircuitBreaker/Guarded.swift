import Synchronization

/// A value behind a lock: `Mutex`, seen by the thread sanitizer.
///
/// On Linux `Mutex` locks inside the Synchronization library, which the sanitizer does not look into: it takes every value behind one for a race.
/// Built with `-DTHREAD_SANITIZER`, this adds an atomic word that is read after locking and written before unlocking, both of which it sees. Real races are
/// still found: the word orders exactly those accesses that the lock orders.
struct Guarded<Value>: ~Copyable, Sendable {
    private let mutex: Mutex<Value>
    #if THREAD_SANITIZER
        private let order = Atomic<UInt8>(0)
    #endif

    init(_ value: sending Value) {
        mutex = Mutex(value)
    }

    @inline(__always)
    borrowing func withLock<Result: ~Copyable, Failure: Error>(
        _ body: (inout sending Value) throws(Failure) -> sending Result
    ) throws(Failure) -> sending Result {
        try mutex.withLock { value throws(Failure) in
            #if THREAD_SANITIZER
                _ = order.load(ordering: .acquiring)
                defer { order.store(0, ordering: .releasing) }
            #endif
            return try body(&value)
        }
    }

    @inline(__always)
    borrowing func withLockIfAvailable<Result: ~Copyable, Failure: Error>(
        _ body: (inout sending Value) throws(Failure) -> sending Result
    ) throws(Failure) -> sending Result? {
        try mutex.withLockIfAvailable { value throws(Failure) in
            #if THREAD_SANITIZER
                _ = order.load(ordering: .acquiring)
                defer { order.store(0, ordering: .releasing) }
            #endif
            return try body(&value)
        }
    }
}
