import Histogram

/// Latencies in microseconds, three significant digits, up to two minutes; what is longer counts as two minutes.
public struct Latencies: Sendable {
    static let highest: UInt64 = 120_000_000
    private(set) var histogram = Histogram<UInt64>(highestTrackableValue: Latencies.highest, numberOfSignificantValueDigits: .three)

    /// No latencies yet.
    public init() {}

    /// Counts one latency.
    public mutating func record(microseconds: Int64) {
        histogram.record(min(UInt64(max(microseconds, 1)), Self.highest))
    }

    /// Counts several at once, as a file has them.
    mutating func record(microseconds: UInt64, count: UInt64) {
        histogram.record(min(max(microseconds, 1), Self.highest), count: count)
    }

    /// Takes in what another has counted.
    public mutating func add(_ other: Latencies) {
        if other.count > 0 { histogram.add(other.histogram) }
    }

    /// Milliseconds at that percentile (0 to 100), 0 without latencies.
    public func milliseconds(at percentile: Double) -> Double {
        histogram.totalCount == 0 ? 0 : Double(histogram.valueAtPercentile(percentile)) / 1000
    }

    /// The longest, in milliseconds.
    public var maximum: Double { histogram.totalCount == 0 ? 0 : Double(histogram.max) / 1000 }

    /// The arithmetic mean, in milliseconds.
    public var mean: Double { histogram.totalCount == 0 ? 0 : histogram.mean / 1000 }

    /// How many were counted.
    public var count: Int { Int(histogram.totalCount) }

    /// Every latency that was counted, in microseconds, with how often; ascending.
    public var recorded: [(microseconds: UInt64, count: UInt64)] {
        histogram.recordedValues().map { ($0.value, UInt64($0.count)) }
    }

    mutating func reset() {
        histogram.reset()
    }
}
