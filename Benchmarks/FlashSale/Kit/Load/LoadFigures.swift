import Histogram

/// A part of the sale that is told apart in the report.
public enum SalePhase: Int, Sendable, CaseIterable {
    /// Until the first outage begins.
    case before
    /// From an outage's beginning until the breaker is CLOSED again.
    case outage
    /// The rest.
    case after

    /// The phase as the report names it.
    public var name: String {
        switch self {
        case .before: "before"
        case .outage: "outage"
        case .after: "after"
        }
    }
}

/// Latencies in microseconds, three significant digits, up to two minutes; what is longer counts as two minutes.
public struct Latencies: Sendable {
    private static let highest: UInt64 = 120_000_000
    private var histogram = Histogram<UInt64>(highestTrackableValue: Latencies.highest, numberOfSignificantValueDigits: .three)

    /// No latencies yet.
    public init() {}

    /// Counts one latency.
    public mutating func record(microseconds: Int64) {
        histogram.record(min(UInt64(max(microseconds, 1)), Self.highest))
    }

    /// Milliseconds at that percentile (0 to 100), 0 without latencies.
    public func milliseconds(at percentile: Double) -> Double {
        histogram.totalCount == 0 ? 0 : Double(histogram.valueAtPercentile(percentile)) / 1000
    }

    /// The longest, in milliseconds.
    public var maximum: Double { histogram.totalCount == 0 ? 0 : Double(histogram.max) / 1000 }

    /// How many were counted.
    public var count: Int { Int(histogram.totalCount) }

    mutating func reset() {
        histogram.reset()
    }
}

/// What the buyers saw. Counts are orders, not units.
public struct LoadFigures: Sendable {
    /// One phase's part.
    public struct Phase: Sendable {
        /// Orders confirmed; accepted, if they are decided later.
        public var confirmed = 0
        /// Orders answered *sold out*.
        public var soldOut = 0
        /// Orders refused for another reason.
        public var failed = 0
        /// Orders whose buyer gave up without a clear answer.
        public var errors = 0
        /// How long the phase lasted.
        public var time = Duration.zero
        /// The part of that time in which orders went at the machine's own pace.
        public var ownPaceTime = Duration.zero
        /// Orders confirmed, and all orders answered, in that part.
        public var ownPaceConfirmed = 0
        /// All orders that ended in that part.
        public var ownPaceOrders = 0
        /// From the intended beginning of an order to its last answer, repeats included.
        public var latencies = Latencies()

        /// Orders that came to an end.
        public var orders: Int { confirmed + soldOut + failed + errors }
    }

    /// By `SalePhase.rawValue`.
    public var phases: [Phase] = SalePhase.allCases.map { _ in Phase() }
    /// All phases' latencies.
    public var latencies = Latencies()
    /// Orders sent for the first time.
    public var sent = 0
    /// Attempts beyond the first.
    public var retries = 0
    /// Arrivals that found every place taken and were turned away by the harness itself.
    public var shed = 0
    /// Reasons of failed orders, causes of repeats and of giving up. At most 64 different words; further ones count as `OTHER`.
    public private(set) var failReasons: [String: Int] = [:]
    /// Why attempts were repeated.
    public private(set) var retryCauses: [String: Int] = [:]
    /// The ids that buyers were told are confirmed. As many as units were sold; the audit looks each one up.
    public var confirmedOrders: [Int64] = []
    /// The ids of FAILED orders that buyers were told of with *sold out*; the audit looks each one up.
    public var refusedOrders: [Int64] = []
    /// The ids that buyers were told are accepted, to be decided later.
    public var acceptedOrders: [Int64] = []
    /// From the intended beginning of an order to its acceptance, repeats included.
    public var acceptLatencies = Latencies()
    /// What became of the accepted orders, once that is known.
    public private(set) var drain: Drain?
    /// When the last order was confirmed, since the sale opened.
    public var lastConfirmedAt: Duration?
    /// When the first order was answered *sold out*.
    public var firstSoldOutAt: Duration?

    /// No figures yet.
    public init() {}

    /// Takes in what became of the accepted orders.
    mutating func learn(_ drain: Drain) {
        self.drain = drain
        confirmedOrders = drain.promised
        for (reason, count) in drain.failReasons {
            for _ in 0..<count { countFailure(reason) }
        }
    }

    mutating func countFailure(_ reason: String) {
        Self.count(reason, in: &failReasons)
    }

    mutating func countRetry(_ cause: String) {
        retries += 1
        Self.count(cause, in: &retryCauses)
    }

    private static func count(_ word: String, in words: inout [String: Int]) {
        let key = words[word] != nil || words.count < 64 ? word : "OTHER"
        words[key, default: 0] += 1
    }

    /// Orders confirmed in all phases.
    public var confirmed: Int { drain?.confirmed ?? phases.reduce(0) { $0 + $1.confirmed } }
    /// Orders answered *sold out* in all phases.
    public var soldOut: Int { phases.reduce(drain?.soldOut ?? 0) { $0 + $1.soldOut } }
    /// Orders refused for other reasons in all phases.
    public var failed: Int { phases.reduce(drain?.failed ?? 0) { $0 + $1.failed } }
    /// Orders given up in all phases.
    public var errors: Int { phases.reduce(0) { $0 + $1.errors } }
    /// Orders that came to an end.
    public var orders: Int { phases.reduce(0) { $0 + $1.orders } }
}
