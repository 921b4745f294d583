import Dispatch
import Synchronization

/// Wakes one thread that sleeps until there is work. Signals that come before it sleeps, or more than one, count as one.
///
/// The waker first puts its work down, then signals. The sleeper takes *all* work that is there after each ``wait(for:)``. So all work is taken. Sleeping is in
/// the kernel; a signal to a thread that is awake is one atomic exchange.
public final class WakeSignal: Sendable {
    private let isPending = Atomic(false)
    private let semaphore = DispatchSemaphore(value: 0)

    /// Makes a signal that is not set.
    public init() {}

    /// Sets the signal.
    public func signal() {
        if !isPending.exchange(true, ordering: .acquiringAndReleasing) { semaphore.signal() }
    }

    /// Sleeps until the signal is set, and resets it.
    public func wait() {
        semaphore.wait()
        _ = isPending.exchange(false, ordering: .acquiringAndReleasing)
    }

    /// Sleeps until the signal is set, and resets it.
    ///
    /// - Returns: false if the time passed without a signal.
    public func wait(for bound: Duration) -> Bool {
        let (seconds, attoseconds) = bound.components
        let nanoseconds = Int(clamping: seconds).multipliedReportingOverflow(by: 1_000_000_000)
        let total = nanoseconds.overflow ? Int.max / 2 : nanoseconds.partialValue + Int(attoseconds / 1_000_000_000)
        guard semaphore.wait(timeout: .now() + .nanoseconds(max(0, total))) == .success else { return false }
        _ = isPending.exchange(false, ordering: .acquiringAndReleasing)
        return true
    }
}
