import ArgumentParser
import FlashSaleKit

/// What is sold, and what buyers do.
struct ShapeOptions: ParsableArguments {
    @Option(help: "Units put on sale, of each product.") var units = 20_000
    @Option(help: "Products put on sale.") var products = 1
    @Option(help: "How orders are spread over the products: even, hot:90% (the first product gets that share) or zipf:1.1.") var spread =
        "zipf:1"
    @Option(help: "Units an order asks for, such as 1 or 1-3.") var quantity = "1"
    @Option(help: "Buyers that orders are spread over.") var buyers = 10_000
    @Option(help: "Sell this product instead of a new one.") var product: Int64?
    @Option(help: "The percentage of orders that are sent twice under one key, such as 5%. Both must get the same answer.") var duplicate =
        "0%"
    @Option(help: "The percentage of confirmed orders that are cancelled at once, such as 2%.") var cancel = "0%"
    @Option(help: "How often a buyer looks at the product before ordering.") var refresh = 0
    @Flag(
        help:
            "Orders go to /v2/orders: accepted first, decided over the broker. Both times are reported, and the audit waits until every order is decided."
    )
    var async = false

    func fill(_ settings: inout SaleConfiguration) throws {
        try check("units", units, 1...1_000_000_000)
        try check("products", products, 1...10_000)
        try check("buyers", buyers, 1...1_000_000_000)
        try check("refresh", refresh, 0...1_000)
        if let product, product < 1 { throw PlanError("--product must be an id, 1 or more, not \(product)") }
        let bounds = quantity.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
        guard bounds.count <= 2, let low = bounds.first ?? nil, let high = bounds.last ?? nil, low >= 1, high >= low, high <= 1_000_000_000
        else {
            throw PlanError("--quantity: '\(quantity)' is no quantity: write 1 or 1-3")
        }
        settings.units = units
        settings.products = products
        settings.spread = try ProductSpread(spread)
        settings.quantity = low
        settings.largestQuantity = high > low ? high : nil
        settings.buyers = buyers
        settings.product = product
        settings.habits.duplicates = try part(duplicate, "--duplicate")
        settings.habits.cancellations = try part(cancel, "--cancel")
        settings.habits.views = refresh
        settings.isAsync = async
    }

    private func part(_ text: String, _ name: String) throws -> Double {
        guard text.hasSuffix("%"), let value = Double(text.dropLast()), (0...100).contains(value) else {
            throw PlanError("\(name): '\(text)' is no part: write 5%")
        }
        return value / 100
    }
}
