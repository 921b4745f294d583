public import Foundation

// Several runs of one sale.
extension SaleReport {
    /// The judgement on the books.
    public var audit: Audit { result.audit }
    /// Whether somebody ended the sale early.
    public var wasInterrupted: Bool { result.wasInterrupted }
    /// Whether the audit passed.
    public var passes: Bool { result.audit.passes }
    /// What kept the sale from being held to its end, or audited.
    public var failure: String? { result.failure.map { SaleResult.words($0) } }
    /// Whether the sale was held to its end and audited as it was to be, and the audit passed.
    public var isWhole: Bool { passes && failure == nil }
    /// Faults that were asked for and never made.
    public var faultsMissed: [String] { result.faultsMissed }
    /// Whether nobody was told of a confirmed order.
    public var hasSoldNothing: Bool { (result.audit.confirmed ?? 0) == 0 && result.load.confirmed == 0 }
    /// The kind of the first threshold that was missed.
    public var firstMissed: Requirement.Kind? { verdicts.first { !$0.isMet }?.requirement.kind }

    private static let summed: [(name: String, value: @Sendable (SaleReport) -> Double)] = [
        ("throughput", \.throughput),
        ("p50Ms", { $0.result.load.latencies.milliseconds(at: 50) }),
        ("p99Ms", { $0.result.load.latencies.milliseconds(at: 99) }),
        ("p999Ms", { $0.result.load.latencies.milliseconds(at: 99.9) }),
        ("errors", { Double($0.result.load.errors) }),
    ]

    /// Every run, and the medians with the intervals that hold them.
    /// - Parameter failure: why a further run could not be held.
    public static func json(of runs: [SaleReport], failure: String? = nil) throws -> Data {
        var summary: [String: ReportValue] = [:]
        for (name, value) in summed {
            guard let sample = Comparison.Sample(runs.map(value)) else { continue }
            summary[name] = .object(["median": .double(sample.median), "low": .double(sample.low), "high": .double(sample.high)])
        }
        let whole = ReportValue.object([
            "runs": .array(runs.map(\.figures)), "summary": .object(summary), "pass": .bool(failure == nil && runs.allSatisfy(\.isWhole)),
            "failure": .optional(failure),
        ])
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        return try encoder.encode(whole)
    }

    /// The medians as a table.
    public static func medians(of runs: [SaleReport]) -> [String] {
        let rows = summed.compactMap { name, value in
            Comparison.Sample(runs.map(value)).map { [name, $0.median.digits(2), "\($0.low.digits(2))..\($0.high.digits(2))"] }
        }
        return ["", "median of \(runs.count) runs"] + aligned([["", "median", "interval"]] + rows)
    }
}
