import HTTPTypes
import Hummingbird
import PostgresClient
import ServerKit

/// The family under a user: `/{userId}/orders`.
struct UserOrderRoutes: Sendable {
    let flow: OrderFlow
    let store: OrderStore
    let catalogue: ProductCatalogue
    /// Whether the price that a buyer names must be the product's.
    let checksUnitPrice: Bool

    func register(on router: ServerRouter) {
        router.on("/{userId}/orders", method: .post) { request, context in try await self.place(request, context) }
        router.on("/{userId}/orders", method: .get) { request, context in try await self.list(request, context) }
        router.on("/health_check", method: .get) { _, _ in Response.text("The order server is working.\n") }
    }

    private func place(_ request: Request, _ context: ServerRequestContext) async throws -> Response {
        let user = try context.pathText("userId", length: Values.userIDLength, orThrow: .notFound)
        let key = try request.idempotencyKey()
        let body = try await request.jsonObject()
        guard let name = try body.text("productId") else { throw APIError.missing(field: "productId") }
        guard let product = IDOrCode(name) else { throw APIError.invalid(field: "productId") }
        let quantity = try body.int("qty", in: Values.quantityRange)
        let unitPrice = try body.int("unitPrice", in: Values.priceRange)
        guard !unitPrice.multipliedReportingOverflow(by: quantity).overflow else {
            throw APIError.invalid(
                field: "unitPrice",
                ErrorMessage(en: "The total of qty times unitPrice is too large.", ko: "qty와 unitPrice의 곱이 너무 큽니다.")
            )
        }
        if request.prefersAsync { return .asynchronousNotImplemented(request) }
        let productID: Int64
        if self.checksUnitPrice {
            let facts = try await self.catalogue.facts(of: product)
            guard facts.price == unitPrice else {
                throw APIError.invalid(
                    field: "unitPrice",
                    ErrorMessage(en: "{field} is not the product's price, {price}.", ko: "{field} 값이 상품 가격({price})과 다릅니다."),
                    JSONMember("price", .int(facts.price))
                )
            }
            productID = facts.id
        } else {
            productID = try await self.catalogue.id(of: product)
        }
        let code: String? = if case .code(let code) = product { code } else { nil }
        let placed = try await self.flow.place(
            OrderDraft(
                productID: productID,
                productCode: code,
                buyerID: user,
                quantity: quantity,
                unitPrice: unitPrice,
                idempotencyKey: key
            )
        )
        return .json(.created, headers: placed.isReplay ? [.idempotencyReplayed: "true"] : [:]) { placed.order.writeForUser(to: &$0) }
    }

    private func list(_ request: Request, _ context: ServerRequestContext) async throws -> Response {
        let user = try context.pathText("userId", length: Values.userIDLength, orThrow: .notFound)
        let paging = try request.paging(defaultSize: 100)
        let orders = try await shaped { () throws(PostgresError) in
            try await self.store.orders(buyer: user, status: nil, paging: paging).orders
        }
        return .json { $0.array(orders) { $1.writeForUser(to: &$0) } }
    }
}
