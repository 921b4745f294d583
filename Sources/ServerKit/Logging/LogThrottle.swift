public import Logging
import Synchronization

/// Lets one line of a kind through in each interval, so that an outage that thousands of requests meet does not fill the log. What was left out is counted in the next line.
public final class LogThrottle: Sendable {
    private struct State {
        var next: ContinuousClock.Instant?
        var leftOut = 0
    }

    private let interval: Duration
    private let state = Mutex(State())

    /// Makes a throttle for lines of one kind.
    public init(interval: Duration = .seconds(1)) { self.interval = interval }

    /// Writes the line, unless one was written within the interval. `metadata` is made only for a line that is written.
    public func log(
        _ level: Logger.Level,
        _ message: Logger.Message,
        to logger: Logger,
        metadata: @autoclosure () -> Logger.Metadata = [:],
        at now: ContinuousClock.Instant = .now
    ) {
        let leftOut: Int? = self.state.withLock { state in
            if let next = state.next, now < next {
                state.leftOut += 1
                return nil
            }
            state.next = now + interval
            defer { state.leftOut = 0 }
            return state.leftOut
        }
        guard let leftOut else { return }
        var metadata = metadata()
        if leftOut > 0 { metadata["leftOutBefore"] = "\(leftOut)" }
        logger.log(level: level, message, metadata: metadata)
    }
}
