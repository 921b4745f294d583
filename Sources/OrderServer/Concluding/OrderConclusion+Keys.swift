import APIErrors
import Logging
import PostgresClient
import ServerKit
import ServerMetrics
import StockContract

/// Orders whose key belongs to another order, because an order id was used again.
extension OrderConclusion {
    /// Lets an order whose key belongs to another order continue under another key.
    /// - Returns: nil if the order is no longer in that run, or if somebody else may have sent its key meanwhile
    func takeAnotherKey(_ order: Order, _ code: String, _ records: [StepRecord]) async throws(APIError) -> Order? {
        // When the ledger itself says so, that is enough. A replay says so only for a key that nobody else can have sent.
        let age = code == APIErrorCode.keyReused.rawValue ? nil : deadlines.freshAge
        let found = try await trouble.noting("an order did not take another key") { () throws(PostgresError) in
            try await self.store.takeAnotherKey(id: order.id, run: order.run, age: age, records: records)
        }
        guard var renewed = found else { return nil }
        renewed.requestID = order.requestID
        noteKeyTaken(orders: 1, example: order, newKey: renewed.decreaseKey, code)
        return renewed
    }

    /// Counts and logs orders whose key belonged to another order.
    func noteKeyTaken(orders: Int, example order: Order?, newKey: String?, _ code: String) {
        metrics.keysTaken.add(UInt64(orders))
        var metadata: Logger.Metadata = ["orders": "\(orders)", "seenBy": "\(code)"]
        if let order { metadata["key"] = "\(order.decreaseKey)" }
        metadata["newKey"] = newKey.map { "\($0)" }
        keyTakenLog.log(
            .error,
            "an order id was used before: the ledger has sold under this key before the order was made, so the order takes another key. Was the order database restored?",
            to: logger,
            metadata: metadata
        )
    }
}
