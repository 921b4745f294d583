import APIErrors
import Logging
import PostgresClient
import StockContract
import StrictJSON

/// Runs FAILED orders again, for operators.
struct OrderRerun: Sendable {
    let conclusion: OrderConclusion
    let deadlines: BuyerDeadlines
    /// Must be told of the change here, because no group writes it.
    let changes: OrderWatch

    /// Runs a FAILED order's saga again, under new keys.
    /// - Throws: `ORDER_NOT_FOUND`; `INVALID_STATE` if it is not FAILED; `REQUEST_IN_PROGRESS` if its last run is still being settled; as ``OrderConclusion/drive(_:firstAttempt:_:)``
    func retry(id: Int64, requestID: String? = nil) async throws(APIError) -> Order {
        var order = try await begin(id)
        order.requestID = requestID
        let begun = order
        return try await deadlines.answer { (wait) async throws(APIError) in
            wait.began(id, .pending)
            let settled = try await conclusion.drive(begun, firstAttempt: 1, .now + conclusion.deadlines.buyer)
            await conclusion.drop(id, attempt: nil)
            return PlacedOrder(order: settled, isReplay: false)
        }.order
    }

    private func begin(_ id: Int64) async throws(APIError) -> Order {
        let begun = try await conclusion.trouble.noting("an order was not begun again") { () throws(PostgresError) in
            try await conclusion.store.beginRetry(id: id)
        }
        if let begun {
            changes.changed([id])
            return begun
        }
        guard let current = try await conclusion.load(id) else { throw APIError(.orderNotFound) }
        if current.status == .failed { throw APIError(.requestInProgress, details: ["orderId": .int(id)], retryAfter: .seconds(1)) }
        throw APIError(.invalidState, details: ["status": .string(current.status.rawValue)])
    }
}
