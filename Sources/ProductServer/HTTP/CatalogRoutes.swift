import APIErrors
import HotPath
import HTTPTypes
import Hummingbird
import ServerKit
import StockContract

/// The catalogue over HTTP.
struct CatalogRoutes: Sendable {
    let catalog: Catalog

    func register(on router: ServerRouter) {
        router.versioned(.post, "/products") { request, _ -> Response in
            let key = try request.idempotencyKey()
            let body = try await request.jsonObject()
            var code: String?
            if let text = try body.text("code") { code = try Values.code(text) }
            let new = NewProduct(
                code: code,
                name: try body.string("name", length: Values.nameLength),
                price: try body.int("price", in: Values.priceRange),
                stock: try body.int("stock", in: Values.stockRange),
                stockStrategy: try body.optionalChoice("stockStrategy", Product.StockStrategy.self) ?? .dbOnly
            )
            let (product, isReplay) = try await catalog.create(new, key: key)
            return Self.answer(product, headers: isReplay ? [.idempotencyReplayed: "true"] : [:])
        }
        router.versioned(.get, "/products", query: ["query", "status"] + Listing.parameters) { request, _ -> Response in
            let listing = try request.listing()
            let (products, facts) = try await catalog.store.list(
                query: try request.query("query"),
                status: try request.query("status", as: Product.Status.self),
                listing
            )
            return Response.list(products, listing, facts) { $0.write(&$1) }
        }
        router.versioned(.get, "/products/{id}") { _, context -> Response in
            Self.answer(try await catalog.find(try context.path(as: IDOrCode.init, orThrow: .productNotFound)))
        }
        router.versioned(.patch, "/products/{id}") { request, context -> Response in
            let id = try context.pathID(orThrow: .productNotFound)
            let body = try await request.jsonObject()
            try body.refuseMembers(otherThan: ProductChange.members)
            let change = ProductChange(
                name: try body.optionalString("name", length: Values.nameLength),
                price: try body.optionalInt("price", in: Values.priceRange),
                status: try body.optionalChoice("status", Product.Status.self),
                stockStrategy: try body.optionalChoice("stockStrategy", Product.StockStrategy.self)
            )
            if change.name == nil, change.price == nil, change.status == nil, change.stockStrategy == nil {
                throw APIError.nothingToChange(known: ProductChange.members.map(\.description))
            }
            return Self.answer(try await catalog.change(id, change))
        }
        router.versioned(.delete, "/products/{id}") { _, context -> Response in
            let id = try context.pathID(orThrow: .productNotFound)
            _ = try await catalog.change(id, ProductChange(status: .discontinued))
            return Response(status: .noContent)
        }
    }

    private static func answer(_ product: Product, headers: HTTPFields = [:]) -> Response {
        .json(headers: headers) { product.write(&$0) }
    }
}

extension ProductChange {
    /// The members that a PATCH may have. Stock is changed under keys, by other routes.
    fileprivate static var members: [StaticString] { ["name", "price", "status", "stockStrategy"] }
}
