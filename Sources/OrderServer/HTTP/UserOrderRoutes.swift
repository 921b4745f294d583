import APIErrors
import HotPath
import HTTPTypes
import Hummingbird
import ServerKit
import StockContract
import StrictJSON

/// The route that makes orders under a user: POST `/{userId}/orders`.
struct UserOrderRoutes: Sendable {
    let placing: OrderPlacing
    /// Nil without a broker.
    let accepting: OrderAccepting?
    let earlier: EarlierOrders
    let cells: ProductCells
    /// Whether the price that a buyer names must equal the product's price.
    let checksUnitPrice: Bool

    func register(on router: ServerRouter) {
        router.on("/{userId}/orders", method: .post) { request, context in try await place(request, context) }
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
        if isAsynchronous, self.accepting == nil { return .asynchronousNotImplemented(request) }
        let productID: Int64
        do throws(APIError) {
            productID = try await self.productID(of: product, unitPrice: unitPrice, context.requestID)
        } catch {
            // A repeat gets its order, even if the price has changed since, and even if the product server does not answer.
            let repeated = try await self.repeated(key, user, product, quantity, unitPrice, context.requestID, waits: !isAsynchronous)
            guard let repeated else { throw error }
            return Self.answer(repeated, isAsynchronous, to: request)
        }
        let code: String? = if case .code(let code) = product { code } else { nil }
        let draft = OrderDraft(
            productID: productID,
            productCode: code,
            buyerID: user,
            quantity: quantity,
            unitPrice: unitPrice,
            idempotencyKey: key,
            traceparent: isAsynchronous ? context.traceparent : nil,
            requestID: .given(context.requestID)
        )
        let placed = try await PlacedOrder.awaited { done in
            if isAsynchronous, let accepting { accepting.accept(draft, done: done) } else { placing.place(draft, done: done) }
        }
        return Self.answer(placed, isAsynchronous, to: request)
    }

    private static func answer(_ placed: PlacedOrder, _ isAsynchronous: Bool, to request: Request) -> Response {
        isAsynchronous
            ? .accepted(placed, to: request) { $0.writeForUser(to: &$1) }
            : .placed(placed, .created, to: request) { $0.writeForUser(to: &$1) }
    }

    /// - Throws: `VALIDATION_ERROR` if the price differs from the product's; `PRODUCT_NOT_FOUND`, `DEPENDENCY_FAILED`, `OVERLOADED`
    private func productID(of product: IDOrCode, unitPrice: Int64, _ requestID: String) async throws(APIError) -> Int64 {
        guard checksUnitPrice else { return try await cells.id(of: product, requestID: requestID) }
        let facts = try await cells.facts(of: product, requestID: requestID)
        guard facts.price == unitPrice else {
            throw APIError.invalid(
                field: "unitPrice",
                ErrorMessage(en: "{field} is not the product's price, {price}.", ko: "{field} 값이 상품 가격({price})과 다릅니다."),
                JSONMember("price", .int(facts.price))
            )
        }
        return facts.id
    }

    /// The order that an earlier, equal request has made; nil if there is none, or if the key belongs to a different request.
    private func repeated(
        _ key: String?,
        _ user: String,
        _ product: IDOrCode,
        _ quantity: Int64,
        _ unitPrice: Int64,
        _ requestID: String,
        waits: Bool
    ) async throws(APIError) -> PlacedOrder? {
        guard let key else { return nil }
        return try await earlier.repeated(key: key, buyer: user, requestID: requestID, waits: waits) { order in
            let isProduct =
                switch product {
                case .id(let id): order.productID == id
                case .code(let code): order.productCode == code
                }
            return isProduct && order.quantity == quantity && order.unitPrice == unitPrice
        }
    }
}
