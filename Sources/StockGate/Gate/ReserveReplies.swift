import RedisClient

/// The reply of `Scripts/reserve.lua`.
struct ReserveReplies {
    private let values: [RedisValue]
    private let fence: Fence

    /// Nil if the reply's length does not match the number of reserves.
    init?(_ value: RedisValue, count: Int) {
        guard let values = value.array, values.count == 1 + 3 * count, let fence = values[0].int else { return nil }
        self.values = values
        self.fence = Fence(fence)
    }

    /// Nil if this part of the reply makes no sense.
    subscript(index: Int) -> ReserveReply? {
        let at = 1 + 3 * index
        guard let code = values[at].int, let first = values[at + 1].int, let second = values[at + 2].int else { return nil }
        switch code {
        case 0: return .reserved(fence: fence, token: Token(first), left: second)
        case 1: return .joined(fence: fence, token: Token(first), quantity: Quantity(second))
        case 2: return .soldOut(counter: first)
        case 3: return .notLoaded
        case 4: return .notOnSale
        case 5: return .alreadyDone
        default: return nil
        }
    }
}
