import HTTPTypes
import Hummingbird
import PostgresClient
import ServerKit

/// What changes orders, under `/orders`, each also under `/v1`.
struct OrderRoutes: Sendable {
    let flow: OrderFlow

    func register(on router: ServerRouter) {
        router.versioned(.post, "/orders") { request, context in
            try await self.place(request, context, isAsynchronous: request.prefersAsync)
        }
        router.versioned(.post, "/orders/{id}/cancel") { request, context in try await self.cancel(request, context) }
        router.on("/v2/orders", method: .post) { request, context in try await self.place(request, context, isAsynchronous: true) }
    }

    private func place(_ request: Request, _ context: ServerRequestContext, isAsynchronous: Bool) async throws -> Response {
        let key = try request.idempotencyKey()
        let body = try await request.jsonObject()
        var draft = try OrderDraft(body, idempotencyKey: key)
        guard isAsynchronous else { return .order(try await self.flow.place(draft)) }
        guard self.flow.isAccepting else { return .asynchronousNotImplemented(request) }
        draft.traceparent = context.traceparent
        return .accepted(try await self.flow.accept(draft)) { $0.write(to: &$1) }
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

extension Response {
    /// An order that went over the broker: 202 while it is PENDING, 200 when a replay finds its final state.
    static func accepted(_ placed: OrderFlow.Placed, _ write: (Order, inout JSONWriter) -> Void) -> Response {
        var headers: HTTPFields = placed.isReplay ? [.idempotencyReplayed: "true"] : [:]
        headers[.location] = "/orders/\(placed.order.id)"
        let isPending = placed.order.status == .pending
        if isPending { headers[.preferenceApplied] = "respond-async" }
        return .json(isPending ? .accepted : .ok, headers: headers) { write(placed.order, &$0) }
    }
}

extension HTTPField.Name {
    /// `Preference-Applied` (RFC 7240)
    static let preferenceApplied: HTTPField.Name = {
        guard let name = HTTPField.Name("Preference-Applied") else { preconditionFailure("no field name") }
        return name
    }()
}

/// Runs a read; trouble of PostgreSQL becomes the contract's error.
func shaped<Value: Sendable>(_ read: () async throws(PostgresError) -> Value) async throws(APIError) -> Value {
    do throws(PostgresError) {
        return try await read()
    } catch {
        throw error.code == .poolExhausted ? APIError(.overloaded) : APIError(.unavailable)
    }
}
