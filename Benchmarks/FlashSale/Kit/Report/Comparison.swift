public import Foundation

/// Two reports beside each other.
///
/// Each may be of one run or of several (`--repeat`). A figure has changed when the intervals of its medians are apart and the medians differ by more than the noise; with one
/// run on a side there is no interval, and the noise alone decides. The interval is free of assumptions about the distribution: order statistics that hold the
/// median with 95 %, which up to five runs are the smallest and the largest.
public struct Comparison: Sendable {
    /// What became of a figure.
    public enum Change: String, Sendable {
        /// More throughput, less latency, fewer errors.
        case better
        /// The opposite.
        case worse
        /// Not told apart.
        case same
    }

    /// Values of one figure in several runs.
    struct Sample: Equatable {
        var median: Double
        var low: Double
        var high: Double
        var count: Int

        init?(_ values: [Double]) {
            guard !values.isEmpty else { return nil }
            let sorted = values.sorted()
            count = sorted.count
            median = count.isMultiple(of: 2) ? (sorted[count / 2 - 1] + sorted[count / 2]) / 2 : sorted[count / 2]
            let rank = Self.rank(count)
            low = sorted[rank]
            high = sorted[count - 1 - rank]
        }

        /// How many of the smallest may be left out so that the rest still holds the median with 95 %.
        static func rank(_ count: Int) -> Int {
            var probability = 1.0
            for _ in 0..<count { probability /= 2 }
            var sum = 0.0
            var rank = 0
            while rank < (count - 1) / 2 {
                sum += probability
                if sum > 0.025 { break }
                rank += 1
                probability *= Double(count - rank + 1) / Double(rank)
            }
            return max(0, rank - 1)
        }
    }

    /// One figure of both.
    struct Row {
        var name: String
        var first: Sample
        var second: Sample
        var change: Change
        var ratio: Double?
    }

    private static let figures: [(name: String, path: [String], isMoreBetter: Bool)] = [
        ("orders/s", ["throughput"], true), ("accepted/s", ["acceptThroughput"], true), ("p50 ms", ["latencyMs", "p50"], false),
        ("p90 ms", ["latencyMs", "p90"], false), ("p99 ms", ["latencyMs", "p99"], false), ("p99.9 ms", ["latencyMs", "p999"], false),
        ("max ms", ["latencyMs", "max"], false), ("errors", ["errors"], false), ("retries", ["retries"], false), ("shed", ["shed"], false),
        ("stale", ["stale"], false), ("rate kept", ["rate", "attainment"], true), ("oversold", ["oversold"], false),
        ("leaked", ["leaked"], false), ("unmatched", ["unmatched"], false), ("lost answers", ["lostAnswers"], false),
    ]
    /// What a verdict rests on: the rest informs.
    private static let decisive: Set<String> = [
        "orders/s", "accepted/s", "p50 ms", "p99 ms", "errors", "rate kept", "oversold", "leaked", "unmatched", "lost answers",
    ]
    /// Settings that differ between two runs of one sale: what chance chooses, and where the servers happen to be.
    private static let incidental: Set<String> = ["seed", "gateway"]

    let rows: [Row]
    /// Whether a run of the second failed its audit: no figure makes up for that.
    let isSecondBroken: Bool
    let cautions: [String]
    let noise: Double

    /// - Parameters:
    ///   - noise: differences up to this part of the first are none.
    /// - Throws: `PlanError` if one of the two is no report.
    public init(_ first: Data, _ second: Data, noise: Double) throws(PlanError) {
        let sides = (try Self.runs(first, "the first file"), try Self.runs(second, "the second file"))
        self.noise = noise
        var rows: [Row] = []
        for figure in Self.figures {
            let values = [sides.0, sides.1].map { $0.compactMap { run in figure.path.reduce(Optional(run)) { $0?[$1] }?.number } }
            guard let one = Sample(values[0]), let two = Sample(values[1]) else { continue }
            rows.append(Self.row(figure.name, one, two, isMoreBetter: figure.isMoreBetter, noise: noise))
        }
        self.rows = rows
        var cautions: [String] = []
        if min(sides.0.count, sides.1.count) < 3 {
            cautions.append("fewer than three runs on a side: run with --repeat 5 to tell a change from chance")
        }
        func distinct(_ runs: [ReportValue], _ keys: [String]) -> Set<String> {
            Set(runs.compactMap { keys.reduce(Optional($0)) { $0?[$1] }?.text })
        }
        func settings(_ runs: [ReportValue]) -> Set<String> { Set(runs.flatMap { $0["run"]?["settings"]?.fields.keys.map { $0 } ?? [] }) }
        let names = (settings(sides.0), settings(sides.1))
        if names.0.isEmpty != names.1.isEmpty {
            cautions.append("one of the two does not say with which settings it was run")
        } else {
            let all = names.0.union(names.1).subtracting(Self.incidental)
            for key in all.sorted() where distinct(sides.0, ["run", "settings", key]) != distinct(sides.1, ["run", "settings", key]) {
                cautions.append("the two were run with different settings: \(key)")
            }
        }
        if distinct(sides.0, ["run", "machine", "processor"]) != distinct(sides.1, ["run", "machine", "processor"]) {
            cautions.append("the two were run on different processors")
        }
        for (name, side) in [("first", sides.0), ("second", sides.1)] where side.contains(where: { $0["pass"] == .bool(false) }) {
            cautions.append("a run of the \(name) failed its audit")
        }
        isSecondBroken = sides.1.contains { $0["pass"] == .bool(false) }
        self.cautions = cautions
    }

    private static func runs(_ data: Data, _ name: String) throws(PlanError) -> [ReportValue] {
        guard let report = try? JSONDecoder().decode(ReportValue.self, from: data) else { throw PlanError("\(name) is no JSON") }
        let runs = report["runs"]?.list ?? [report]
        guard !runs.isEmpty, runs.allSatisfy({ $0["throughput"]?.number != nil }) else {
            throw PlanError("\(name) is no report of flash-sale")
        }
        return runs
    }

    static func row(_ name: String, _ one: Sample, _ two: Sample, isMoreBetter: Bool, noise: Double) -> Row {
        let difference = two.median - one.median
        let isBeyondNoise = abs(difference) > noise * abs(one.median)
        let areApart = one.count < 2 || two.count < 2 || one.high < two.low || two.high < one.low
        let change: Change = isBeyondNoise && areApart ? ((difference > 0) == isMoreBetter ? .better : .worse) : .same
        return Row(name: name, first: one, second: two, change: change, ratio: one.median == 0 ? nil : two.median / one.median)
    }

    /// Worse if the second failed its audit or anything that matters is worse, else better if anything is.
    public var verdict: Change {
        if isSecondBroken { return .worse }
        let changes = rows.filter { Self.decisive.contains($0.name) }.map(\.change)
        return changes.contains(.worse) ? .worse : changes.contains(.better) ? .better : .same
    }

    /// The table with the verdict last.
    public var lines: [String] {
        func cells(_ sample: Sample) -> [String] {
            let digits = abs(sample.median) < 100 && sample.median.rounded() != sample.median ? 2 : 0
            return [sample.median.digits(digits), sample.count > 1 ? "\(sample.low.digits(digits))..\(sample.high.digits(digits))" : "-"]
        }
        let table = rows.map { row in
            [row.name] + cells(row.first) + cells(row.second) + [row.ratio.map { "\($0.digits(2)) x" } ?? "-", row.change.rawValue]
        }
        let count = (rows.first?.first.count ?? 0, rows.first?.second.count ?? 0)
        return SaleReport.aligned(
            [["", "first (\(count.0))", "interval", "second (\(count.1))", "interval", "ratio", "the second is"]] + table
        )
            + cautions.map { "caution: \($0)" }
            + ["COMPARE \(verdict.rawValue.uppercased()) beyond a noise of \((noise * 100).plain) %"]
    }
}
