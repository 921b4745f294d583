public import Synchronization

/// A number that only grows. Adding is one relaxed atomic operation.
public final class Counter: Sendable {
    @usableFromInline let count = Atomic<UInt64>(0)

    /// Makes a counter that no registry shows; for a registered one see ``MetricsRegistry/counter(_:help:labels:)``.
    public init() {}

    /// Counts this many more.
    @inlinable
    public func add(_ amount: UInt64 = 1) {
        count.wrappingAdd(amount, ordering: .relaxed)
    }

    /// What was added so far.
    public var value: UInt64 { count.load(ordering: .relaxed) }
}

/// How often values fell into each of at most 31 ranges. Recording is two relaxed atomic operations.
public final class Histogram: Sendable {
    /// 31 bounds and the range above the last.
    @usableFromInline let counts: InlineArray<32, Atomic<UInt64>> = InlineArray { _ in Atomic<UInt64>(0) }
    @usableFromInline let sum = Atomic<UInt64>(0)
    /// The upper bounds in the unit recorded, ascending; at most 31.
    @usableFromInline let bounds: [UInt64]
    /// What one of the unit recorded is in the unit shown: 1e-9 for nanoseconds shown as seconds.
    let scale: Double

    /// Durations, from 50 µs to 10 s, each bound about twice the one before.
    public static let latencyBounds: [UInt64] = [
        50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000, 100_000_000,
        250_000_000, 500_000_000, 1_000_000_000, 2_500_000_000, 5_000_000_000, 10_000_000_000,
    ]

    /// Sizes, such as of batches: 1 to 65,536 in powers of two.
    public static let sizeBounds: [UInt64] = (0...16).map { 1 << $0 }

    /// Makes a histogram that no registry shows.
    /// - Parameters:
    ///   - bounds: upper bounds, ascending; those beyond the 31st are left out
    ///   - scale: what one of the unit recorded is in the unit shown
    public init(bounds: [UInt64] = Histogram.latencyBounds, scale: Double = 1e-9) {
        self.bounds = Array(bounds.prefix(31))
        self.scale = scale
    }

    /// Records a value in the unit of the bounds.
    @inlinable
    public func record(_ value: UInt64) {
        var low = 0
        var high = bounds.count
        while low < high {
            let middle = (low + high) / 2
            if bounds[middle] < value { low = middle + 1 } else { high = middle }
        }
        counts[low].wrappingAdd(1, ordering: .relaxed)
        sum.wrappingAdd(value, ordering: .relaxed)
    }

    /// Records a duration in a histogram of nanoseconds: a negative one as zero, one beyond 64 bits as their end.
    @inlinable
    public func record(_ duration: Duration) {
        let (seconds, attoseconds) = duration.components
        let (whole, overflow) = UInt64(clamping: seconds).multipliedReportingOverflow(by: 1_000_000_000)
        let (nanoseconds, overflow2) = whole.addingReportingOverflow(UInt64(clamping: attoseconds / 1_000_000_000))
        self.record(overflow || overflow2 ? .max : nanoseconds)
    }

    /// How many values were recorded.
    public var count: UInt64 { snapshot().cumulative.last ?? 0 }

    func snapshot() -> (cumulative: [UInt64], sum: UInt64) {
        var cumulative: [UInt64] = []
        var total: UInt64 = 0
        for index in 0...self.bounds.count {
            total &+= counts[index].load(ordering: .relaxed)
            cumulative.append(total)
        }
        return (cumulative, self.sum.load(ordering: .relaxed))
    }
}
