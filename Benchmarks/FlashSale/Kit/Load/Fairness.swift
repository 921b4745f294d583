/// Who got the units: those who came first, or those who came often?
///
/// Two figures. *Order*: of one who bought and one who was told *sold out*, chosen by chance, how often the buyer came first; 1 is first come, first served, 0.5 a
/// lottery. *Share*: the part of the confirmed orders that the busiest hundredth of the buyers got, beside the part of the orders that they sent.
/// Both are counted as orders end, in memory that does not grow with the sale: arrivals in steps of a millisecond (an hour of them, then in the last one), buyers in a table
/// of at most 2,000,000 (further ones share a place, and the share is then not told).
public struct Fairness: Sendable {
    private static let stepLimit = 3_600_000
    private static let buyerLimit = 2_000_000

    private var won: [UInt32] = []
    private var lost: [UInt32] = []
    private var sentBy: [UInt32] = []
    private var wonBy: [UInt32] = []
    private var isCrowded = false

    /// Nobody came yet.
    public init() {}

    /// An order ended.
    /// - Parameters:
    ///   - milliseconds: its intended moment since the opening.
    ///   - hasWon: confirmed, or else told *sold out*.
    mutating func add(arrivedAt milliseconds: Int64, buyer: Int, hasWon: Bool) {
        let step = Int(min(max(milliseconds, 0), Int64(Self.stepLimit - 1)))
        if step >= won.count {
            let missing = step + 1 - won.count
            won += Array(repeating: 0, count: missing)
            lost += Array(repeating: 0, count: missing)
        }
        if hasWon { won[step] &+= 1 } else { lost[step] &+= 1 }
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

    /// Takes in another generator's part.
    mutating func add(_ other: Fairness) {
        Self.add(other.won, to: &won)
        Self.add(other.lost, to: &lost)
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
        var lostBefore = 0.0
        var good = 0.0
        let (wins, losses) = (won.reduce(0.0) { $0 + Double($1) }, lost.reduce(0.0) { $0 + Double($1) })
        guard wins > 0, losses > 0 else { return nil }
        for (bought, turnedAway) in zip(won, lost) {
            // Within a millisecond nobody is first.
            good += Double(bought) * (losses - lostBefore - Double(turnedAway) / 2)
            lostBefore += Double(turnedAway)
        }
        return good / (wins * losses)
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
    var line: String? {
        var parts: [String] = []
        if let order { parts.append("who bought came before who did not in \((order * 100).digits(1)) % of pairs (50 % is a lottery)") }
        if let busiest {
            parts.append(
                "the busiest 1 % of buyers sent \((busiest.sent * 100).digits(1)) % of the orders and got \((busiest.won * 100).digits(1)) % of the units"
            )
        }
        return parts.isEmpty ? nil : "fairness: " + parts.joined(separator: "; ")
    }
}
