/// The keys of one product in Redis. They share a hash tag, so that Redis Cluster keeps them in one slot.
struct GateKeys: Sendable {
    let stock: String
    let meta: String
    let pending: String
    let owed: String
    let marks: String
    let marker: String

    init(_ product: ProductID) {
        let prefix = "sg:{\(product.rawValue)}:"
        self.stock = prefix + "stock"
        self.meta = prefix + "meta"
        self.pending = prefix + "pending"
        self.owed = prefix + "owed"
        self.marks = prefix + "marks"
        self.marker = prefix + "marker"
    }
}
