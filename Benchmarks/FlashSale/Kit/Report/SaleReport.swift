import Foundation

/// The figures of a sale as a table and as JSON.
public struct SaleReport: Sendable {
    private let result: SaleResult

    /// Of one sale.
    public init(_ result: SaleResult) {
        self.result = result
    }

    /// Orders answered a second, over the whole sale.
    public var throughput: Double {
        Double(result.load.orders) / max(result.duration.inSeconds, 0.001)
    }

    /// Orders accepted a second, over the whole sale, if they are decided later.
    public var acceptThroughput: Double {
        Double(result.load.acceptedOrders.count) / max(result.duration.inSeconds, 0.001)
    }

    private static func decidedLater(_ name: String, _ orders: Int, _ rate: Double, _ latencies: Latencies) -> [String] {
        [name, orders.grouped, Int(rate).grouped] + [50, 90, 99, 99.9].map { Sale.decimal(latencies.milliseconds(at: $0)) } + [
            Sale.decimal(latencies.maximum)
        ]
    }

    /// The table that precedes the audit's line.
    public var table: [String] {
        let load = result.load
        let phases = SalePhase.allCases.map { ($0.name, load.phases[$0.rawValue]) }.filter { $0.1.orders > 0 || $0.1.time > .zero }
        let parts = phases + [("all", total)]
        // Own pace: the part of the time in which nothing held the buyers back.
        let promise = load.drain == nil ? "confirmed" : "accepted"
        let rates = [["", "time", "orders", "/s", promise, "/s", "own pace: orders/s", "\(promise)/s", "sold out", "failed", "errors"]]
        let latencies = [["latency, ms", "p50", "p90", "p99", "p99.9", "max"]]
        var lines = Self.aligned(rates + parts.map(Self.rates)) + Self.aligned(latencies + parts.map(Self.latencies))
        var counts = "\(load.sent.grouped) orders sent, \(load.retries.grouped) attempts repeated\(Self.list(load.retryCauses))"
        if load.shed > 0 { counts += ", \(load.shed.grouped) arrivals shed: every place in flight was taken" }
        lines.append(counts)
        if let drain = load.drain {
            let header = [["decided later, ms", "orders", "/s", "p50", "p90", "p99", "p99.9", "max"]]
            let accepted = Self.decidedLater("accepted", load.acceptedOrders.count, acceptThroughput, load.acceptLatencies)
            let final = Self.decidedLater("final state", drain.latencies.count, drain.throughput, drain.latencies)
            lines += Self.aligned(header + [accepted, final])
            lines.append("\(drain.confirmed.grouped) confirmed; all decided \(Sale.decimal(drain.seconds)) s after the last was accepted")
        }
        if !load.failReasons.isEmpty { lines.append("failed or given up\(Self.list(load.failReasons))") }
        if !result.hasSettled { lines.append("not everything came to rest in time") }
        return lines
    }

    private var total: LoadFigures.Phase {
        var total = LoadFigures.Phase()
        for phase in result.load.phases {
            total.confirmed += phase.confirmed
            total.soldOut += phase.soldOut
            total.failed += phase.failed
            total.errors += phase.errors
            total.time += phase.time
            total.ownPaceTime += phase.ownPaceTime
            total.ownPaceConfirmed += phase.ownPaceConfirmed
            total.ownPaceOrders += phase.ownPaceOrders
        }
        total.latencies = result.load.latencies
        return total
    }

    private static func rates(_ name: String, _ part: LoadFigures.Phase) -> [String] {
        func rate(_ count: Int, _ time: Duration) -> String {
            time.inSeconds < 0.05 ? "-" : Int((Double(count) / time.inSeconds).rounded()).grouped
        }
        return [
            name, Sale.decimal(part.time.inSeconds) + " s", part.orders.grouped, rate(part.orders, part.time), part.confirmed.grouped,
            rate(part.confirmed, part.time), rate(part.ownPaceOrders, part.ownPaceTime), rate(part.ownPaceConfirmed, part.ownPaceTime),
            part.soldOut.grouped, part.failed.grouped, part.errors.grouped,
        ]
    }

    private static func latencies(_ name: String, _ part: LoadFigures.Phase) -> [String] {
        guard part.latencies.count > 0 else { return [name, "-", "-", "-", "-", "-"] }
        return [name] + [50, 90, 99, 99.9].map { Sale.decimal(part.latencies.milliseconds(at: $0)) } + [
            Sale.decimal(part.latencies.maximum)
        ]
    }

    private static func aligned(_ rows: [[String]]) -> [String] {
        let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            zip(row, widths).enumerated().map { index, cell in
                let space = String(repeating: " ", count: cell.1 - cell.0.count)
                return index == 0 ? cell.0 + space : space + cell.0
            }.joined(separator: "  ")
        }
    }

    private static func list(_ words: [String: Int]) -> String {
        guard !words.isEmpty else { return "" }
        let sorted = words.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
        return " (" + sorted.map { "\($0.key) \($0.value.grouped)" }.joined(separator: ", ") + ")"
    }

    /// The figures as JSON, keys sorted.
    /// - Throws: an encoding error.
    public func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        return try encoder.encode(Figures(self))
    }

    private struct Milliseconds: Encodable {
        var p50: Double
        var p90: Double
        var p99: Double
        var p999: Double
        var max: Double

        init(_ latencies: Latencies) {
            p50 = latencies.milliseconds(at: 50)
            p90 = latencies.milliseconds(at: 90)
            p99 = latencies.milliseconds(at: 99)
            p999 = latencies.milliseconds(at: 99.9)
            max = latencies.maximum
        }
    }

    private struct Phase: Encodable {
        var seconds: Double
        var ownPaceSeconds: Double
        var confirmed: Int
        var soldOut: Int
        var failed: Int
        var errors: Int
        var ownPaceOrders: Int
        var ownPaceConfirmed: Int
        var latencyMs: Milliseconds
    }

    private struct StoryLine: Encodable {
        var atSeconds: Double
        var text: String
    }

    private struct Figures: Encodable {
        var product: Int64
        /// What the audit was taken from.
        var audit: String
        var pass: Bool
        var initial: Int64
        var confirmed: Int64
        var soldOut: Int
        var failed: Int
        var errors: Int
        var oversold: Int64
        var leaked: Int64
        var unmatched: Int
        var lostAnswers: Int
        var pending: Int64
        /// Written as null if Redis holds nothing to compare.
        var drift: Int64?
        var throughput: Double
        var latencyMs: Milliseconds
        var breakerTransitions: [BreakerTransition]
        var seconds: Double
        var orders: Int
        var retries: Int
        var shed: Int
        var reachedLimit: Bool
        var hasSettled: Bool
        var phases: [String: Phase]
        var story: [StoryLine]
        var findings: [String]
        /// With orders that are decided later alone.
        var acceptLatencyMs: Milliseconds?
        var finalLatencyMs: Milliseconds?
        var drainSeconds: Double?
        var acceptThroughput: Double?
        var drainThroughput: Double?
        var outboxOpen: Int64?
        var deadLetters: Int64?

        enum CodingKeys: CodingKey {
            case product, audit, pass, initial, confirmed, soldOut, failed, errors, oversold, leaked, unmatched, lostAnswers, pending, drift
            case throughput, latencyMs, breakerTransitions, seconds, orders, retries, shed, reachedLimit, hasSettled, phases, story,
                findings
            case acceptLatencyMs, finalLatencyMs, drainSeconds, acceptThroughput, drainThroughput, outboxOpen, deadLetters
        }

        func encode(to encoder: any Encoder) throws {
            var fields = encoder.container(keyedBy: CodingKeys.self)
            try fields.encode(product, forKey: .product)
            try fields.encode(audit, forKey: .audit)
            try fields.encode(pass, forKey: .pass)
            try fields.encode(initial, forKey: .initial)
            try fields.encode(confirmed, forKey: .confirmed)
            try fields.encode(soldOut, forKey: .soldOut)
            try fields.encode(failed, forKey: .failed)
            try fields.encode(errors, forKey: .errors)
            try fields.encode(oversold, forKey: .oversold)
            try fields.encode(leaked, forKey: .leaked)
            try fields.encode(unmatched, forKey: .unmatched)
            try fields.encode(lostAnswers, forKey: .lostAnswers)
            try fields.encode(pending, forKey: .pending)
            // Not left out when nil: a missing key would look like an older harness.
            try fields.encode(drift, forKey: .drift)
            try fields.encode(throughput, forKey: .throughput)
            try fields.encode(latencyMs, forKey: .latencyMs)
            try fields.encode(breakerTransitions, forKey: .breakerTransitions)
            try fields.encode(seconds, forKey: .seconds)
            try fields.encode(orders, forKey: .orders)
            try fields.encode(retries, forKey: .retries)
            try fields.encode(shed, forKey: .shed)
            try fields.encode(reachedLimit, forKey: .reachedLimit)
            try fields.encode(hasSettled, forKey: .hasSettled)
            try fields.encode(phases, forKey: .phases)
            try fields.encode(story, forKey: .story)
            try fields.encode(findings, forKey: .findings)
            try fields.encodeIfPresent(acceptLatencyMs, forKey: .acceptLatencyMs)
            try fields.encodeIfPresent(finalLatencyMs, forKey: .finalLatencyMs)
            try fields.encodeIfPresent(drainSeconds, forKey: .drainSeconds)
            try fields.encodeIfPresent(acceptThroughput, forKey: .acceptThroughput)
            try fields.encodeIfPresent(drainThroughput, forKey: .drainThroughput)
            try fields.encodeIfPresent(outboxOpen, forKey: .outboxOpen)
            try fields.encodeIfPresent(deadLetters, forKey: .deadLetters)
        }

        init(_ report: SaleReport) {
            let result = report.result
            let audit = result.audit
            product = result.product
            self.audit = audit.basis.rawValue
            pass = audit.passes
            initial = audit.initial
            confirmed = audit.confirmed
            soldOut = audit.soldOut
            failed = audit.failed
            errors = audit.errors
            oversold = audit.oversold
            leaked = audit.leaked
            unmatched = audit.unmatched
            lostAnswers = audit.lostAnswers
            pending = audit.pending
            drift = audit.drift
            throughput = report.throughput
            latencyMs = Milliseconds(result.load.latencies)
            breakerTransitions = result.transitions
            seconds = result.duration.inSeconds
            orders = result.load.orders
            retries = result.load.retries
            shed = result.load.shed
            reachedLimit = result.reachedLimit
            hasSettled = result.hasSettled
            phases = [:]
            for phase in SalePhase.allCases {
                let part = result.load.phases[phase.rawValue]
                phases[phase.name] = Phase(
                    seconds: part.time.inSeconds,
                    ownPaceSeconds: part.ownPaceTime.inSeconds,
                    confirmed: part.confirmed,
                    soldOut: part.soldOut,
                    failed: part.failed,
                    errors: part.errors,
                    ownPaceOrders: part.ownPaceOrders,
                    ownPaceConfirmed: part.ownPaceConfirmed,
                    latencyMs: Milliseconds(part.latencies)
                )
            }
            story = result.story.map { StoryLine(atSeconds: $0.at.inSeconds, text: $0.text) }
            findings = audit.findings
            if let drain = result.load.drain {
                acceptLatencyMs = Milliseconds(result.load.acceptLatencies)
                finalLatencyMs = Milliseconds(drain.latencies)
                drainSeconds = drain.seconds
                acceptThroughput = report.acceptThroughput
                drainThroughput = drain.throughput
                outboxOpen = audit.outbox?.open
                deadLetters = audit.outbox?.dead
            }
        }
    }
}

extension Int {
    /// With commas between the thousands.
    var grouped: String {
        var digits = String(magnitude)
        var groups: [String] = []
        while digits.count > 3 {
            groups.insert(String(digits.suffix(3)), at: 0)
            digits.removeLast(3)
        }
        return (self < 0 ? "-" : "") + ([digits] + groups).joined(separator: ",")
    }
}

extension Double {
    /// A whole number with commas between the thousands, or as it is.
    var grouped: String {
        rounded() == self && magnitude < 1e15 ? Int(self).grouped : String(self)
    }
}
