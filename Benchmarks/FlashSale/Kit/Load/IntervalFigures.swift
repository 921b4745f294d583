/// What happened since the last look: a point of the report's lines.
public struct IntervalFigures: Sendable {
    /// Orders that ended, by `OrderOutcome.rawValue`.
    public var outcomes = OrderOutcome.allCases.map { _ in 0 }
    /// Their latencies, from the intended moment.
    public var latencies = Latencies()
    /// Orders sent for the first time.
    public var sent = 0
    /// Attempts beyond the first.
    public var retries = 0
    /// Orders that an open loop meant to send.
    public var due = 0
    /// Arrivals turned away by the harness because every place was taken.
    public var shed = 0
    /// Arrivals that waited for a place beyond their deadline, and orders that were given up at theirs.
    public var stale = 0
    /// Processor time of the generators' threads, in seconds.
    public var cpuSeconds = 0.0

    /// Orders that ended.
    public var orders: Int { outcomes.reduce(0, +) }

    mutating func add(_ other: IntervalFigures) {
        for index in outcomes.indices { outcomes[index] += other.outcomes[index] }
        latencies.add(other.latencies)
        sent += other.sent
        retries += other.retries
        due += other.due
        shed += other.shed
        stale += other.stale
        cpuSeconds += other.cpuSeconds
    }
}

/// Counts since the sale opened, cheap enough to be asked for several times a second.
struct LoadTotals: Sendable {
    var sent = 0
    var outcomes = OrderOutcome.allCases.map { _ in 0 }
    var units = 0
    var shed = 0
    var stale = 0
    var inFlight = 0
    var waiting = 0

    mutating func add(_ other: LoadTotals) {
        sent += other.sent
        for index in outcomes.indices { outcomes[index] += other.outcomes[index] }
        units += other.units
        shed += other.shed
        stale += other.stale
        inFlight += other.inFlight
        waiting += other.waiting
    }
}
