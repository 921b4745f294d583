public import PostgresClient

extension SettingsReader {
    /// Reads whether a pooler stands in front of the database, and notes that in the database's address.
    ///
    /// - Parameters:
    ///   - name: the variable of the address, for a refusal
    ///   - database: nil where the address was refused already
    public mutating func usePooler(of name: String, _ database: inout PostgresConfiguration?) {
        let pooler = choice(
            "DATABASE_POOLER",
            default: PostgresConfiguration.Pooler.none,
            "what pools the connections to the database: a pooler that keeps no session (PgBouncer with pool_mode = transaction), or nothing"
        )
        do throws(PostgresError) { try database?.use(pooler) } catch { refuse("\(name): \(error.message)") }
    }
}
