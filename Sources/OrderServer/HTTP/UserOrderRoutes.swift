import HTTPTypes
import Hummingbird
import ServerKit

/// What makes orders under a user: POST `/{userId}/orders`.
struct UserOrderRoutes: Sendable {
    let flow: OrderFlow
    let catalogue: ProductCatalogue
    /// Whether the price that a buyer names must be the product's.
    let checksUnitPrice: Bool

    func register(on router: ServerRouter) {
        router.on("/{userId}/orders", method: .post) { request, context in try await self.place(request, context) }
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
        let isAsynchronous = request.prefersAsync
        if isAsynchronous, !self.flow.isAccepting { return .asynchronousNotImplemented(request) }
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
        let draft = OrderDraft(
            productID: productID,
            productCode: code,
            buyerID: user,
            quantity: quantity,
            unitPrice: unitPrice,
            idempotencyKey: key,
            traceparent: isAsynchronous ? context.traceparent : nil
        )
        if isAsynchronous { return .accepted(try await self.flow.accept(draft)) { $0.writeForUser(to: &$1) } }
        let placed = try await self.flow.place(draft)
        return .json(.created, headers: placed.isReplay ? [.idempotencyReplayed: "true"] : [:]) { placed.order.writeForUser(to: &$0) }
    }
}
