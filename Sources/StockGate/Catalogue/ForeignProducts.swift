/// The products for which Redis holds another ledger's data. Bounded by the gated products.
struct ForeignProducts: Sendable {
    /// What there is to tell.
    enum News: Equatable, Sendable {
        /// Nothing that was not told before.
        case nothing
        /// Redis holds the data of the ledger with this name.
        case found(String)
        /// No product is in another ledger's way any more.
        case gone
    }

    private(set) var products: Set<ProductID> = []
    private var told: String?

    /// Takes note of whose data a product's are; nil: this ledger's, or nobody's. One piece of news tells of the first product of an owner, and none of the others.
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
