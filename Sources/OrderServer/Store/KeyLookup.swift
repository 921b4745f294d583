// Invariant: an order is found by its key together with its buyer, as the database compares them, byte by byte. Swift takes two buyer ids for equal if they
//   differ only in their Unicode form. They must stay different here, so answers are matched to questions by their position, never by a text.
//
// Bounds: those of the group. A look-up is repeatable.

import PostgresClient

/// Looks up orders by their idempotency keys, in groups.
final class KeyLookup: OrderGroup {
    typealias Outcome = Result<Order?, PostgresError>

    struct Item: Sendable {
        var key: String
        /// The buyer whose key it is; nil: the scope that orders without a buyer share.
        var buyer: String?
        var done: CheckedContinuation<Outcome, Never>
    }

    let group: GroupCommit<Item>
    private static let sql = """
        select t.n, \(Order.columns), \(PostgresSession.replicatedServer) from unnest($1, $2) with ordinality as t(k, b, n)
        join orders o on o.idempotency_key = t.k and coalesce(o.buyer_id, '') collate "C" = t.b
        """

    init(
        configuration: PostgresConfiguration,
        maximumQueued: Int,
        maximumBatch: Int,
        onTrouble: OrderWriterTrouble? = nil
    ) throws(PostgresError) {
        group = GroupCommit(
            worker: try PostgresWorker(orders: "order-keys", configuration, onTrouble),
            capacity: maximumQueued,
            maximumBatch: maximumBatch
        ) { _, session, items in
            do throws(PostgresError) {
                var found: [Int64: Order] = [:]
                var isReplicated = false
                for row in try session.repeatable(KeyLookup.sql, [.texts(items.map(\.key)), .texts(items.map { $0.buyer ?? "" })]) {
                    found[try row.decode(0, as: Int64.self)] = try Order(row: row, from: 1)
                    if try !row.isNull(Order.columnCount + 1) { isReplicated = true }
                }
                // The orders of a group share the wait for the synchronous standby, after which they cannot be lost any more.
                if isReplicated { try session.awaitReplication() }
                // Positions are counted from 1.
                for (place, item) in zip(Int64(1)..., items) { item.done.resume(returning: .success(found[place])) }
            } catch {
                for item in items { item.done.resume(returning: .failure(error)) }
            }
        } fail: { items, why in
            for item in items { item.done.resume(returning: .failure(why.error)) }
        }
    }

    /// The order that this buyer has made under a key; nil if there is none.
    /// - Parameter buyer: nil for the scope that orders without a buyer share
    func order(key: String, buyer: String?) async -> Outcome {
        await withCheckedContinuation { continuation in
            self.group.add(Item(key: key, buyer: buyer, done: continuation))
        }
    }
}
