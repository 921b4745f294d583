import CThreads
import Glibc
import Synchronization

/// Wakes a thread that sleeps in `poll`, by a descriptor that becomes readable. Signals before it looks count as one.
///
/// The waker first puts its work down, then signals. The thread first calls ``reset()``, then takes *all* work that is there. So all work is taken.
/// A thread that sleeps without a socket of its own uses ``WakeSignal``.
public final class WakeDescriptor: Sendable {
    /// Readable while a signal waits.
    public let descriptor: Int32
    private let isPending = Atomic(false)

    /// Makes one that is not signalled.
    ///
    /// - Throws: ``ThreadUnavailable`` if the system has no descriptor left.
    public init() throws(ThreadUnavailable) {
        descriptor = cthreads_eventfd()
        guard descriptor >= 0 else { throw ThreadUnavailable("no descriptor left", errno) }
    }

    deinit { close(descriptor) }

    /// Wakes the thread; of an awake one this costs one atomic exchange.
    public func signal() {
        if isPending.exchange(true, ordering: .acquiringAndReleasing) { return }
        var one: UInt64 = 1
        // Writing to the descriptor fails only when its counter is full, and this one is at most 1.
        _ = write(descriptor, &one, 8)
    }

    /// Takes the signal back.
    public func reset() {
        var count: UInt64 = 0
        _ = read(descriptor, &count, 8)
        _ = isPending.exchange(false, ordering: .acquiringAndReleasing)
    }

    /// Sleeps until signalled or until the time comes, and takes the signal back.
    public func sleep(until end: ContinuousClock.Instant) {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        _ = poll(&entry, 1, Int32(clamping: (end - .now).wholeMilliseconds))
        reset()
    }
}

extension Duration {
    /// Milliseconds for `poll`. Rounded up, so that a short wait does not become none; at most what 32 bits hold.
    public var wholeMilliseconds: Int {
        if self <= .zero { return 0 }
        let (seconds, attoseconds) = components
        if seconds >= 2_000_000 { return 2_000_000_000 }
        return Int(seconds) * 1000 + Int((attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
    }
}
