/// The milliseconds of the sale in which an order was confirmed (accepted, where orders are decided later).
///
/// A bit each, so that the longest time without one is known however long an interval of the report is. Bound: a day, 11 MB; later moments are not kept.
struct SaleMoments: Sendable {
    private static let limit: Int64 = 86_400_000
    private var bits: [UInt64] = []

    mutating func add(milliseconds: Int64) {
        guard (0..<Self.limit).contains(milliseconds) else { return }
        let word = Int(milliseconds / 64)
        if word >= bits.count { bits += Array(repeating: 0, count: word + 1 - bits.count) }
        bits[word] |= 1 << UInt64(milliseconds % 64)
    }

    /// Takes in another generator's part.
    mutating func add(_ other: SaleMoments) {
        if other.bits.count > bits.count { bits += Array(repeating: 0, count: other.bits.count - bits.count) }
        for (index, word) in other.bits.enumerated() { bits[index] |= word }
    }

    /// The times without a confirmation that began within a span, in milliseconds.
    struct Silence: Equatable {
        /// The longest that a confirmation ended.
        var longest: Int64
        /// When the last one began, if no confirmation ended it.
        var openSince: Int64?
    }

    /// What happened within `from...to`. A silence that was under way when the span began counts from there.
    func silence(from: Int64, to: Int64) -> Silence {
        var last = max(0, from)
        var longest: Int64 = 0
        var index = Int(min(last, Self.limit) / 64)
        while index < bits.count {
            var word = bits[index]
            while word != 0 {
                let moment = Int64(index) * 64 + Int64(word.trailingZeroBitCount)
                word &= word - 1
                guard moment > last else { continue }
                longest = max(longest, moment - last)
                last = moment
                if last > to { return Silence(longest: longest, openSince: nil) }
            }
            index += 1
        }
        return Silence(longest: longest, openSince: last)
    }
}
