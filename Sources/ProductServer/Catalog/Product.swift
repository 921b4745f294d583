import ServerKit
import StrictJSON

/// A product as the catalogue knows it, with its stock as of the read.
struct Product: Sendable {
    enum Status: String, CaseIterable, Sendable {
        case active = "ACTIVE"
        case discontinued = "DISCONTINUED"
    }

    enum StockStrategy: String, CaseIterable, Sendable {
        /// Every decrease goes to the ledger.
        case dbOnly = "DB_ONLY"
        /// A gate in Redis stands in front of the ledger: for hot products.
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

/// What a new product is made of.
struct NewProduct: Sendable {
    var code: String?
    var name: String
    var price: Int64
    var stock: Int64
    var stockStrategy: Product.StockStrategy
}

/// What a PATCH changes; nil leaves a field as it is.
struct ProductChange: Sendable {
    var name: String?
    var price: Int64?
    var status: Product.Status?
    var stockStrategy: Product.StockStrategy?
}
