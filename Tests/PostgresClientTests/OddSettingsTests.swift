import BlockingThreads
import PrivateServers
import Synchronization
import Testing

@testable import PostgresClient

/// What a database or a role may have been set to: each is overridden, or refused at the start in one line that says what to do. (The isolation level and a role
/// without CREATE: `StartTests`.)
@Suite("Odd settings of a database", .serialized, .timeLimit(.minutes(3)))
struct OddSettingsTests {
    private static let migrations = [Migration(version: 1, name: "first", sql: "CREATE TABLE things (n bigint)")]

    /// The trouble of a start against the database of this name, by a role; nil where it went well.
    private func trouble(
        _ port: Int,
        database: String = "postgres",
        user: String = "postgres",
        options: String = "",
        _ migrations: [Migration] = OddSettingsTests.migrations
    ) async throws -> PostgresStartTrouble? {
        let configuration = try PostgresConfiguration(url: "postgresql://\(user)@127.0.0.1:\(port)/\(database)\(options)")
        do {
            _ = try await Migrator(configuration: configuration).apply(migrations)
            return nil
        } catch {
            guard let trouble = PostgresStartTrouble(error) else { throw error }
            return trouble
        }
    }

    @Test(arguments: ["SQL_ASCII", "LATIN1"])
    func anotherEncoding(_ encoding: String) async throws {
        let server = try PrivatePostgres.start(fsync: false)
        defer { server.stop() }
        let admin = PostgresSession(configuration: try PostgresConfiguration(url: server.url))
        _ = try admin.query("SELECT 1")
        for sql in ["CREATE DATABASE odd ENCODING '\(encoding)' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"] {
            try admin.execute(script: sql)
        }
        let trouble = try await trouble(server.port, database: "odd")
        #expect(trouble?.isNotThereYet == false)
        #expect(
            trouble?.words
                == "the database's encoding is \(encoding), and only UTF8 holds every text: create the database with ENCODING 'UTF8'"
        )
        let odd = PostgresSession(configuration: try PostgresConfiguration(url: "postgresql://postgres@127.0.0.1:\(server.port)/odd"))
        #expect(
            try odd.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").one().decode(0, as: Int64.self) == 0,
            "nothing was made"
        )
    }

    /// The tables are there, and a search path that was changed later leads past them: new tables would be books that begin at nothing.
    @Test func aSearchPathThatLeadsPastTheTables() async throws {
        let server = try PrivatePostgres.start(fsync: false)
        defer { server.stop() }
        let admin = PostgresSession(configuration: try PostgresConfiguration(url: server.url))
        #expect(try await trouble(server.port) == nil)
        try admin.execute(script: "CREATE SCHEMA other; ALTER ROLE postgres SET search_path = other")
        let past = try await trouble(server.port)
        #expect(past?.isNotThereYet == false)
        #expect(
            past?.words.hasPrefix("search_path is 'other', but the tables are in the schema 'public'") == true,
            "\(String(describing: past))"
        )
        // An address that names a schema itself is taken at its word.
        #expect(try await trouble(server.port, options: "?options=-c%20search_path%3Dother") == nil)
        try admin.execute(script: "DROP SCHEMA other CASCADE")
        let nowhere = try await trouble(server.port)
        #expect(nowhere?.words.hasPrefix("search_path is 'other', ") == true, "\(String(describing: nowhere))")
        try admin.execute(script: "ALTER ROLE postgres RESET search_path")
        #expect(try await trouble(server.port) == nil)
    }

    /// Servers that are started together look for the tables while one of them is making them: that is no odd search path.
    @Test func theTablesAreBeingMadeMeanwhile() async throws {
        let server = try PrivatePostgres.start(fsync: false)
        defer { server.stop() }
        let configuration = try PostgresConfiguration(url: server.url)
        // Both go on until each has done its share. The maker has a thread of its own: on one core the tests' tasks have no second one.
        final class Making: Sendable {
            let isOver = Atomic(false)
            let made = Atomic(0)
            let trouble = Mutex<PostgresError?>(nil)
            let end = ThreadEnd()
        }
        let making = Making()
        try BlockingThread.start(name: "maker") {
            let maker = PostgresSession(configuration: configuration)
            while !making.isOver.load(ordering: .acquiring) {
                do throws(PostgresError) {
                    try maker.execute(script: "CREATE TABLE things (n bigint); COMMIT; DROP TABLE things; COMMIT")
                } catch {
                    making.trouble.withLock { $0 = error }
                    break
                }
                making.made.add(1, ordering: .relaxed)
            }
            maker.close()
            making.end.reached()
        }
        let looker = PostgresSession(configuration: configuration)
        var looks = 0
        while looks <= 100 || making.made.load(ordering: .relaxed) < 1500, making.trouble.withLock({ $0 == nil }) {
            do {
                try looker.checkDatabase(holding: "things", makesTables: true)
            } catch {
                Issue.record(error)
                break
            }
            looks += 1
            await Task.yield()
        }
        making.isOver.store(true, ordering: .releasing)
        await making.end.wait()
        #expect(making.trouble.withLock { $0 } == nil)
    }

    @Test func aSearchPathThatLeadsNowhere() async throws {
        let server = try PrivatePostgres.start(fsync: false)
        defer { server.stop() }
        let admin = PostgresSession(configuration: try PostgresConfiguration(url: server.url))
        try admin.execute(script: "ALTER ROLE postgres SET search_path = nowhere")
        let found = try await trouble(server.port)
        #expect(found?.isNotThereYet == false)
        #expect(found?.words.hasPrefix("search_path is 'nowhere', where there is no schema") == true, "\(String(describing: found))")
    }

    /// A schema with the role's name was made later, which comes first in PostgreSQL's own search path. The tables are still found; new ones would not stand beside them.
    @Test func newTablesWouldStandElsewhere() async throws {
        let server = try PrivatePostgres.start(fsync: false)
        defer { server.stop() }
        let admin = PostgresSession(configuration: try PostgresConfiguration(url: server.url))
        #expect(try await trouble(server.port) == nil)
        try admin.execute(script: "CREATE SCHEMA postgres")
        #expect(try await trouble(server.port) == nil, "nothing is to be made")
        let second = Migration(version: 2, name: "second", sql: "CREATE TABLE more (n bigint)")
        let found = try await trouble(server.port, Self.migrations + [second])
        #expect(
            found?.words.contains("new tables would be made in 'postgres', while the tables are in 'public'") == true,
            "\(String(describing: found))"
        )
        try admin.execute(script: "DROP SCHEMA postgres")
        #expect(try await trouble(server.port, Self.migrations + [second]) == nil)
    }

    /// Another shop in the same database, under a role and a schema of its own, is none of this one's business.
    @Test func twoShopsInOneDatabase() async throws {
        let server = try PrivatePostgres.start(fsync: false)
        defer { server.stop() }
        let admin = PostgresSession(configuration: try PostgresConfiguration(url: server.url))
        for shop in ["one", "two"] {
            try admin.execute(script: "CREATE ROLE \(shop) LOGIN; CREATE SCHEMA \(shop) AUTHORIZATION \(shop)")
            #expect(try await trouble(server.port, user: shop) == nil)
        }
        let found = try admin.query("SELECT schemaname::text FROM pg_tables WHERE tablename = 'things' ORDER BY 1")
        #expect(try found.map { try $0.decode(0, as: String.self) } == ["one", "two"])
    }

    /// Somebody holds all writes back, or the session reached a server that may only read: a start that has to make tables waits for its end and says what it met;
    /// one that has nothing to make goes on, and its sessions say that they may only read.
    @Test func readOnlyByDefault() async throws {
        let server = try PrivatePostgres.start(fsync: false)
        defer { server.stop() }
        let admin = PostgresSession(configuration: try PostgresConfiguration(url: server.url))
        func hold(_ isHeld: Bool) throws {
            try admin.execute(script: "SET default_transaction_read_only = off")
            try admin.execute(
                script:
                    "ALTER DATABASE postgres \(isHeld ? "SET default_transaction_read_only = on" : "RESET default_transaction_read_only")"
            )
        }
        try hold(true)
        let found = try await trouble(server.port)
        #expect(found?.isNotThereYet == true)
        #expect(found?.words.contains("read-only transaction") == true, "\(String(describing: found))")
        try hold(false)
        #expect(try await trouble(server.port) == nil)
        try hold(true)
        #expect(try await trouble(server.port) == nil)
        let session = PostgresSession(configuration: try PostgresConfiguration(url: server.url))
        let error = #expect(throws: PostgresError.self) { try session.checkCanWrite() }
        #expect(error?.sqlState == "25006" && error?.message == "the database may only be read")
    }
}
