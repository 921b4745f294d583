import PrivateServers
import Testing

@testable import PostgresClient

/// What a program meets when it starts: servers that are not there yet, servers that will never let it in, and what stands in front of them.
@Suite struct StartTests {
    // MARK: Why no connection was opened

    @Test func theSQLStateIsReadFromTheText() {
        let one = ConnectFailure(
            """
            connection to server at "db" (10.0.0.1), port 5432 failed: FATAL:  28P01: password authentication failed for user "shop"
            LOCATION:  auth_failed, auth.c:335

            """
        )
        #expect(one.sqlState == "28P01")
        #expect(
            one.message
                == #"connection to server at "db" (10.0.0.1), port 5432 failed: FATAL:  password authentication failed for user "shop""#
        )
        // The last address counts, whichever way round they are.
        let refused = "connection to server at \"b\" (10.0.0.2), port 5432 failed: Connection refused\n"
        let starting = "connection to server at \"a\" (10.0.0.1), port 5432 failed: FATAL:  57P03: the database system is starting up\n"
        #expect(ConnectFailure(starting + refused).sqlState == nil)
        #expect(ConnectFailure(refused + starting).sqlState == "57P03")
        #expect(ConnectFailure("").sqlState == nil)
        for text in ["FATAL:  too short", "x:  28P0: y", "x:  28p01: y", "  28P01: y", "x:  28P01 y"] {
            #expect(ConnectFailure(text).sqlState == nil)
        }
    }

    @Test(
        arguments: [
            ("57P03", true), ("53300", true), ("57P01", true), ("55006", true), ("58030", true), ("28P01", false), ("28000", false),
            ("3D000", false), ("42501", false), ("08P01", false), ("08006", true), ("22023", false), ("57P04", false), ("XX000", false),
        ]
    )
    func whatMayPass(state: String, passes: Bool) {
        #expect(PostgresError(code: .connectFailed, message: "words", sqlState: state).isNotThereYet == passes)
        #expect(PostgresError(code: .server(sqlState: state), message: "words", sqlState: state).isNotThereYet == passes)
    }

    @Test(
        arguments: [
            ("connection to server at \"h\", port 1 failed: Connection refused", true),
            ("could not translate host name \"db\" to address: Name or service not known", true),
            ("could not send SSL negotiation packet: Broken pipe", true), ("SSL error: unexpected eof while reading", true),
            ("server closed the connection unexpectedly", true), ("no connection within the bound", true),
            ("server does not support SSL, but SSL was required", false), ("SSL error: certificate verify failed", false),
            ("fe_sendauth: no password supplied", false), ("invalid port number: \"x\"", false),
        ]
    )
    func whatTheLibrarySays(text: String, passes: Bool) {
        #expect(PostgresError(code: .connectFailed, message: text).isNotThereYet == passes)
    }

    @Test func whatIsNoTroubleOfTheServer() {
        #expect(PostgresError(code: .connectionLost(outcomeUnknown: true), message: "").isNotThereYet)
        #expect(PostgresError(code: .server(sqlState: "25006"), message: "", sqlState: "25006").isNotThereYet)
        #expect(!PostgresError(code: .invalidConfiguration, message: "").isNotThereYet)
        let changed = PostgresStartTrouble(MigrationError(code: .changedChecksum, version: 2, name: "second"))
        #expect(changed?.isNotThereYet == false)
        #expect(changed?.words.contains("migration 2 (second) was applied with another text") == true)
        struct Other: Error {}
        #expect(PostgresStartTrouble(Other()) == nil)
    }

    /// The server's own answers, with their states.
    @Test func aRealServerRefuses() throws {
        let server = try PrivatePostgres.start(fsync: false, settings: ["max_connections = 5", "superuser_reserved_connections = 0"])
        defer { server.stop() }
        let database = "127.0.0.1:\(server.port)/postgres"
        let admin = PostgresSession(configuration: try PostgresConfiguration(url: server.url))
        try admin.execute(script: "CREATE ROLE limited LOGIN CONNECTION LIMIT 0; CREATE ROLE barred NOLOGIN")
        func refusal(_ url: String) throws -> PostgresError? {
            let session = PostgresSession(configuration: try PostgresConfiguration(url: url))
            return #expect(throws: PostgresError.self) { try session.connect() }
        }
        for (url, state, passes) in [
            ("postgresql://nobody@\(database)", "28000", false), ("postgresql://barred@\(database)", "28000", false),
            ("postgresql://postgres@127.0.0.1:\(server.port)/nothing", "3D000", false), ("postgresql://limited@\(database)", "53300", true),
            ("postgresql://postgres@\(database)?options=-c%20nonsense%3D1", "42704", false),
        ] {
            let error = try refusal(url)
            #expect(error?.code == .connectFailed)
            #expect(error?.sqlState == state, "\(url): \(String(describing: error))")
            #expect(error?.isNotThereYet == passes)
        }
        let tls = try refusal("postgresql://postgres@\(database)?sslmode=require")
        #expect(tls?.isNotThereYet == false, "\(String(describing: tls))")
        server.kill()
        let away = try refusal(server.url)
        #expect(away?.isNotThereYet == true, "\(String(describing: away))")
        let unknown = try refusal("postgresql://postgres@nobody.invalid/postgres")
        #expect(unknown?.isNotThereYet == true, "\(String(describing: unknown))")
    }

    // MARK: Rights

    @Test func aRoleThatMayOnlyReadAppliesNothingAndStarts() async throws {
        let server = try PrivatePostgres.start(fsync: false)
        defer { server.stop() }
        let migrations = [
            Migration(version: 1, name: "first", sql: "CREATE TABLE things (n bigint)"),
            Migration(version: 2, name: "second", sql: "INSERT INTO things VALUES (2)"),
        ]
        _ = try await Migrator(configuration: try PostgresConfiguration(url: server.url)).apply(migrations)
        let admin = PostgresSession(configuration: try PostgresConfiguration(url: server.url))
        try admin.execute(
            script: """
                CREATE ROLE shop LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC;
                GRANT SELECT ON schema_migrations TO shop; GRANT SELECT, INSERT ON things TO shop
                """
        )
        let shop = Migrator(configuration: try PostgresConfiguration(url: "postgresql://shop@127.0.0.1:\(server.port)/postgres"))
        // Somebody else's lock is none of its business.
        _ = try admin.query("SELECT pg_advisory_lock(hashtextextended($1, 0))", [.text("migrations of schema_migrations")])
        #expect(try await shop.apply(migrations) == [])
        _ = try admin.query("SELECT pg_advisory_unlock_all()")
        // A difference is still found, and what it may not do is said.
        let changed = await #expect(throws: MigrationError.self) {
            try await shop.apply([migrations[0], Migration(version: 2, name: "second", sql: "SELECT 2")])
        }
        #expect(changed?.code == .changedChecksum)
        let third = Migration(version: 3, name: "third", sql: "CREATE TABLE more (n bigint)")
        let refused = await #expect(throws: MigrationError.self) { try await shop.apply(migrations + [third]) }
        #expect(refused?.version == 3)
        #expect(refused?.cause?.sqlState == "42501")
        #expect(refused.flatMap(PostgresStartTrouble.init)?.isNotThereYet == false)
    }

    // MARK: Isolation

    @Test func theIsolationOfADatabaseOrRoleIsNotTakenOver() throws {
        let server = try PrivatePostgres.start(fsync: false, settings: ["default_transaction_isolation = 'serializable'"])
        defer { server.stop() }
        let admin = PostgresSession(configuration: try PostgresConfiguration(url: server.url))
        try admin.execute(
            script: """
                ALTER DATABASE postgres SET default_transaction_isolation = 'repeatable read';
                ALTER ROLE postgres SET default_transaction_isolation = 'serializable'
                """
        )
        for options in ["", "?options=-c%20work_mem%3D8MB"] {
            let session = PostgresSession(configuration: try PostgresConfiguration(url: server.url + options))
            #expect(try session.query("SHOW transaction_isolation").one().decode(0, as: String.self) == "read committed")
            let inside = try session.transaction { try $0.query("SHOW transaction_isolation").one().decode(0, as: String.self) }
            #expect(inside == "read committed")
            if !options.isEmpty { #expect(try session.query("SHOW work_mem").one().decode(0, as: String.self) == "8MB") }
            try session.checkIsDirect()
        }
    }

    // MARK: A pooler

    @Test(arguments: [PoolerStandIn.Options.refused, .ignored, .kept])
    func aPoolerIsNamedAtTheStart(options: PoolerStandIn.Options) async throws {
        let pooler = try PoolerStandIn(before: try SharedServer.port(), options: options)
        defer { pooler.stop() }
        let migrator = Migrator(
            configuration: try PostgresConfiguration(url: "postgresql://postgres@127.0.0.1:\(pooler.port)/postgres"),
            table: "behind_a_pooler"
        )
        let error = await #expect(throws: MigrationError.self) { try await migrator.apply([]) }
        let trouble = error.flatMap(PostgresStartTrouble.init)
        #expect(trouble?.isNotThereYet == false)
        #expect(trouble?.words.hasPrefix("a connection pooler such as PgBouncer stands between") == true, "\(String(describing: trouble))")
    }
}
