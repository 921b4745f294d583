import CThreads
import Glibc
import Synchronization

/// Wakes a thread that sleeps in `poll`, by a descriptor that becomes readable. Signals before it looks count as one.
///
/// The thread takes *everything* that waits after each ``reset()``, the waker first puts its work down and then signals: no work is left lying.
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
        // Cannot fail: the counter holds one at most.
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
    /// Rounded up, so that a small bound never becomes none; within what a 32-bit setting holds.
    public var wholeMilliseconds: Int {
        if self <= .zero { return 0 }
        let (seconds, attoseconds) = components
        if seconds >= 2_000_000 { return 2_000_000_000 }
        return Int(seconds) * 1000 + Int((attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
    }
}
