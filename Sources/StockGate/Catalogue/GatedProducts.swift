// The products that this server knows to be gated, and whose data Redis holds for them.
//
// Bounds: one `GatedProduct` for each gated product of the ledger.

import PostgresClient
import Synchronization

final class GatedProducts: Sendable {
    private let products = Mutex<[ProductID: GatedProduct]>([:])
    private let foreign = Mutex(ForeignProducts())
    private let name = Mutex("")
    private let resyncInterval: UInt64

    /// `resyncInterval`: nanoseconds between two resyncs of one product.
    init(resyncInterval: UInt64) { self.resyncInterval = resyncInterval }

    /// The product with this id; nil if it is not gated.
    subscript(_ id: ProductID) -> GatedProduct? { products.withLock { $0[id] } }

    var all: [GatedProduct] { products.withLock { Array($0.values) } }

    /// The ids of all gated products, in no order.
    var ids: [ProductID] { products.withLock { Array($0.keys) } }

    var count: Int { products.withLock { $0.count } }

    /// The number of gated products that are sold through the ledger alone. Looks at each of them.
    var directCount: Int { all.count { $0.state.withLock { $0.standing.isDirect } } }

    /// The number of gated products for which Redis holds another ledger's data.
    var foreignCount: Int { foreign.withLock { $0.products.count } }

    /// The name that marks this ledger's data in Redis. Empty until it is known, and where the database role may not ask for it.
    var ledgerName: String { name.withLock { $0 } }

    /// Sets the ledger's name. It can change while the server runs, when a restore puts another database behind the address.
    /// - Returns: whether that is new
    func belong(to ledger: String) -> Bool {
        name.withLock { name in
            defer { name = ledger }
            return name != ledger
        }
    }

    /// Those of these ids that are not gated.
    func unknown(among ids: [ProductID]) -> [ProductID] {
        products.withLock { known in ids.filter { known[$0] == nil } }
    }

    /// Records that a product is gated now, or is not.
    func set(_ id: ProductID, isGated: Bool) {
        products.withLock { products in
            if isGated {
                if products[id] == nil { products[id] = GatedProduct(id, resyncInterval: resyncInterval) }
            } else {
                products[id] = nil
            }
        }
        if !isGated { foreign.withLock { _ = $0.saw(id, nil) } }
    }

    /// Records whose data Redis holds for a product: another ledger's, by name, or nil for this ledger's or nobody's.
    func saw(foreignLedger theirs: String?, for id: ProductID) -> ForeignProducts.News {
        foreign.withLock { $0.saw(id, theirs) }
    }

    /// Reads from the ledger which products are gated.
    /// - Returns: those that were not known.
    func refresh(from ledger: PostgresLedger) async throws(PostgresError) -> [ProductID] {
        var gated: Set<ProductID> = []
        var after: Int64 = 0
        // Pages of 10,000 until one is not full: the number of products bounds it.
        while true {
            let page = try await ledger.gatedProducts(after: after, limit: 10_000)
            gated.formUnion(page)
            guard page.count == 10_000, let last = page.last else { break }
            after = last.rawValue
        }
        let known = Set(ids)
        for id in known.subtracting(gated) { set(id, isGated: false) }
        let new = gated.subtracting(known)
        for id in new { set(id, isGated: true) }
        return Array(new)
    }
}
