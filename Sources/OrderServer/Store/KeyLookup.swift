// Bounds: those of the writer it gathers in. A look is repeatable.

import PostgresClient
import ServerKit

/// Looks up orders by their idempotency keys, in groups.
final class KeyLookup: Sendable {
    typealias Outcome = Result<Order?, PostgresError>

    struct Item: Sendable {
        var key: String
        var done: CheckedContinuation<Outcome, Never>
    }

    private let reader: GroupWriter<Item>
    private static let sql = "select \(Order.columns) from orders o where o.idempotency_key = any($1)"

    init(configuration: PostgresConfiguration, maximumQueued: Int, maximumBatch: Int) throws(PostgresError) {
        self.reader = try GroupWriter(
            configuration: configuration,
            name: "order-keys",
            maximumQueued: maximumQueued,
            maximumBatch: maximumBatch
        ) { session, items in
            do throws(PostgresError) {
                var found: [String: Order] = [:]
                for row in try session.repeatable(KeyLookup.sql, [.texts(items.map(\.key))]) {
                    let order = try Order(row: row)
                    if let key = order.idempotencyKey { found[key] = order }
                }
                for item in items { item.done.resume(returning: .success(found[item.key])) }
            } catch {
                for item in items { item.done.resume(returning: .failure(error)) }
            }
        }
    }

    /// The order made under a key, or nil.
    func order(key: String) async -> Outcome {
        await withCheckedContinuation { continuation in
            if !self.reader.add(Item(key: key, done: continuation)) {
                continuation.resume(returning: .failure(PostgresError(code: .poolExhausted, message: "too many look-ups wait")))
            }
        }
    }

    func shutdown() async { await self.reader.shutdown() }
}
