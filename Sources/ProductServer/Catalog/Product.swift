import StrictJSON

/// A product as the catalogue knows it, with its stock at the time of the read.
struct Product: Sendable {
    enum Status: String, CaseIterable, Sendable {
        case active = "ACTIVE"
        case discontinued = "DISCONTINUED"
    }

    enum StockStrategy: String, CaseIterable, Sendable {
        /// Every decrease goes to the ledger.
        case dbOnly = "DB_ONLY"
        /// Decreases pass a gate in Redis before they reach the ledger. For hot products.
        case redisFirst = "REDIS_FIRST"
    }

    var id: Int64
    var code: String
    var name: String
    var price: Int64
    var stock: Int64
    var status: Status
    var stockStrategy: StockStrategy
    var createdAt: Timestamp
    var updatedAt: Timestamp
}

struct NewProduct: Sendable {
    var code: String?
    var name: String
    var price: Int64
    var stock: Int64
    var stockStrategy: Product.StockStrategy
}

/// The changes of a PATCH; nil leaves a field as it is.
struct ProductChange: Sendable {
    var name: String?
    var price: Int64?
    var status: Product.Status?
    var stockStrategy: Product.StockStrategy?
}
