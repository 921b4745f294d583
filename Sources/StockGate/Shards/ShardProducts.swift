/// The gated products of one shard.
struct ShardProducts: Sendable {
    let catalogue: GatedProducts
    let shard: Shard.ID

    /// The product with this id; nil if it is not gated, or of another shard.
    subscript(_ id: ProductID) -> GatedProduct? {
        guard let product = catalogue[id], product.shard?.id == shard else { return nil }
        return product
    }

    /// Looks at each product of the catalogue.
    var all: [GatedProduct] { catalogue.all.filter { $0.shard?.id == shard } }

    /// The ids of all its products, in no order.
    var ids: [ProductID] { all.map(\.id) }

    /// The name that marks this ledger's data in Redis.
    var ledgerName: String { catalogue.ledgerName }

    /// Those of these ids that are not gated, in any shard.
    func unknown(among ids: [ProductID]) -> [ProductID] { catalogue.unknown(among: ids) }

    /// Records whose data Redis holds for a product: another ledger's, by name, or nil for this ledger's or nobody's.
    func saw(foreignLedger theirs: String?, for id: ProductID) -> ForeignProducts.News {
        catalogue.saw(foreignLedger: theirs, for: id)
    }
}
