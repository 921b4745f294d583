/// What buyers were told under which keys, for one walk over the orders in the order of their ids.
struct ToldKeys {
    private let told: ToldAnswers
    private let soldOut: Set<UInt64>
    private let confirmed: [Int64: UInt64]
    /// The further keys of orders that more than one buyer was told of.
    private let further: [Int64: [UInt64]]

    init(_ told: ToldAnswers) {
        self.told = told
        soldOut = Set(told.soldOut)
        var confirmed: [Int64: UInt64] = [:]
        var further: [Int64: [UInt64]] = [:]
        confirmed.reserveCapacity(told.confirmed.count)
        for (order, number) in told.confirmed {
            if confirmed[order] == nil { confirmed[order] = number } else { further[order, default: []].append(number) }
        }
        self.confirmed = confirmed
        self.further = further
    }

    /// The keys under which buyers were told of an order: one, if all is well.
    func keys(of order: Int64) -> [String] {
        ((confirmed[order].map { [$0] } ?? []) + (further[order] ?? [])).map { told.key($0) }
    }

    /// The key under which a buyer was first told of an order.
    func key(of order: Int64) -> String? { confirmed[order].map { told.key($0) } }

    /// The order's key, if a buyer was told under it that nothing is left; else nil.
    func wasToldSoldOut(_ order: OrderRow) -> String? {
        guard let key = order.key, let number = told.number(of: key), soldOut.contains(number) else { return nil }
        return key
    }
}

extension OrderMatching {
    /// Holds an order against what was told under its key.
    mutating func judge(_ order: OrderRow, by keys: inout ToldKeys?) {
        guard let keys else { return }
        // A FAILED order for want of stock is what the buyer was told. A PENDING one is counted as pending.
        if order.status == "CONFIRMED" || order.status == "CANCELLED", let key = keys.wasToldSoldOut(order) {
            addWrongSoldOut(order, key: key)
        }
        // Where the source of the books tells no keys, there is nothing to compare.
        guard let own = order.key else { return }
        for key in keys.keys(of: order.id) where key != own { addWrongKey(order, told: key) }
    }
}
