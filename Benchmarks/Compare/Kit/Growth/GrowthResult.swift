import FlashSaleKit

/// How the cost of a request grows with what a shop has: gated products, and servers beside each other.
public struct GrowthResult: Codable, Equatable, Sendable {
    /// What there is more of.
    public enum Kind: String, Codable, Sendable, CaseIterable {
        /// Durable decreases, with so many gated products that they are drawn from.
        case products
        /// Whole orders, with so many product servers and as many order servers.
        case instances

        /// The ratio that must not be exceeded: the cost of a request divided by its cost where there is one.
        public var goal: Double { self == .products ? 1.25 : 1.15 }
    }

    /// How often each product is drawn.
    public enum Spread: String, Codable, Sendable, CaseIterable {
        /// All alike.
        case uniform
        /// The n-th 1/n times as often as the first.
        case zipf = "Zipf"

        var choice: ProductSpread { self == .uniform ? .even : .zipf(1) }
    }

    /// All runs of one number.
    public struct Point: Codable, Equatable, Sendable {
        /// What there is more of.
        public var kind: Kind
        /// How many there are.
        public var count: Int
        /// The spread over the products; instances are measured with one product.
        public var spread: Spread
        /// In the order in which they were made.
        public var runs: [Sample]

        /// Requests a second, the median.
        public var rate: Double { runs.map(\.rate).median ?? 0 }
        /// Microseconds of the servers' processor time a request, the median.
        public var cost: Double { runs.map(\.cpuPerRequest).median ?? 0 }
    }

    /// In the order in which they are shown: of each kind the one with a single product, or instance, first.
    public var points: [Point]

    /// - Parameter points: as they are shown.
    public init(points: [Point]) { self.points = points }

    /// The cost of a request at a point divided by its cost where there is one; nil where that was not measured.
    public func ratio(_ point: Point) -> Double? {
        guard let one = points.first(where: { $0.kind == point.kind && $0.count == 1 }), one.cost > 0 else { return nil }
        return point.cost / one.cost
    }

    static let head = ["what", "how many", "spread", "requests/s", "CPU us", "of one's", "goal", "reached"]

    /// The table's cells.
    var cells: [[String]] {
        points.map { point in
            let ratio = ratio(point)
            let isOne = point.count == 1
            return [
                point.kind == .products ? "durable decrease, gated products" : "whole order, servers of each kind", point.count.grouped,
                isOne || point.kind == .instances ? "-" : point.spread.rawValue, point.rate.digits(0), point.cost.digits(1),
                ratio.map { "\($0.digits(2)) x" } ?? "-", isOne ? "-" : "<= \(point.kind.goal.digits(2)) x",
                isOne ? "-" : ratio.map { $0 <= point.kind.goal ? "yes" : "NO" } ?? "-",
            ]
        }
    }
}
