import APIErrors
import HotPath
import Hummingbird
import PostgresClient
import ServerKit
import StockContract

/// The routes that change orders, under `/orders`, each also under `/v1`.
struct OrderRoutes: Sendable {
    let placing: OrderPlacing
    /// Nil without a broker.
    let accepting: OrderAccepting?
    let cancellation: OrderCancellation

    func register(on router: ServerRouter) {
        router.versioned(.post, "/orders") { request, context in
            try await place(request, context, isAsynchronous: request.prefersAsync)
        }
        router.versioned(.post, "/orders/{id}/cancel") { request, context in try await cancel(request, context) }
        router.on("/v2/orders", method: .post) { request, context in try await place(request, context, isAsynchronous: true) }
    }

    private func place(_ request: Request, _ context: ServerRequestContext, isAsynchronous: Bool) async throws -> Response {
        let key = try request.idempotencyKey()
        let body = try await request.jsonObject()
        var draft = try OrderDraft(body, idempotencyKey: key)
        draft.requestID = .given(context.requestID)
        guard isAsynchronous else {
            let given = draft
            return .placed(try await PlacedOrder.awaited { placing.place(given, done: $0) }, to: request)
        }
        guard let accepting else { return .asynchronousNotImplemented(request) }
        draft.traceparent = context.traceparent
        let given = draft
        return .accepted(try await PlacedOrder.awaited { accepting.accept(given, done: $0) }, to: request)
    }

    private func cancel(_ request: Request, _ context: ServerRequestContext) async throws -> Response {
        let key = try request.idempotencyKey()
        let id = try context.pathID(orThrow: .orderNotFound)
        return .placed(try await cancellation.cancel(id: id, key: key, requestID: context.requestID), to: request)
    }
}

/// Runs a read, and turns an error of PostgreSQL into the contract's error.
func shaped<Value: Sendable>(_ read: () async throws(PostgresError) -> Value) async throws(APIError) -> Value {
    do throws(PostgresError) {
        return try await read()
    } catch {
        throw APIError(error)
    }
}
