// Invariant: a migration is applied at most once, and as a whole: its statements and its row in the table of migrations commit together, under one advisory
//   lock that all servers take. Behind a pooler, which keeps no session, that lock is each transaction's own, and each transaction looks again. Versions are applied in ascending order. If all are applied already, the database role needs only the right to read that table.
//
// Bounds: `timeout` for each statement, `lockWait` for each lock.

/// One step of a schema.
public struct Migration: Sendable, Hashable {
    /// Its place in the order, above 0.
    public var version: Int
    /// What it does, in a word or two.
    public var name: String
    /// Statements without transaction control.
    public var sql: String

    /// Makes a migration.
    public init(version: Int, name: String, sql: String) {
        self.version = version
        self.name = name
        self.sql = sql
    }
}

/// Why migrations were not applied.
public struct MigrationError: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kind of failure.
    public enum Code: Sendable, Hashable {
        /// The text of an applied migration differs from the one that was applied.
        case changedChecksum
        /// Two migrations have the same version, a version is below 1, or the table's name is not a plain identifier.
        case invalid
        /// A missing migration comes before one that is applied already.
        case outOfOrder
        /// PostgreSQL refused or was lost; see `cause`.
        case failed
    }

    /// The kind of failure.
    public var code: Code
    /// The version of the migration that failed, 0 if none did.
    public var version: Int
    /// The name of that migration.
    public var name: String
    /// What PostgreSQL said.
    public var cause: PostgresError?

    /// The failure in one line, with the migration's number and name.
    public var description: String {
        let what = version == 0 ? "the migrations of \(name)" : "migration \(version) (\(name))"
        switch code {
        case .changedChecksum: return "\(what) was applied with another text than the one that this program has"
        case .invalid: return "\(what) cannot be: versions are different numbers from 1, and a table has a plain name"
        case .outOfOrder: return "\(what) is missing in the database, and later ones were applied: a program of another branch has used it"
        case .failed: return "\(what) could not be applied" + (cause.map { ": \($0)" } ?? "")
        }
    }
}

/// Applies numbered migrations when a server starts. Several servers may do so at the same time.
public struct Migrator: Sendable {
    private let configuration: PostgresConfiguration
    private let table: String

    /// Prepares to migrate.
    ///
    /// - Parameters:
    ///   - configuration: the server. `timeout` replaces its statement and lock bounds.
    ///   - table: where applied versions are kept. Parts of one database that number their migrations separately have separate tables.
    ///   - timeout: the bound for each statement
    ///   - lockWait: the bound for each wait for a lock, also while another server migrates; nil: `timeout`
    public init(
        configuration: PostgresConfiguration,
        table: String = "schema_migrations",
        timeout: Duration = .seconds(120),
        lockWait: Duration? = nil
    ) {
        var configuration = configuration
        configuration.statementTimeout = timeout
        configuration.lockTimeout = lockWait.map { min($0, timeout) } ?? timeout
        configuration.callTimeout = timeout + .seconds(5)
        configuration.idleInTransactionTimeout = timeout
        self.configuration = configuration
        self.table = table
    }

    /// Applies those of `migrations` that are not applied yet, each in a transaction of its own.
    ///
    /// Applied versions that are not among `migrations` are left alone: they come from a newer server.
    /// - Returns: the versions that this call applied, in order
    /// - Throws: ``MigrationError``. Migrations that were applied before the failing one stay applied.
    public func apply(_ migrations: [Migration]) async throws -> [Int] {
        let ordered = migrations.sorted { $0.version < $1.version }
        for (index, migration) in ordered.enumerated()
        where migration.version < 1 || (index > 0 && ordered[index - 1].version == migration.version) {
            throw MigrationError(code: .invalid, version: migration.version, name: migration.name)
        }
        guard let first = table.utf8.first, first >= 97, first <= 122, table.utf8.count <= 63,
            table.utf8.allSatisfy({ ($0 >= 97 && $0 <= 122) || ($0 >= 48 && $0 <= 57) || $0 == 95 })
        else { throw MigrationError(code: .invalid, version: 0, name: table) }
        let table = table
        do {
            let connection = try PostgresConnection(configuration: configuration, name: "migrator")
            return try await connection.withSession { session in
                defer { session.close() }  // which lets go of the lock
                if !session.isPooled { try session.checkIsDirect() }
                try session.checkDatabase(holding: table, makesTables: false)
                // If every migration is applied, no lock is taken, and a role that may only read this table is enough.
                if try Self.isThere(table, session), try Self.missing(of: ordered, table, session).isEmpty { return [] }
                try session.checkDatabase(holding: table, makesTables: true)
                return session.isPooled ? try Self.applyPooled(ordered, table, session) : try Self.apply(ordered, table, session)
            }
        } catch let error as PostgresError {
            throw MigrationError(code: .failed, version: 0, name: table, cause: error)
        }
    }

    private static func apply(_ migrations: [Migration], _ table: String, _ session: PostgresSession) throws -> [Int] {
        _ = try session.query("SELECT pg_advisory_lock(hashtextextended($1, 0))", [.text("migrations of \(table)")])
        // Another server may have made the table while this one waited for the lock.
        if try !isThere(table, session) { try session.execute(script: tableSQL(table)) }
        let missing = try missing(of: migrations, table, session)
        for (migration, checksum) in missing {
            do {
                try session.transaction { transaction in
                    try apply(migration, checksum, table, transaction)
                }
            } catch let error as PostgresError {
                throw MigrationError(code: .failed, version: migration.version, name: migration.name, cause: error)
            }
        }
        return missing.map(\.migration.version)
    }

    private static func apply(_ migration: Migration, _ checksum: String, _ table: String, _ transaction: PostgresTransaction) throws {
        try transaction.execute(script: migration.sql)
        _ = try transaction.query(
            "INSERT INTO \(table) (version, name, checksum) VALUES ($1, $2, $3)",
            [.int(Int64(migration.version)), .text(migration.name), .text(checksum)]
        )
    }

    private static func tableSQL(_ table: String) -> String {
        """
        CREATE TABLE IF NOT EXISTS \(table) (
            version bigint PRIMARY KEY,
            name text NOT NULL,
            checksum text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT now()
        )
        """
    }

    /// The same without a session: each migration's transaction takes the lock, and looks whether another server has applied it meanwhile.
    private static func applyPooled(_ migrations: [Migration], _ table: String, _ session: PostgresSession) throws -> [Int] {
        let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))"
        let name = PostgresValue.text("migrations of \(table)")
        try session.transaction { transaction in
            _ = try transaction.query(lock, [name])
            try transaction.execute(script: tableSQL(table))
        }
        var applied: [Int] = []
        for (migration, checksum) in try missing(of: migrations, table, session) {
            do {
                let isOurs = try session.transaction { transaction in
                    _ = try transaction.query(lock, [name])
                    let known = try transaction.query("SELECT checksum FROM \(table) WHERE version = $1", [.int(Int64(migration.version))])
                    guard known.isEmpty else { return false }
                    try apply(migration, checksum, table, transaction)
                    return true
                }
                if isOurs { applied.append(migration.version) }
            } catch let error as PostgresError {
                throw MigrationError(code: .failed, version: migration.version, name: migration.name, cause: error)
            }
        }
        // This throws if another server has applied a migration meanwhile whose text differs from this program's.
        _ = try missing(of: migrations, table, session)
        return applied
    }

    private static func isThere(_ table: String, _ session: PostgresSession) throws -> Bool {
        try session.query("SELECT to_regclass($1) IS NOT NULL", [.text(table)]).one().decode(0, as: Bool.self)
    }

    /// The migrations that are not applied, in order. All are checked before the first one is applied.
    private static func missing(
        of migrations: [Migration],
        _ table: String,
        _ session: PostgresSession
    ) throws -> [(migration: Migration, checksum: String)] {
        var checksums: [String] = []
        for row in try session.query(
            "SELECT encode(sha256(convert_to(t.sql, 'UTF8')), 'hex') FROM unnest($1) WITH ORDINALITY AS t(sql, n) ORDER BY n",
            [.texts(migrations.map(\.sql))]
        ) {
            checksums.append(try row.decode(0, as: String.self))
        }
        var applied: [Int: String] = [:]
        for row in try session.query("SELECT version, checksum FROM \(table)") {
            applied[try row.decode(0, as: Int.self)] = try row.decode(1, as: String.self)
        }
        let newest = applied.keys.max() ?? 0
        var missing: [(Migration, checksum: String)] = []
        for (migration, checksum) in zip(migrations, checksums) {
            if let known = applied[migration.version] {
                guard known == checksum else {
                    throw MigrationError(code: .changedChecksum, version: migration.version, name: migration.name)
                }
            } else if migration.version < newest {
                throw MigrationError(code: .outOfOrder, version: migration.version, name: migration.name)
            } else {
                missing.append((migration, checksum))
            }
        }
        return missing
    }
}
