/// The ledger's schema, to be applied before the engine starts.
public enum LedgerMigrations {
    /// Number, name and SQL, in order.
    public static var all: [(version: Int, name: String, sql: String)] {
        [(1, "ledger", String(decoding: PackageResources.V001_ledger_sql, as: UTF8.self))]
    }
}
