import RedisClient

/// The reply of `Scripts/reserve.lua`, read request by request in their order.
struct ReserveReplies {
    private enum Form {
        case notLoaded
        /// All are reserved.
        case reserved(Token)
        case each([RedisValue])
    }

    private let form: Form
    private let fence: Fence
    /// If all are reserved: the counter after the requests that were read.
    private var left: Int64
    private var read = 0

    /// Nil if the reply's length does not match the number of requests.
    init?(_ value: RedisValue, quantities: some Sequence<Quantity>) {
        guard let values = value.array, let fence = values.first?.int else { return nil }
        self.fence = Fence(fence)
        var (count, total) = (0, Int64(0))
        for quantity in quantities {
            count += 1
            // At most `RedisGate.maximumTold` quantities of at most 10^9.
            total += quantity.rawValue
        }
        left = 0
        switch values.count {
        case 1: form = .notLoaded
        case 3:
            guard let token = values[1].int, let last = values[2].int else { return nil }
            let (sum, overflow) = last.addingReportingOverflow(total)
            guard !overflow else { return nil }
            form = .reserved(Token(token))
            left = sum
        case 1 + 3 * count: form = .each(values)
        default: return nil
        }
    }

    /// The reply to the next request, which wants this quantity. Nil if this part of the reply makes no sense.
    mutating func next(_ quantity: Quantity) -> ReserveReply? {
        defer { read += 1 }
        switch form {
        case .notLoaded: return .notLoaded
        case .reserved(let token):
            // Never below the counter after the last request, and so without overflow.
            left -= quantity.rawValue
            return .reserved(fence: fence, token: token, left: left)
        case .each(let values):
            let at = 1 + 3 * read
            guard at + 2 < values.count, let code = values[at].int, let first = values[at + 1].int, let second = values[at + 2].int else {
                return nil
            }
            switch code {
            case 0: return .reserved(fence: fence, token: Token(first), left: second)
            case 1: return .joined(fence: fence, token: Token(first), quantity: Quantity(second))
            case 2: return .soldOut(counter: first)
            case 4: return .notOnSale
            case 5: return .alreadyDone
            default: return nil
            }
        }
    }
}
