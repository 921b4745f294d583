/// Who got the units: those who came first, or those who came often?
///
/// Two figures. *Order*: of one who bought and one who was told *sold out*, chosen by chance, how often the buyer came first; 1 is first come, first served, 0.5 a
/// lottery. Both wanted the same product: that one product lasts longer than another says nothing of who is served first. *Share*: the part of the confirmed orders that the busiest hundredth of the buyers got, beside the part of the orders that they sent.
/// Both are counted as orders end, in memory that does not grow with the sale: arrivals in steps of a millisecond, of ten where there are several products (an hour of them,
/// then in the last one; at most 8,000,000 steps of all products together, beyond which the order is not told), buyers in a table of at most 2,000,000 (further ones
/// share a place, and the share is then not told).
public struct Fairness: Sendable {
    private static let longest: Int64 = 3_600_000
    private static let stepLimit = 8_000_000
    private static let buyerLimit = 2_000_000

    /// One product's orders by the step in which they arrived.
    private struct Arrivals: Sendable {
        var won: [UInt32] = []
        var lost: [UInt32] = []
    }

    private let step: Int64
    private var arrivals: [Arrivals]
    private var steps = 0
    private var isOverfull = false
    private var sentBy: [UInt32] = []
    private var wonBy: [UInt32] = []
    private var isCrowded = false

    /// Nobody came yet.
    /// - Parameter products: how many are on sale.
    public init(products: Int = 1) {
        step = products > 1 ? 10 : 1
        arrivals = Array(repeating: Arrivals(), count: max(1, products))
    }

    /// An order ended.
    /// - Parameters:
    ///   - milliseconds: its intended moment since the opening.
    ///   - product: the product's place among those on sale.
    ///   - hasWon: confirmed, or else told *sold out*.
    mutating func add(arrivedAt milliseconds: Int64, buyer: Int, product: Int = 0, hasWon: Bool) {
        if arrivals.indices.contains(product) {
            count(at: Int(min(max(milliseconds, 0), Self.longest - 1) / step), product: product, hasWon: hasWon)
        }
        let place = buyer % Self.buyerLimit
        if buyer >= Self.buyerLimit { isCrowded = true }
        if place >= sentBy.count {
            // Twice as long each time, so that growing costs little.
            let missing = min(Self.buyerLimit, max(place + 1, sentBy.count * 2)) - sentBy.count
            sentBy += Array(repeating: 0, count: missing)
            wonBy += Array(repeating: 0, count: missing)
        }
        sentBy[place] &+= 1
        if hasWon { wonBy[place] &+= 1 }
    }

    private mutating func count(at place: Int, product: Int, hasWon: Bool) {
        let missing = place + 1 - arrivals[product].won.count
        if missing > 0 {
            guard steps + missing <= Self.stepLimit else {
                isOverfull = true
                return
            }
            steps += missing
            arrivals[product].won += Array(repeating: 0, count: missing)
            arrivals[product].lost += Array(repeating: 0, count: missing)
        }
        if hasWon { arrivals[product].won[place] &+= 1 } else { arrivals[product].lost[place] &+= 1 }
    }

    /// Takes in another generator's part of the same sale.
    mutating func add(_ other: Fairness) {
        for (product, more) in other.arrivals.enumerated() where arrivals.indices.contains(product) {
            Self.add(more.won, to: &arrivals[product].won)
            Self.add(more.lost, to: &arrivals[product].lost)
        }
        isOverfull = isOverfull || other.isOverfull
        Self.add(other.sentBy, to: &sentBy)
        Self.add(other.wonBy, to: &wonBy)
        isCrowded = isCrowded || other.isCrowded
    }

    private static func add(_ counts: [UInt32], to sums: inout [UInt32]) {
        if counts.count > sums.count { sums += Array(repeating: 0, count: counts.count - sums.count) }
        for (index, count) in counts.enumerated() { sums[index] &+= count }
    }

    /// How often, of one who bought and one who did not, the buyer came first; nil if there are not both.
    public var order: Double? {
        guard !isOverfull else { return nil }
        var good = 0.0
        var pairs = 0.0
        for product in arrivals {
            let (wins, losses) = (product.won.reduce(0.0) { $0 + Double($1) }, product.lost.reduce(0.0) { $0 + Double($1) })
            guard wins > 0, losses > 0 else { continue }
            pairs += wins * losses
            var lostBefore = 0.0
            for (bought, turnedAway) in zip(product.won, product.lost) {
                // Within a step nobody is first.
                good += Double(bought) * (losses - lostBefore - Double(turnedAway) / 2)
                lostBefore += Double(turnedAway)
            }
        }
        return pairs > 0 ? good / pairs : nil
    }

    /// The busiest hundredth of the buyers who ordered: the parts of all orders that they sent, and of all confirmed ones that they got.
    public var busiest: (buyers: Int, sent: Double, won: Double)? {
        guard !isCrowded else { return nil }
        var buyers = sentBy.indices.filter { sentBy[$0] > 0 }
        guard buyers.count >= 100 else { return nil }
        buyers.sort { (sentBy[$1], $0) < (sentBy[$0], $1) }
        let count = buyers.count / 100
        func part(_ counts: [UInt32]) -> Double {
            let whole = counts.reduce(0.0) { $0 + Double($1) }
            return whole == 0 ? 0 : buyers[..<count].reduce(0.0) { $0 + Double(counts[$1]) } / whole
        }
        return (count, part(sentBy), part(wonBy))
    }

    /// Both figures in words, nil without any.
    /// - Parameter promise: what those were told who got something: an order that is accepted, to be decided later, has bought nothing yet.
    func line(promise: String = "confirmed") -> String? {
        var parts: [String] = []
        if let order {
            parts.append("who was \(promise) came before who was not in \((order * 100).digits(1)) % of pairs (50 % is a lottery)")
        }
        if let busiest {
            parts.append(
                "the busiest 1 % of buyers sent \((busiest.sent * 100).digits(1)) % of the orders and got \((busiest.won * 100).digits(1)) % of the \(promise) ones"
            )
        }
        return parts.isEmpty ? nil : "fairness: " + parts.joined(separator: "; ")
    }
}
