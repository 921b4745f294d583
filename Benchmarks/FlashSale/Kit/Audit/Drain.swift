/// One order's beginning and end, in microseconds of the order database's clock.
public struct OrderEnding: Equatable, Sendable {
    /// The order's id; pages are sorted by it.
    public var id: Int64
    /// `PENDING`, `CONFIRMED`, `FAILED` or `CANCELLED`.
    public var status: String
    /// Why a FAILED order failed; nil for every other order.
    public var failReason: String?
    /// When it was accepted, since 1970.
    public var createdAt: Int64
    /// When it last changed, since 1970.
    public var updatedAt: Int64

    /// One order.
    public init(id: Int64, status: String, failReason: String?, createdAt: Int64, updatedAt: Int64) {
        self.id = id
        self.status = status
        self.failReason = failReason
        self.createdAt = createdAt
        self.updatedAt = updatedAt
    }
}

/// Messages of the order server's outbox that the broker has not confirmed.
public struct OutboxTotals: Equatable, Sendable {
    /// Not sent, dead ones included.
    public var open: Int64
    /// Given up by the relay.
    public var dead: Int64

    /// Counts of messages, not of orders.
    public init(open: Int64, dead: Int64) {
        self.open = open
        self.dead = dead
    }
}

/// What became of the orders that were accepted first and decided later.
///
/// The times are the order database's own: both stamps of an order are made where its statements begin, so their difference leaves out the last
/// statement's commit, a few milliseconds, and owes nothing to how often the harness looked.
public struct Drain: Sendable {
    /// Accepted orders that were CONFIRMED.
    public private(set) var confirmed = 0
    /// FAILED for want of stock.
    public private(set) var soldOut = 0
    /// FAILED or CANCELLED otherwise.
    public private(set) var failed = 0
    /// Still PENDING.
    public private(set) var open = 0
    /// Why orders failed, but for want of stock. At most 64 words; further ones count as `OTHER`.
    public private(set) var failReasons: [String: Int] = [:]
    /// From acceptance to the final state.
    public private(set) var latencies = Latencies()
    /// From the last acceptance to the last final state, in seconds.
    public private(set) var seconds = 0.0
    /// CONFIRMED orders a second, from the first acceptance to the last confirmation.
    public private(set) var throughput = 0.0
    /// Accepted orders that buyers may count on: all but those that the database has otherwise. One that it does not have at all is among them, so that
    /// the audit finds it.
    public private(set) var promised: [Int64] = []

    /// Reads what became of the accepted orders, a page at a time.
    public static func read(_ source: some AuditSource, product: Int64, accepted: [Int64], pageSize: Int = 25_000) async throws -> Drain {
        var drain = Drain()
        var promised = Set(accepted)
        guard let first = promised.min() else { return drain }
        var created = (first: Int64.max, last: Int64.min)
        var ended = (confirmed: Int64.min, last: Int64.min)
        var after = first - 1
        // Until a page is not full: the number of orders bounds it.
        while true {
            let page = try await source.orderEndings(of: product, after: after, limit: pageSize)
            for order in page where promised.contains(order.id) {
                created = (min(created.first, order.createdAt), max(created.last, order.createdAt))
                if order.status != "PENDING" {
                    drain.latencies.record(microseconds: order.updatedAt - order.createdAt)
                    ended.last = max(ended.last, order.updatedAt)
                }
                switch (order.status, order.failReason) {
                case ("CONFIRMED", _):
                    drain.confirmed += 1
                    ended.confirmed = max(ended.confirmed, order.updatedAt)
                    continue
                case ("PENDING", _): drain.open += 1
                case ("FAILED", "INSUFFICIENT_STOCK"): drain.soldOut += 1
                default:
                    drain.failed += 1
                    let word = order.failReason ?? order.status
                    drain.failReasons[drain.failReasons[word] != nil || drain.failReasons.count < 64 ? word : "OTHER", default: 0] += 1
                }
                promised.remove(order.id)
            }
            guard page.count == pageSize, let last = page.last else { break }
            after = last.id
        }
        if ended.last > created.last { drain.seconds = Double(ended.last - created.last) / 1e6 }
        if drain.confirmed > 0, ended.confirmed > created.first {
            drain.throughput = Double(drain.confirmed) * 1e6 / Double(ended.confirmed - created.first)
        }
        drain.promised = promised.sorted()
        return drain
    }

    /// Waits until the relay has nothing left to send, at most `bound`. Asks an index alone, so that looking does not slow what is looked at.
    static func untilSent(_ source: some AuditSource, bound: Duration, interval: Duration = .milliseconds(100)) async throws {
        let deadline = ContinuousClock.now + bound
        while try await source.hasWaitingMessages(), ContinuousClock.now < deadline {
            try await Task.sleep(for: interval)
        }
    }
}
