/// The products for which Redis holds another ledger's data. Bounded by the gated products.
struct ForeignProducts: Sendable {
    /// What an operator should be told.
    enum News: Equatable, Sendable {
        case nothing
        /// Redis holds the data of the ledger with this name.
        case found(String)
        /// Redis holds another ledger's data for no product any more.
        case gone
    }

    private(set) var products: Set<ProductID> = []
    private var told: String?

    /// Records whose data Redis holds for a product: another ledger's, by name, or nil for this ledger's or nobody's. An owner is reported for the first of its
    /// products only.
    mutating func saw(_ product: ProductID, _ theirs: String?) -> News {
        guard let theirs else {
            guard products.remove(product) != nil, products.isEmpty else { return .nothing }
            told = nil
            return .gone
        }
        products.insert(product)
        guard told != theirs else { return .nothing }
        told = theirs
        return .found(theirs)
    }
}
