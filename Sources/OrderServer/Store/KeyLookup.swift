// Invariant: an order is found by its key together with its buyer, as the database compares them, byte by byte. Swift takes two buyer ids for equal if they
//   differ only in their Unicode form. They must stay different here, so answers are matched to questions by their position, never by a text.
//
// In a rush for a sold-out product each request with a key is one look-up and nothing else. A statement costs both ends several times as much as a key in it, and it
// is answered so fast that only three others have come meanwhile. So the groups keep a pace.
//
// Bounds: those of the group. A look-up is repeatable. In a rush it waits for others for half a millisecond at most, and not at all where few come.

import PostgresClient
import ServerMetrics

/// Looks up orders by their idempotency keys, in groups.
final class KeyLookup: OrderGroup {
    typealias Outcome = Result<Order?, PostgresError>

    struct Item: Sendable {
        var key: String
        /// The buyer whose key it is; nil: the scope that orders without a buyer share.
        var buyer: String?
        /// Called once, on the group's thread, or at once if too many wait.
        var done: @Sendable (Outcome) -> Void
    }

    /// Where fewer than eight come in half a millisecond, what the statements cost is little.
    private static let pace = GroupCommit<Item>.Pace(interval: .microseconds(500), leastPart: 8, rest: .milliseconds(20)) { 64 }

    let group: GroupCommit<Item>
    private static let sql = """
        select t.n, \(Order.columns), \(PostgresSession.replicatedServer) from unnest($1, $2) with ordinality as t(k, b, n)
        join orders o on o.idempotency_key = t.k and coalesce(o.buyer_id, '') collate "C" = t.b
        """

    init(
        configuration: PostgresConfiguration,
        maximumQueued: Int,
        maximumBatch: Int,
        batches: Histogram? = nil,
        onTrouble: OrderWriterTrouble? = nil
    ) throws(PostgresError) {
        group = GroupCommit(
            worker: try PostgresWorker(orders: "order-keys", configuration, onTrouble),
            capacity: maximumQueued,
            maximumBatch: maximumBatch,
            pace: KeyLookup.pace
        ) { _, session, items in
            batches?.record(UInt64(items.count))
            do throws(PostgresError) {
                var found: [Int64: Order] = [:]
                var isReplicated = false
                for row in try session.repeatable(KeyLookup.sql, [.texts(items.map(\.key)), .texts(items.map { $0.buyer ?? "" })]) {
                    found[try row.decode(0, as: Int64.self)] = try Order(row: row, from: 1)
                    if try !row.isNull(Order.columnCount + 1) { isReplicated = true }
                }
                // The orders of a group share the wait for the synchronous standby, after which they cannot be lost any more.
                if isReplicated { try session.awaitReplication() }
                session.worked()
                // Positions are counted from 1.
                for (place, item) in zip(Int64(1)..., items) { item.done(.success(found[place])) }
            } catch {
                session.workFailed(error)
                for item in items { item.done(.failure(error)) }
            }
        } fail: { items, why in
            for item in items { item.done(.failure(why.error)) }
        }
    }

    /// The order that this buyer has made under a key; nil if there is none.
    /// - Parameter buyer: nil for the scope that orders without a buyer share
    func order(key: String, buyer: String?) async -> Outcome {
        await withCheckedContinuation { continuation in
            self.order(key: key, buyer: buyer) { continuation.resume(returning: $0) }
        }
    }

    /// The order that this buyer has made under a key; nil if there is none. `done` is called once, on the group's thread, or at once if too many wait.
    /// - Parameter buyer: nil for the scope that orders without a buyer share
    func order(key: String, buyer: String?, done: @escaping @Sendable (Outcome) -> Void) {
        group.add(Item(key: key, buyer: buyer, done: done))
    }
}
