import APIErrors
import Hummingbird
import PostgresClient
import ServerKit
import StockContract
import StrictJSON

/// The routes that only the admin port has.
struct InternalRoutes: Sendable {
    let rerun: OrderRerun
    let outbox: OutboxStore

    func register(on router: ServerRouter) {
        router.on("/internal/orders/{id}/retry", method: .post) { _, context in
            let order = try await rerun.retry(id: try context.pathID(orThrow: .orderNotFound), requestID: context.requestID)
            return Response.json { order.write(to: &$0) }
        }
        router.on("/internal/outbox", method: .get, query: ["status"] + Listing.parameters) { request, _ in try await list(request) }
        router.on("/internal/outbox/{id}/requeue", method: .post) { _, context in try await requeue(context) }
    }

    private func list(_ request: Request) async throws -> Response {
        let status = try request.query("status", as: OutboxStatus.self)
        let listing = try request.listing()
        let (rows, page) = try await shaped { () throws(PostgresError) in try await outbox.rows(status: status, listing) }
        return .list(rows, listing, try ListFacts(page, bound: outbox.listBound)) { $0.write(to: &$1) }
    }

    private func requeue(_ context: ServerRequestContext) async throws -> Response {
        let id = try context.pathID(orThrow: .notFound)
        switch try await shaped({ () throws(PostgresError) in try await outbox.requeue(id: id) }) {
        case .requeued(let row): return .json { row.write(to: &$0) }
        case .notAllowed(let status): throw APIError(.invalidState, details: ["status": .string(status.rawValue)])
        case .unknown: throw APIError(.notFound)
        }
    }
}
