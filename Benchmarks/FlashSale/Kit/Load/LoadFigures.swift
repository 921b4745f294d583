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

/// What an order came to, as its buyer sees it.
public enum OrderOutcome: Int, Sendable, CaseIterable {
    /// Confirmed; accepted, if orders are decided later.
    case confirmed
    /// No units were left.
    case soldOut
    /// Refused for another reason.
    case refused
    /// The buyer gave up without a clear answer.
    case error

    /// The outcome as the report names it.
    public var name: String {
        switch self {
        case .confirmed: "confirmed"
        case .soldOut: "sold out"
        case .refused: "refused"
        case .error: "error"
        }
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
        /// Orders confirmed in that part.
        public var ownPaceConfirmed = 0
        /// All orders that ended in that part.
        public var ownPaceOrders = 0
        /// From the intended beginning of an order to its last answer, repeats included; by `OrderOutcome.rawValue`. Of the orders that began in the phase.
        public var byOutcome: [Latencies] = OrderOutcome.allCases.map { _ in Latencies() }

        /// All outcomes' latencies.
        public var latencies: Latencies { byOutcome.reduce(into: Latencies()) { $0.add($1) } }
        /// Orders that came to an end.
        public var orders: Int { confirmed + soldOut + failed + errors }
    }

    /// By `SalePhase.rawValue`.
    public var phases: [Phase] = SalePhase.allCases.map { _ in Phase() }
    /// All phases' latencies.
    public var latencies: Latencies { phases.reduce(into: Latencies()) { $0.add($1.latencies) } }
    /// Latencies of one outcome in all phases.
    public func latencies(of outcome: OrderOutcome) -> Latencies {
        phases.reduce(into: Latencies()) { $0.add($1.byOutcome[outcome.rawValue]) }
    }

    /// Orders sent for the first time.
    public var sent = 0
    /// Attempts beyond the first.
    public var retries = 0
    /// Orders that an open loop meant to have sent by its end: those sent, shed and stale.
    public var due = 0
    /// Arrivals that found every place taken and were turned away by the harness itself.
    public var shed = 0
    /// Arrivals that waited for a place beyond their deadline, and orders that were given up at theirs.
    public var stale = 0
    /// Units of the orders that were confirmed, or accepted.
    public var unitsConfirmed = 0
    /// Why orders failed or were given up. At most 64 different words; further ones count as `OTHER`.
    public private(set) var failReasons: [String: Int] = [:]
    /// Why attempts were repeated, within the same bound.
    public private(set) var retryCauses: [String: Int] = [:]
    /// The ids that buyers were told are confirmed. As many as units were sold; the audit looks each one up.
    public var confirmedOrders: [Int64] = []
    /// The ids of FAILED orders that buyers were told of with *sold out*; the audit looks each one up.
    public var refusedOrders: [Int64] = []
    /// For each id in `confirmedOrders`, the product's place; empty where there is one product.
    public var confirmedProducts: [UInt32] = []
    /// For each id in `refusedOrders`, the product's place; empty where there is one product.
    public var refusedProducts: [UInt32] = []
    /// The ids that buyers were told are cancelled.
    public var cancelledOrders: [Int64] = []
    /// Units of the cancelled orders.
    public var unitsCancelled = 0
    /// Cancellations that were refused or given up.
    public var cancellationsFailed = 0
    /// Orders that were sent twice under one key.
    public var duplicates = 0
    /// Keys that were answered in two ways.
    public private(set) var conflicts = 0
    /// The first hundred of these keys in words.
    public private(set) var conflictExamples: [String] = []
    /// Looks at the product.
    public var views = 0
    /// How long the looks took.
    public var viewLatencies = Latencies()
    /// Looks that were not answered 200.
    public var viewErrors = 0
    /// The ids that buyers were told are accepted, to be decided later.
    public var acceptedOrders: [Int64] = []
    /// From the intended beginning of an order to its acceptance, repeats included.
    public var acceptLatencies = Latencies()
    /// What became of the accepted orders, once that is known.
    public private(set) var drain: Drain?
    /// When the last order was confirmed, since the sale opened.
    public var lastConfirmedAt: Duration?
    /// In which milliseconds orders were confirmed, or accepted.
    var moments = SaleMoments()
    /// When the first order was answered *sold out*.
    public var firstSoldOutAt: Duration?
    /// What buyers were told, under which keys.
    public var told = ToldAnswers()
    /// Who got the units.
    public var fairness = Fairness()
    /// How well the harness kept up with its own plan.
    public var health = GeneratorHealth()

    /// No figures yet.
    public init() {}

    /// Takes in what became of the accepted orders.
    mutating func learn(_ drain: Drain) {
        self.drain = drain
        confirmedOrders = drain.promised
        for (reason, count) in drain.failReasons { Self.count(reason, in: &failReasons, by: count) }
    }

    mutating func addConflict(_ text: String) {
        conflicts += 1
        if conflictExamples.count < 100 { conflictExamples.append(text) }
    }

    /// The orders that buyers were told of for one of several products.
    func told(ofProduct place: Int) -> (confirmed: [Int64], refused: [Int64]) {
        guard !confirmedProducts.isEmpty || !refusedProducts.isEmpty else {
            return place == 0 ? (confirmedOrders, refusedOrders) : ([], [])
        }
        func chosen(_ orders: [Int64], _ products: [UInt32]) -> [Int64] {
            zip(orders, products).filter { $0.1 == UInt32(place) }.map { $0.0 }
        }
        return (chosen(confirmedOrders, confirmedProducts), chosen(refusedOrders, refusedProducts))
    }

    mutating func countFailure(_ reason: String) {
        Self.count(reason, in: &failReasons)
    }

    mutating func countRetry(_ cause: String) {
        retries += 1
        Self.count(cause, in: &retryCauses)
    }

    private static func count(_ word: String, in words: inout [String: Int], by amount: Int = 1) {
        let key = words[word] != nil || words.count < 64 ? word : "OTHER"
        words[key, default: 0] += amount
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
    /// The part of the orders meant that was sent, of an open loop; 1 for a closed one.
    public var attainment: Double { due == 0 ? 1 : Double(sent) / Double(due) }

    /// Takes in what another generator of the same sale saw at the same time.
    mutating func add(_ other: LoadFigures) {
        for index in phases.indices {
            let part = other.phases[index]
            phases[index].confirmed += part.confirmed
            phases[index].soldOut += part.soldOut
            phases[index].failed += part.failed
            phases[index].errors += part.errors
            // Generators work side by side: their times are one time.
            phases[index].time = max(phases[index].time, part.time)
            phases[index].ownPaceTime = max(phases[index].ownPaceTime, part.ownPaceTime)
            phases[index].ownPaceConfirmed += part.ownPaceConfirmed
            phases[index].ownPaceOrders += part.ownPaceOrders
            for outcome in part.byOutcome.indices { phases[index].byOutcome[outcome].add(part.byOutcome[outcome]) }
        }
        sent += other.sent
        retries += other.retries
        due += other.due
        shed += other.shed
        stale += other.stale
        unitsConfirmed += other.unitsConfirmed
        for (word, count) in other.failReasons { Self.count(word, in: &failReasons, by: count) }
        for (word, count) in other.retryCauses { Self.count(word, in: &retryCauses, by: count) }
        confirmedOrders += other.confirmedOrders
        refusedOrders += other.refusedOrders
        confirmedProducts += other.confirmedProducts
        refusedProducts += other.refusedProducts
        cancelledOrders += other.cancelledOrders
        unitsCancelled += other.unitsCancelled
        cancellationsFailed += other.cancellationsFailed
        duplicates += other.duplicates
        conflicts += other.conflicts
        conflictExamples = Array((conflictExamples + other.conflictExamples).prefix(100))
        views += other.views
        viewErrors += other.viewErrors
        viewLatencies.add(other.viewLatencies)
        acceptedOrders += other.acceptedOrders
        acceptLatencies.add(other.acceptLatencies)
        lastConfirmedAt = [lastConfirmedAt, other.lastConfirmedAt].compactMap { $0 }.max()
        firstSoldOutAt = [firstSoldOutAt, other.firstSoldOutAt].compactMap { $0 }.min()
        moments.add(other.moments)
        told.add(other.told)
        fairness.add(other.fairness)
        health.add(other.health)
    }
}
