import Synchronization

/// What the generators of one sale count together.
final class SharedLoad: Sendable {
    private let issued = Atomic<Int>(0)
    private let units = Atomic<Int>(0)

    /// Orders begun by all generators.
    var ordersIssued: Int { issued.load(ordering: .relaxed) }
    /// Units of the orders that were confirmed, or accepted, to buyers of all generators.
    var unitsSold: Int { units.load(ordering: .relaxed) }

    /// Takes the right to begin one order; false when `limit` have been taken.
    func takeOrder(limit: Int?) -> Bool {
        guard let limit else {
            issued.wrappingAdd(1, ordering: .relaxed)
            return true
        }
        var seen = issued.load(ordering: .relaxed)
        while seen < limit {
            let result = issued.weakCompareExchange(expected: seen, desired: seen + 1, ordering: .relaxed)
            if result.exchanged { return true }
            seen = result.original
        }
        return false
    }

    /// An order for so many units was confirmed.
    func sold(_ count: Int) {
        units.wrappingAdd(count, ordering: .relaxed)
    }
}
