/// Decides when to send a heartbeat, and when the other side has been silent for too long. A value; time is an argument.
///
/// Invariant: something is sent at least once in half an interval. A connection on which nothing came for two intervals is dead (AMQP 0-9-1, 4.2.7).
struct HeartbeatClock {
    enum Due: Hashable {
        /// Nothing is due until then.
        case wait(until: ContinuousClock.Instant)
        /// A heartbeat is to be written.
        case send
        /// The other side has been silent for too long.
        case dead
    }

    /// Zero: heartbeats are off.
    let interval: Duration
    private var lastSent: ContinuousClock.Instant
    private var lastReceived: ContinuousClock.Instant

    init(interval: Duration, now: ContinuousClock.Instant) {
        self.interval = interval
        lastSent = now
        lastReceived = now
    }

    mutating func sent(at now: ContinuousClock.Instant) { lastSent = now }
    mutating func received(at now: ContinuousClock.Instant) { lastReceived = now }

    func due(at now: ContinuousClock.Instant) -> Due {
        guard interval > .zero else { return .wait(until: now + .seconds(60)) }
        if now >= lastReceived + interval * 2 { return .dead }
        if now >= lastSent + interval / 2 { return .send }
        return .wait(until: min(lastSent + interval / 2, lastReceived + interval * 2))
    }
}
