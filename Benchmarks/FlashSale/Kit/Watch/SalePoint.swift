/// A stretch of the sale, as the report draws it.
public struct SalePoint: Sendable {
    /// When the stretch ends, in seconds since the sale opened.
    public var at: Double
    /// How long the stretch was, in seconds.
    public var seconds: Double
    /// Orders that ended, by `OrderOutcome.rawValue`.
    public var outcomes: [Int]
    /// Orders sent for the first time.
    public var sent: Int
    /// Attempts beyond the first.
    public var retries: Int
    /// Orders that an open loop meant to send.
    public var due: Int
    /// Arrivals turned away because every place was taken.
    public var shed: Int
    /// Arrivals and orders that were given up at their deadline.
    public var stale: Int
    /// Orders under way at its end.
    public var inFlight: Int
    /// Milliseconds at the 50th, 90th, 99th and 99.9th percentile, and the longest; of the orders that ended.
    public var latency: [Double]
    /// Each latency in microseconds with how often it came, ascending.
    public var histogram: [(microseconds: UInt64, count: UInt64)]
    /// Units in Redis' counter; nil where it could not be read.
    public var redisStock: Int64?
    /// Units in PostgreSQL; nil where they could not be read.
    public var databaseStock: Int64?
    /// The breaker's state; nil where it could not be read.
    public var breaker: String?
    /// Processor time of the harness' threads, in seconds.
    public var cpuSeconds: Double

    /// The percentiles of `latency`, the longest left out.
    public static let percentiles = [50.0, 90, 99, 99.9]

    /// Orders that ended.
    public var orders: Int { outcomes.reduce(0, +) }

    init(_ look: LoadGenerator.Look, seconds: Double, log: SaleLog) {
        let interval = look.interval
        at = look.elapsed.inSeconds
        self.seconds = seconds
        outcomes = interval.outcomes
        sent = interval.sent
        retries = interval.retries
        due = interval.due
        shed = interval.shed
        stale = interval.stale
        inFlight = look.totals.inFlight
        latency = Self.percentiles.map { interval.latencies.milliseconds(at: $0) } + [interval.latencies.maximum]
        histogram = interval.latencies.recorded
        let stock = log.stock
        redisStock = stock.redis
        databaseStock = stock.database
        breaker = log.breakerState
        cpuSeconds = interval.cpuSeconds
    }

    /// Takes in what came after it: of generators that stop at different moments, one may have counted orders that ended before this point was taken.
    mutating func add(_ rest: IntervalFigures) {
        for index in outcomes.indices { outcomes[index] += rest.outcomes[index] }
        sent += rest.sent
        retries += rest.retries
        due += rest.due
        shed += rest.shed
        stale += rest.stale
        cpuSeconds += rest.cpuSeconds
        inFlight = 0
        var latencies = rest.latencies
        for (microseconds, count) in histogram { latencies.record(microseconds: microseconds, count: count) }
        latency = Self.percentiles.map { latencies.milliseconds(at: $0) } + [latencies.maximum]
        histogram = latencies.recorded
    }
}
