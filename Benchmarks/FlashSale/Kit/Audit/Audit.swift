/// The sale's books, judged. A pure function of what both databases, Redis and the buyers say.
public struct Audit: Equatable, Sendable {
    /// What was read.
    public struct Input: Equatable, Sendable {
        /// The product's row.
        public var product: ProductRow
        /// Sums over the ledger.
        public var ledger: LedgerTotals
        /// Orders by status.
        public var orders: OrderTotals
        /// Redis, nil if it does not answer.
        public var redis: RedisStock?
        /// Both databases compared order by order.
        public var matching: OrderMatching
        /// Orders that buyers saw *sold out*.
        public var soldOut: Int
        /// Orders refused for another reason.
        public var failed: Int
        /// Orders given up.
        public var errors: Int
        /// The order server's outbox, nil if orders did not go through it.
        public var outbox: OutboxTotals?

        /// All that the audit looks at.
        public init(
            product: ProductRow,
            ledger: LedgerTotals,
            orders: OrderTotals,
            redis: RedisStock?,
            matching: OrderMatching,
            soldOut: Int = 0,
            failed: Int = 0,
            errors: Int = 0,
            outbox: OutboxTotals? = nil
        ) {
            self.product = product
            self.ledger = ledger
            self.orders = orders
            self.redis = redis
            self.matching = matching
            self.soldOut = soldOut
            self.failed = failed
            self.errors = errors
            self.outbox = outbox
        }
    }

    /// What an audit was taken from.
    public enum Basis: String, Sendable, CaseIterable {
        /// Both databases and Redis.
        case stores
        /// The servers' own figures and the orders as the gateway shows them.
        case http
        /// Nothing was looked at.
        case none
    }

    /// What the audit was taken from.
    public let basis: Basis
    /// What a reader must know to weigh the audit, in words.
    public internal(set) var remarks: [String]
    /// Units at creation.
    public let initial: Int64
    /// Units of CONFIRMED orders, from the order database; without an audit those that buyers were told of. Nil where buyers were told of accepted orders alone,
    /// and nobody looked at what became of them.
    public let confirmed: Int64?
    /// Orders that buyers saw *sold out*.
    public let soldOut: Int
    /// Orders refused for another reason.
    public let failed: Int
    /// Orders whose buyer gave up.
    public let errors: Int
    /// Units sold beyond those there were. Nil where `confirmed` is.
    public let oversold: Int64?
    /// Units by which stock and ledger disagree, either way.
    public let leaked: Int64
    /// Orders whose two sides disagree, and lost answers.
    public let unmatched: Int
    /// Of these, confirmed answers that the order database does not bear out.
    public let lostAnswers: Int
    /// Answers to buyers that the stores do not bear out, at most 1,000 of them.
    public let offenders: [OrderMatching.Offender]
    /// How many such answers there are, the bound of `offenders` left aside.
    public let wrongAnswers: Int
    /// Answers to buyers that were compared with the stores.
    public let answersChecked: Int
    /// PENDING orders and pending reservations in Redis.
    public let pending: Int64
    /// Redis less PostgreSQL, in units. Nil if Redis holds nothing to compare.
    public let drift: Int64?
    /// Messages of the outbox, if orders went through it.
    public let outbox: OutboxTotals?
    /// What is wrong, in words. Empty if the audit passes.
    public internal(set) var findings: [String]

    /// Whether every promise was kept, as far as the basis shows it.
    public var passes: Bool { findings.isEmpty }

    /// What the buyers saw, where nothing was audited.
    /// - Parameter confirmedUnits: units that buyers were told are theirs; nil if their orders were accepted, to be decided later: an accepted order is no sold one.
    public init(unauditedUnits units: Int64, confirmedUnits: Int64?, load: LoadFigures) {
        basis = .none
        remarks =
            ["not audited: what buyers were told was compared with nothing"]
            + (confirmedUnits == nil ? ["accepted, not decided: what became of the accepted orders was not looked at"] : [])
        initial = units
        confirmed = confirmedUnits
        soldOut = load.soldOut
        failed = load.failed
        errors = load.errors
        oversold = confirmedUnits.map { max(0, $0 - units) }
        leaked = 0
        unmatched = 0
        lostAnswers = 0
        offenders = []
        wrongAnswers = 0
        answersChecked = 0
        pending = 0
        drift = nil
        outbox = nil
        findings =
            if let confirmedUnits, confirmedUnits > units {
                ["oversold: buyers were told of \(confirmedUnits) confirmed units, \(units) were there"]
            } else {
                []
            }
    }

    /// Judges.
    /// - Parameter remarks: what a reader must know to weigh it.
    public init(_ input: Input, basis: Basis = .stores, remarks: [String] = []) {
        self.basis = basis
        self.remarks = remarks
        let product = input.product
        let ledger = input.ledger
        let available = product.initialStock + ledger.restocked
        initial = product.initialStock
        confirmed = input.orders.confirmedUnits
        soldOut = input.soldOut
        failed = input.failed
        errors = input.errors
        unmatched = input.matching.unmatched
        lostAnswers = input.matching.lostAnswers
        offenders = input.matching.offenders
        wrongAnswers = input.matching.wrongAnswers
        answersChecked = input.matching.answersChecked
        var findings: [String] = []

        // Three witnesses of a unit sold twice: the ledger's sums, the orders, the stock itself.
        let byLedger = ledger.sold - ledger.returned - available
        let byOrders = input.orders.confirmedUnits - available
        let oversold = max(0, byLedger, byOrders, -product.stock)
        self.oversold = oversold
        if oversold > 0 {
            findings.append(
                "oversold: \(available) units were there; the ledger sold \(ledger.sold) and took back \(ledger.returned), "
                    + "CONFIRMED orders hold \(input.orders.confirmedUnits), the stock is \(product.stock)"
            )
        }

        let expected = available + ledger.returned - ledger.sold
        leaked = abs(expected - product.stock)
        if leaked > 0 {
            findings.append(
                "leaked: initial \(product.initialStock) + restocked \(ledger.restocked) + returned \(ledger.returned) - sold \(ledger.sold) "
                    + "= \(expected), but the database's stock is \(product.stock)"
            )
        }

        if unmatched > 0 {
            findings.append("unmatched: \(unmatched) orders (\(lostAnswers) of them answers that are not in the order database)")
            findings += input.matching.examples.map { "  \($0)" }
            let more = unmatched - input.matching.exampleOrders
            if more > 0 { findings.append("  … \(more) more") }
        }

        pending = input.orders.pending + (input.redis?.pending ?? 0)
        if pending > 0 {
            findings.append("pending: \(input.orders.pending) PENDING orders, \(input.redis?.pending ?? 0) pending reservations in Redis")
        }

        if let redis = input.redis {
            // Redis may hold any number.
            drift = redis.counter.map { counter in
                let (difference, overflow) = counter.subtractingReportingOverflow(product.stock)
                return overflow ? (counter < 0 ? .min : .max) : difference
            }
            if let drift, drift != 0 {
                findings.append("drift: Redis has \(redis.counter ?? 0) units, PostgreSQL \(product.stock)")
            } else if drift == nil {
                findings.append("drift: Redis holds no counter of this product")
            }
            if redis.fence != product.fence {
                findings.append(
                    "drift: Redis was installed under fence \(redis.fence.map(String.init) ?? "none"), PostgreSQL is at \(product.fence): a resync is missing"
                )
            }
        } else {
            drift = nil
            findings.append("drift: Redis does not answer")
        }
        outbox = input.outbox
        if let outbox, outbox.open > 0 {
            findings.append("outbox: \(outbox.open) messages are not sent, \(outbox.dead) of them given up")
        }
        self.findings = findings
    }

    /// The closing line.
    public var line: String {
        func known(_ value: Int64?) -> String { value.map(String.init) ?? "unknown" }
        return "AUDIT \(passes ? (basis == .none ? "NONE" : "PASS") : "FAIL") initial=\(initial) confirmed=\(known(confirmed)) "
            + "oversold=\(known(oversold)) leaked=\(leaked) unmatched=\(unmatched) pending=\(pending) drift=\(known(drift))"
    }

    /// Reads everything and judges it.
    /// - Parameter place: the product's place among those of the sale.
    /// - Throws: what the source throws, and `PlanError` if there is no such product.
    public static func run(
        _ source: some AuditSource,
        product: Int64,
        load: LoadFigures?,
        place: Int = 0,
        outbox: OutboxTotals? = nil
    ) async throws -> Audit {
        guard let row = try await source.product(product) else { throw PlanError("there is no product \(product) in the product database") }
        let ledger = try await source.ledgerTotals(of: product)
        let orders = try await source.orderTotals(of: product)
        var matching = OrderMatching()
        matching.add(decrementsWithoutOrder: ledger.decrementsWithoutOrder)
        let answers = load?.told(ofProduct: place)
        try await matching.compare(
            source,
            product: product,
            confirmedAnswers: answers?.confirmed ?? [],
            refusedAnswers: answers?.refused ?? [],
            cancelledAnswers: load?.cancelledOrders ?? [],
            told: load?.told
        )
        let redis = await source.redisStock(of: product)
        // A read that was cancelled looks like a Redis that does not answer.
        try Task.checkCancellation()
        return Audit(
            Input(
                product: row,
                ledger: ledger,
                orders: orders,
                redis: redis,
                matching: matching,
                soldOut: load?.soldOut ?? 0,
                failed: load?.failed ?? Int(orders.failed),
                errors: load?.errors ?? 0,
                outbox: outbox
            )
        )
    }
}
