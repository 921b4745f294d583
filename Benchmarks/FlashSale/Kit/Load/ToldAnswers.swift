/// What buyers were told, by the number of the order's key: for the audit, which looks each one up.
///
/// A key is the run's name and a number, so a number is all that has to be kept. Bound: `limit` answers of a kind; further ones are counted.
public struct ToldAnswers: Sendable {
    /// Answers of a kind that are kept.
    static let limit = 8_000_000

    /// The run's name, in front of every key.
    public internal(set) var run = ""
    /// Order ids that were told with *confirmed*, and the keys that they were told under.
    public private(set) var confirmed: [(order: Int64, number: UInt64)] = []
    /// For each answer in `confirmed`, the buyer's number.
    private var buyers: [UInt32] = []
    /// Keys that were told *sold out* without an order.
    public private(set) var soldOut: [UInt64] = []
    /// Answers beyond the bound, which nobody looks up.
    public private(set) var dropped = 0

    /// Nothing told yet.
    public init() {}

    /// The number of a key: the generator's index and the order's count within it.
    static func number(index: Int, count: Int) -> UInt64 { UInt64(index) << 40 | UInt64(count) }

    /// The key of a number.
    public func key(_ number: UInt64) -> String { "\(run)-\(number >> 40)-\(number & (1 << 40 - 1))" }

    /// The number of a key; nil if it is not of this run.
    func number(of key: String) -> UInt64? {
        guard key.hasPrefix(run + "-") else { return nil }
        let parts = key.dropFirst(run.count + 1).split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 2, let index = UInt64(parts[0]), let count = UInt64(parts[1]), index < 1 << 20, count < 1 << 40 else {
            return nil
        }
        return index << 40 | count
    }

    /// Who got the answer at that place of `confirmed`, under the name that the order was placed with.
    func buyer(_ place: Int) -> String { Self.name(ofBuyer: Int(buyers[place])) }

    /// What a buyer orders as.
    static func name(ofBuyer number: Int) -> String { "buyer-\(number)" }

    mutating func tellConfirmed(_ order: Int64, number: UInt64, buyer: Int) {
        guard confirmed.count < Self.limit else { return dropped += 1 }
        confirmed.append((order, number))
        buyers.append(UInt32(clamping: buyer))
    }

    mutating func tellSoldOut(number: UInt64) {
        if soldOut.count < Self.limit { soldOut.append(number) } else { dropped += 1 }
    }

    mutating func add(_ other: ToldAnswers) {
        if run.isEmpty { run = other.run }
        confirmed += other.confirmed
        buyers += other.buyers
        soldOut += other.soldOut
        dropped += other.dropped
    }
}
