// The products that this server knows to be gated, and whose data Redis holds for them.
//
// Bounds: one `GatedProduct` for each gated product of the ledger.

import NIOCore
import PostgresClient
import Synchronization

final class GatedProducts: Sendable {
    private let products = Mutex<[ProductID: GatedProduct]>([:])
    private let foreign = Mutex(ForeignProducts())
    private let name = Mutex("")
    private let shards: Shards
    private let resyncInterval: UInt64

    /// `resyncInterval`: nanoseconds between two resyncs of one product.
    init(shards: Shards, resyncInterval: UInt64) {
        self.shards = shards
        self.resyncInterval = resyncInterval
    }

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
                if products[id] == nil { products[id] = GatedProduct(id, shard: shards.shard(of: id), resyncInterval: resyncInterval) }
            } else {
                products[id] = nil
            }
        }
        if !isGated { foreign.withLock { _ = $0.saw(id, nil) } }
    }

    /// The shard of a product, gated or not; nil if no master serves its keys.
    func shard(of id: ProductID) -> Shard? { self[id]?.shard ?? shards.shard(of: id) }

    /// Asks the product's shard for a resync of it.
    func ask(_ id: ProductID, forced: Bool) {
        guard let product = self[id] else { return }
        product.shard?.resyncs.ask(product, forced: forced)
    }

    /// The ledger's data has another history than before, so it may lack commits that Redis knows of. No product is sold through Redis until it has been
    /// installed from the ledger as it is now. A product without a shard is installed in this way by the shard that gets it later.
    func ledgerMoved() {
        for shard in shards.all { shard.resyncs.ledgerMoved() }
        // Each product is marked once, wherever it is: a walk through the shards could miss one that goes from a later shard to an earlier one.
        for product in all {
            let shard = product.state.withLock { state in
                state.standing.moved()
                state.soldOut.end()
                return state.shard
            }
            shard?.resyncs.ask(product, forced: true)
        }
    }

    /// Gives each product to the shard whose master serves its slot now. Those of a shard that is new are installed by its recovery; others are resynced.
    /// - Returns: how many products went from a shard to another one, or to none
    func place(whileNew new: [Shard]) -> Int {
        let new = Set(new.map(\.id))
        var count = 0
        for product in all {
            let home = shards.shard(of: product.id)
            let (isMoved, wasPlaced) = product.state.withLock { state in
                let before = state.shard
                guard before?.id != home?.id else { return (false, false) }
                state.shard = home
                state.standing.changedMaster()
                state.soldOut.end()
                state.suspicion = nil
                state.sweepCursor = "0"
                state.sweepRest = .distantPast
                state.pruneRest = .distantPast
                return (true, before != nil)
            }
            guard isMoved else { continue }
            if wasPlaced { count += 1 }
            if let home, !new.contains(home.id) { home.resyncs.took(product) }
        }
        return count
    }

    /// Forgets every product. Each refers to its shard, which refers to this object, so nothing is released before.
    func forgetAll() { products.withLock { $0 = [:] } }

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
