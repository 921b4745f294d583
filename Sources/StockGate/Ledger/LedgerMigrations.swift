/// The ledger's schema, to be applied before the engine starts.
public enum LedgerMigrations {
    /// Number, name and SQL, in order.
    ///
    /// The database has one table of applied migrations for both the ledger and its host, the product server's catalogue, and applies them in ascending order.
    /// A new number must be above every released one of either.
    public static var all: [(version: Int, name: String, sql: String)] {
        [
            (1, "ledger", String(decoding: PackageResources.V001_ledger_sql, as: UTF8.self)),
            (102, "increase_belongs", String(decoding: PackageResources.V102_increase_belongs_sql, as: UTF8.self)),
            (103, "ledger_totals", String(decoding: PackageResources.V103_ledger_totals_sql, as: UTF8.self)),
            (104, "row_place", String(decoding: PackageResources.V104_row_place_sql, as: UTF8.self)),
            (105, "ledger_archive", String(decoding: PackageResources.V105_ledger_archive_sql, as: UTF8.self)),
            (120, "bump_what_is_free", String(decoding: PackageResources.V120_bump_what_is_free_sql, as: UTF8.self)),
            (130, "ledger_name_and_raise", String(decoding: PackageResources.V130_ledger_name_and_raise_sql, as: UTF8.self)),
            (
                131, "archive_ends_at_young_rows",
                String(decoding: PackageResources.V131_archive_ends_at_young_rows_sql, as: UTF8.self)
            ),
            (132, "many_products", String(decoding: PackageResources.V132_many_products_sql, as: UTF8.self)),
            (140, "name_without_quotes", String(decoding: PackageResources.V140_name_without_quotes_sql, as: UTF8.self)),
        ]
    }
}
