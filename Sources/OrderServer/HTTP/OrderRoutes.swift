import HTTPTypes
import Hummingbird
import PostgresClient
import ServerKit

/// The family under `/orders`, each also under `/v1`.
struct OrderRoutes: Sendable {
    let flow: OrderFlow
    let store: OrderStore

    func register(on router: ServerRouter) {
        router.versioned(.post, "/orders") { request, _ in try await self.place(request) }
        router.versioned(.get, "/orders") { request, _ in try await self.list(request) }
        router.versioned(.get, "/orders/{id}") { request, context in try await self.show(request, context) }
        router.versioned(.post, "/orders/{id}/cancel") { request, context in try await self.cancel(request, context) }
        router.on("/v2/orders", method: .post) { request, _ in Response.asynchronousNotImplemented(request) }
    }

    private func place(_ request: Request) async throws -> Response {
        let key = try request.idempotencyKey()
        let body = try await request.jsonObject()
        let draft = OrderDraft(
            productID: try body.int("productId", in: Values.idRange),
            productCode: nil,
            buyerID: try body.optionalString("buyerId", length: Values.userIDLength),
            quantity: try body.int("quantity", in: Values.quantityRange),
            unitPrice: nil,
            idempotencyKey: key
        )
        if request.prefersAsync { return .asynchronousNotImplemented(request) }
        return .order(try await self.flow.place(draft))
    }

    private func list(_ request: Request) async throws -> Response {
        let buyer = try request.query("buyerId", maximumLength: Values.userIDLength.upperBound)
        let status = try request.query("status", as: OrderStatus.self)
        let paging = try request.paging()
        let (orders, total) = try await shaped { () throws(PostgresError) in
            try await self.store.orders(buyer: buyer, status: status, paging: paging)
        }
        return .json { json in
            json.object { json in
                json.array("content", orders) { $1.write(to: &$0) }
                json.member("page", paging.page)
                json.member("size", paging.size)
                json.member("totalElements", total)
                json.member("totalPages", paging.totalPages(totalElements: total))
            }
        }
    }

    /// What `expand` may name.
    private enum Expansion: String, CaseIterable {
        case saga
    }

    private func show(_ request: Request, _ context: ServerRequestContext) async throws -> Response {
        let id = try context.pathID(orThrow: .orderNotFound)
        guard try request.query("expand", as: Expansion.self) == .saga else {
            guard let order = try await shaped({ () throws(PostgresError) in try await self.store.order(id: id) }) else {
                throw APIError(.orderNotFound)
            }
            return .json { order.write(to: &$0) }
        }
        guard let found = try await shaped({ () throws(PostgresError) in try await self.store.orderWithSteps(id: id) }) else {
            throw APIError(.orderNotFound)
        }
        return .json { json in
            json.object { json in
                found.order.writeMembers(to: &json)
                json.name("saga")
                json.raw(found.steps.utf8)
            }
        }
    }

    private func cancel(_ request: Request, _ context: ServerRequestContext) async throws -> Response {
        let key = try request.idempotencyKey()
        let id = try context.pathID(orThrow: .orderNotFound)
        return .order(try await self.flow.cancel(id: id, key: key))
    }
}

extension Response {
    /// An order with 200, and whether it is a replay.
    static func order(_ placed: OrderFlow.Placed) -> Response {
        .json(headers: placed.isReplay ? [.idempotencyReplayed: "true"] : [:]) { placed.order.write(to: &$0) }
    }
}

/// Runs a read; trouble of PostgreSQL becomes the contract's error.
func shaped<Value: Sendable>(_ read: () async throws(PostgresError) -> Value) async throws(APIError) -> Value {
    do throws(PostgresError) {
        return try await read()
    } catch {
        throw error.code == .poolExhausted ? APIError(.overloaded) : APIError(.unavailable)
    }
}
