// Invariant: a server that has a cell's ids makes products under those alone. It does not start over a database whose sequence would give others.

import PostgresClient
import ServerKit
import StockContract

/// The sequence that gives new products their ids.
struct ProductSequence: Sendable {
    let pool: PostgresPool
    let ids: ProductIDs

    /// Sets a sequence that was never used to the first id of the cell's first range.
    /// - Throws: ``SettingsError`` if the next id is not one of the cell's ranges
    func prepare() async throws {
        guard let first = ids.ranges.first else { return }
        let next = try await pool.transaction { transaction in
            // Several servers of the cell may start at once: the later one sees what the earlier one has set.
            _ = try transaction.query("select pg_advisory_xact_lock(hashtext('stockgate.product-ids'))", [])
            _ = try transaction.query(
                """
                select setval(pg_get_serial_sequence('products', 'id'), $1, false) from products_id_seq
                where not is_called and last_value < $1
                """,
                [.int(first.lowerBound)]
            )
            return try transaction.query("select case when is_called then last_value + 1 else last_value end from products_id_seq", [])
                .one().decode(0, as: Int64.self)
        }
        guard ids.ranges.contains(where: { $0.contains(next) }) else {
            throw SettingsError(faults: [
                "PRODUCT_IDS: the sequence of product ids in PRODUCT_DATABASE_URL goes on with \(next), which is outside of the ranges: set it with select setval('products_id_seq', ID, false), or name its range first"
            ])
        }
    }
}
