import BlockingThreads
import Glibc

/// The point on the monotonic clock at which a call's time is over.
struct Deadline {
    private let instant: ContinuousClock.Instant

    init(after bound: Duration) { instant = .now + bound }

    func orSooner(_ bound: Duration) -> Deadline {
        let other = Deadline(after: bound)
        return other.instant < instant ? other : self
    }

    func orSooner(_ other: ContinuousClock.Instant) -> Deadline { other < instant ? Deadline(at: other) : self }

    private init(at instant: ContinuousClock.Instant) { self.instant = instant }

    var remaining: Duration { instant - .now }

    /// Waits until the socket can be read or written as asked. Returns both true for a broken socket, and nil if the deadline passes.
    func wait(for descriptor: Int32, reading: Bool, writing: Bool) -> (readable: Bool, writable: Bool)? {
        var entry = pollfd(fd: descriptor, events: 0, revents: 0)
        if reading { entry.events |= Int16(POLLIN) }
        if writing { entry.events |= Int16(POLLOUT) }
        while true {
            let milliseconds = Int32(clamping: remaining.wholeMilliseconds)
            let ready = poll(&entry, 1, milliseconds)
            if ready > 0 {
                let broken = entry.revents & Int16(POLLERR | POLLHUP | POLLNVAL) != 0
                return (broken || entry.revents & Int16(POLLIN) != 0, broken || entry.revents & Int16(POLLOUT) != 0)
            }
            if ready == 0 {
                if milliseconds == 0 || remaining <= .zero { return nil }
                continue
            }
            // A signal interrupted the wait, which goes on with the time that is left. Every other error means a broken descriptor.
            if errno != EINTR { return (true, true) }
        }
    }
}
