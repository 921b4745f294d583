// Decides when a product is resynced: one resync at a time, at most one per interval, and no request is dropped.
//
// Bounds: one running and one remembered request for each product. After failures in a row the interval doubles, up to `maximumBackoff`. Stop: idle.

/// The resyncs of one product on one server, as a value. Times are nanoseconds of any clock that only grows.
public struct ResyncSchedule: Hashable, Sendable {
    /// What the shell has to do.
    public enum Action: Hashable, Sendable {
        case run(forced: Bool)
        /// Call `timerFired` at this time.
        case wait(until: UInt64)
        /// Nothing to do: a resync that runs or waits will serve this request.
        case none
    }

    private enum State: Hashable, Sendable {
        case idle
        case waiting(forced: Bool)
        case running(forced: Bool)
        case runningAndAsked(forced: Bool, next: Bool)
    }

    private var state: State = .idle
    private var earliest: UInt64 = 0
    private var failuresInRow: UInt8 = 0
    private let interval: UInt64

    /// The longest pause after failures in a row, nanoseconds.
    ///
    /// The schedule doubles its pause without `Backoff`: it uses the nanoseconds of the caller's clock, and the explorer compares millions of schedules.
    public static let maximumBackoff: UInt64 = 1_000_000_000

    /// Creates the schedule of a product that nobody has asked a resync for. `interval`: nanoseconds between the beginnings of two resyncs.
    public init(interval: UInt64) { self.interval = interval }

    /// Whether no resync runs or waits.
    public var isIdle: Bool { state == .idle }

    /// Somebody asks for a resync. A request that comes while one runs is remembered, because its cause may be newer than what the running resync read.
    public mutating func asked(forced: Bool, at now: UInt64) -> Action {
        switch state {
        case .idle:
            if now >= earliest { return begin(forced: forced, at: now) }
            state = .waiting(forced: forced)
            return .wait(until: earliest)
        case .waiting(let before):
            state = .waiting(forced: before || forced)
            return .none
        case .running(let running):
            state = .runningAndAsked(forced: running, next: forced)
            return .none
        case .runningAndAsked(let running, let before):
            state = .runningAndAsked(forced: running, next: before || forced)
            return .none
        }
    }

    /// The time has come for which `wait` asked.
    public mutating func timerFired(at now: UInt64) -> Action {
        guard case .waiting(let forced) = state else { return .none }
        return now >= earliest ? begin(forced: forced, at: now) : .wait(until: earliest)
    }

    /// Another master serves the product's keys now. Earlier failures no longer delay the next resync, and the interval counts from now on. A resync that waits
    /// begins.
    public mutating func hurried(at now: UInt64) -> Action {
        failuresInRow = 0
        earliest = min(earliest, now)
        return timerFired(at: now)
    }

    /// The running resync ended. After a failure the schedule asks for another one.
    public mutating func ended(succeeded: Bool, at now: UInt64) -> Action {
        if succeeded {
            failuresInRow = 0
        } else {
            failuresInRow = min(failuresInRow + 1, 10)
            earliest = max(earliest, now &+ min(interval << UInt64(failuresInRow), Self.maximumBackoff))
        }
        let wanted: Bool?
        switch state {
        case .running(let forced): wanted = succeeded ? nil : forced
        case .runningAndAsked(let forced, let next): wanted = next || (!succeeded && forced)
        case .idle, .waiting: return .none
        }
        state = .idle
        guard let wanted else { return .none }
        return asked(forced: wanted, at: now)
    }

    private mutating func begin(forced: Bool, at now: UInt64) -> Action {
        state = .running(forced: forced)
        earliest = now &+ interval
        return .run(forced: forced)
    }
}
