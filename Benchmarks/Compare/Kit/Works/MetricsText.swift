import Foundation

/// Figures in Prometheus' text format.
package struct MetricsText: Sendable {
    private let lines: [Substring]

    /// - Parameter text: what `/metrics` answered.
    package init(_ text: String) { lines = text.split(separator: "\n") }

    /// The sum over all label sets of a metric; 0 where it is missing.
    package func sum(_ name: String) -> Double {
        lines.reduce(0) { sum, line in
            guard line.hasPrefix(name), let end = line.dropFirst(name.count).first, end == "{" || end == " ",
                let value = line.split(separator: " ").last.flatMap({ Double($0) })
            else { return sum }
            return sum + value
        }
    }

    /// A histogram's buckets with this label: what is at most each bound, in the order of the text.
    func buckets(_ name: String, label: String) -> Histogram {
        var buckets: [(bound: Double, count: Double)] = []
        for line in lines where line.hasPrefix("\(name)_bucket{") && line.contains(label) {
            guard let mark = line.range(of: "le=\""), let close = line[mark.upperBound...].firstIndex(of: "\""),
                let count = line.split(separator: " ").last.flatMap({ Double($0) })
            else { continue }
            let bound = line[mark.upperBound..<close]
            buckets.append((bound == "+Inf" ? .infinity : Double(bound) ?? .infinity, count))
        }
        return Histogram(buckets: buckets)
    }

    /// Cumulative counts by bound.
    struct Histogram: Sendable {
        var buckets: [(bound: Double, count: Double)]

        /// What was counted since an earlier look.
        func since(_ before: Histogram) -> Histogram {
            Histogram(
                buckets: buckets.map { bucket in
                    (bucket.bound, bucket.count - (before.buckets.first { $0.bound == bucket.bound }?.count ?? 0))
                }
            )
        }

        /// The least bound that this share of all is at most; nil when nothing was counted.
        func bound(at share: Double) -> Double? {
            guard let all = buckets.map(\.count).max(), all > 0 else { return nil }
            return buckets.first { $0.count >= share * all }?.bound
        }
    }
}
