/// What buyers were told under which keys, for one walk over the orders in the order of their ids.
struct ToldKeys {
    private let told: ToldAnswers
    private let soldOut: Set<UInt64>
    /// By the order's id, the place of the answer among those that were kept.
    private let confirmed: [Int64: Int]
    /// The further answers of orders that more than one buyer was told of.
    private let further: [Int64: [Int]]

    init(_ told: ToldAnswers) {
        self.told = told
        soldOut = Set(told.soldOut)
        var confirmed: [Int64: Int] = [:]
        var further: [Int64: [Int]] = [:]
        confirmed.reserveCapacity(told.confirmed.count)
        for (place, answer) in told.confirmed.enumerated() {
            if confirmed[answer.order] == nil { confirmed[answer.order] = place } else { further[answer.order, default: []].append(place) }
        }
        self.confirmed = confirmed
        self.further = further
    }

    /// Who was told of an order, under which key: one, if all is well.
    func answers(of order: Int64) -> [(key: String, buyer: String)] {
        ((confirmed[order].map { [$0] } ?? []) + (further[order] ?? [])).map { (told.key(told.confirmed[$0].number), told.buyer($0)) }
    }

    /// The key under which a buyer was first told of an order.
    func key(of order: Int64) -> String? { confirmed[order].map { told.key(told.confirmed[$0].number) } }

    /// The buyer who was first told of an order.
    func buyer(of order: Int64) -> String? { confirmed[order].map { told.buyer($0) } }

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
        for answer in keys.answers(of: order.id) where answer.key != own { addWrongKey(order, told: answer.key, buyer: answer.buyer) }
    }
}
