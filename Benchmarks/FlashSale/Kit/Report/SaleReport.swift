import Foundation

/// The figures of a sale as a table, as JSON and as a page.
public struct SaleReport: Sendable {
    let result: SaleResult
    let percentiles: [Double]
    /// What the run was: settings, machine, versions.
    let metadata: ReportValue?
    /// The thresholds and what came of them.
    let verdicts: [Requirement.Verdict]

    /// The percentiles of a report that asks for none.
    public static let usualPercentiles = [50, 90, 99, 99.9, 99.99]

    /// Makes the report of one sale.
    public init(
        _ result: SaleResult,
        percentiles: [Double] = SaleReport.usualPercentiles,
        requirements: [Requirement] = [],
        metadata: ReportValue? = nil
    ) {
        self.result = result
        self.percentiles = percentiles
        self.metadata = metadata
        verdicts = requirements.map { $0.judge(result) }
    }

    /// Reads `50,99,99.99`.
    /// - Throws: `PlanError` that names the part.
    public static func percentiles(_ text: String) throws(PlanError) -> [Double] {
        var values: [Double] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            guard let value = Double(part), value > 0, value < 100 else {
                throw PlanError("'\(part)' is no percentile: write --percentiles 50,99,99.99, each between 0 and 100")
            }
            values.append(value)
        }
        guard values.count <= 20 else { throw PlanError("at most 20 percentiles") }
        return values.sorted()
    }

    /// Orders answered a second, over the whole sale.
    public var throughput: Double {
        Double(result.load.orders) / max(result.duration.inSeconds, 0.001)
    }

    /// Orders accepted a second, over the whole sale, if they are decided later.
    public var acceptThroughput: Double {
        Double(result.load.acceptedOrders.count) / max(result.duration.inSeconds, 0.001)
    }

    /// The table that precedes the audit's line.
    public var table: [String] {
        let load = result.load
        let phases = SalePhase.allCases.map { ($0.name, load.phases[$0.rawValue]) }.filter { $0.1.orders > 0 || $0.1.time > .zero }
        let parts = phases + [("all", total)]
        let rates = [["", "time", "orders", "/s", promise, "/s", "sold out", "failed", "errors"]]
        let headings = percentiles.map { "p\($0.plain)" } + ["max"]
        var latencies = [["latency, ms"] + headings] + parts.map { self.latencies($0.0, $0.1.latencies) }
        // A sold-out answer is a fast one: together with the confirmed ones it would hide how long these took.
        let outcomes = OrderOutcome.allCases.map { ($0, load.latencies(of: $0)) }.filter { $0.1.count > 0 }
        if outcomes.count > 1 {
            latencies += outcomes.map { self.latencies(name(of: $0.0), $0.1) }
        }
        var lines = Self.aligned(rates + parts.map(Self.rates)) + ownPace(parts, promise: promise) + Self.aligned(latencies)
        var counts = "\(load.sent.grouped) orders sent, \(load.retries.grouped) attempts repeated\(Self.list(load.retryCauses))"
        if load.shed > 0 { counts += ", \(load.shed.grouped) arrivals shed: every place in flight was taken" }
        if load.stale > 0 { counts += ", \(load.stale.grouped) given up as stale" }
        lines.append(counts)
        if let drain = load.drain {
            lines += Self.aligned(decidedLater(drain))
            lines.append(Self.words(drain))
        }
        if !load.failReasons.isEmpty { lines.append("failed or given up\(Self.list(load.failReasons))") }
        lines += habitLines
        lines += faultLines
        if let fairness = load.fairness.line(promise: promise) { lines.append(fairness) }
        if result.audit.answersChecked > 0 {
            let wrong = result.audit.wrongAnswers
            lines.append(
                "\(result.audit.answersChecked.grouped) answers to buyers looked up: \(wrong == 0 ? "each is borne out" : "\(wrong.grouped) are not")"
            )
        }
        if let rateLine { lines.append(rateLine) }
        lines.append(load.health.line)
        lines += load.health.doubts.map { "caution: \($0)" }
        lines += verdicts.map(\.line)
        if !result.hasSettled, result.auditFailure == nil { lines.append("not everything came to rest in time") }
        lines += result.faultsMissed.map { "fault \($0): never made, the sale was over before" }
        if let failure = result.saleFailure { lines.append("the sale ended early: \(SaleResult.words(failure))") }
        return lines
    }

    var total: LoadFigures.Phase {
        var total = LoadFigures.Phase()
        for phase in result.load.phases {
            for outcome in phase.byOutcome.indices { total.byOutcome[outcome].add(phase.byOutcome[outcome]) }
            total.confirmed += phase.confirmed
            total.soldOut += phase.soldOut
            total.failed += phase.failed
            total.errors += phase.errors
            total.time += phase.time
            total.ownPaceTime += phase.ownPaceTime
            total.ownPaceConfirmed += phase.ownPaceConfirmed
            total.ownPaceOrders += phase.ownPaceOrders
        }
        return total
    }

    private static func rates(_ name: String, _ part: LoadFigures.Phase) -> [String] {
        [
            name, Sale.decimal(part.time.inSeconds) + " s", part.orders.grouped, rate(part.orders, over: part.time), part.confirmed.grouped,
            rate(part.confirmed, over: part.time), part.soldOut.grouped, part.failed.grouped, part.errors.grouped,
        ]
    }

    /// How many came in a second: the same number in the text and on the page.
    static func rate(_ count: Int, over time: Duration) -> String {
        time.inSeconds < 0.05 ? "-" : Int((Double(count) / time.inSeconds).rounded()).grouped
    }

    /// The pace of the time in which nothing held the buyers back, where something did in the rest.
    private func ownPace(_ parts: [(String, LoadFigures.Phase)], promise: String) -> [String] {
        guard parts.contains(where: { $0.1.time - $0.1.ownPaceTime > .milliseconds(100) }) else { return [] }
        let rows = parts.map { name, part in
            let time = part.ownPaceTime
            return [
                name, Sale.decimal(time.inSeconds) + " s", Self.rate(part.ownPaceOrders, over: time),
                Self.rate(part.ownPaceConfirmed, over: time),
            ]
        }
        return Self.aligned([["own pace", "time", "orders/s", "\(promise)/s"]] + rows)
    }

    private func latencies(_ name: String, _ latencies: Latencies) -> [String] {
        guard latencies.count > 0 else { return [name] + percentiles.map { _ in "-" } + ["-"] }
        return [name] + percentiles.map { Sale.decimal(latencies.milliseconds(at: $0)) } + [Sale.decimal(latencies.maximum)]
    }

    /// Rows as lines, each column as wide as its widest cell: words to the left in the first one, figures to the right in the others.
    public static func aligned(_ rows: [[String]]) -> [String] {
        let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            zip(row, widths).enumerated().map { index, cell in
                let space = String(repeating: " ", count: cell.1 - cell.0.count)
                return index == 0 ? cell.0 + space : space + cell.0
            }.joined(separator: "  ")
        }
    }

    static func list(_ words: [String: Int]) -> String {
        guard !words.isEmpty else { return "" }
        let sorted = words.sorted { ($1.value, $0.key) < ($0.value, $1.key) }
        return " (" + sorted.map { "\($0.key) \($0.value.grouped)" }.joined(separator: ", ") + ")"
    }
}
