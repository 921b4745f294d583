import CLibPQ
import Eventually
import Foundation
import PrivateServers
import Synchronization
import Testing

@testable import PostgresClient

/// With Debian's PgBouncer in transaction mode between client and server.
@Suite("Behind a pooler", .serialized, .timeLimit(.minutes(5)))
struct PooledTests {
    /// One server and one pooler with two places, so that sessions of the server are shared and changed.
    private struct Bed {
        let server: PrivatePostgres
        let pooler: PrivatePgBouncer

        /// - Parameter patience: seconds that a client waits for a place
        init(mode: PrivatePgBouncer.Mode = .transaction, places: Int = 2, patience: Int = 60, settings: [String] = []) throws {
            server = try PrivatePostgres.start(fsync: false, settings: settings)
            pooler = try PrivatePgBouncer.start(
                before: server.port,
                mode: mode,
                places: places,
                settings: ["query_wait_timeout = \(patience)"]
            )
        }

        var direct: PostgresConfiguration { get throws { try PostgresConfiguration(url: server.url) } }

        func pooled(_ change: (inout PostgresConfiguration) -> Void = { _ in }) throws -> PostgresConfiguration {
            var configuration = try PostgresConfiguration(url: "postgresql://postgres@127.0.0.1:\(pooler.port)/postgres")
            try configuration.use(.transaction)
            change(&configuration)
            return configuration
        }

        func stop() {
            pooler.stop()
            server.stop()
        }
    }

    /// What sellers were told.
    private final class Tally: Sendable {
        let isStopped = Atomic(false)
        let confirmed = Mutex<Set<Int64>>([])
        let unknown = Mutex(0)
    }

    @Test func anAddressWithOptionsIsRefused() throws {
        var configuration = try PostgresConfiguration(url: "postgresql://u:secret@h/d?options=-c%20work_mem%3D8MB")
        let error = #expect(throws: PostgresError.self) { try configuration.use(.transaction) }
        #expect(error?.code == .invalidConfiguration && error?.message.contains("options") == true)
        #expect(error.map { "\($0)".contains("secret") } == false)
        #expect(configuration.pooler == .none)
        try configuration.use(.none)
    }

    @Test func theOpeningHasWhatAStatementReliesOn() throws {
        var configuration = try PostgresConfiguration(url: "postgresql://u@h/d")
        configuration.options = "-c enable_seqscan=off -c synchronous_commit=off"
        configuration.plansThroughIndexes = true
        try configuration.use(.transaction)
        let opening = configuration.transactionOpening
        #expect(opening.first == "BEGIN ISOLATION LEVEL READ COMMITTED")
        #expect(opening.contains("SET LOCAL search_path TO DEFAULT"))
        #expect(!opening.contains("SET LOCAL synchronous_commit TO DEFAULT"), "this program's own")
        #expect(opening.last?.contains("set_config('synchronous_commit', 'off', true)") == true)
        #expect(opening.last?.contains("set_config('statement_timeout', '4000', true)") == true)
        #expect(opening.last?.contains("set_config('enable_mergejoin', 'off', true)") == true)
        #expect(!configuration.connectionSettings.contains { $0.keyword == "options" })
    }

    /// What another client leaves in the sessions of the server reaches no statement of ours, and we leave nothing there.
    @Test func settingsHoldInEachTransactionAndNotBehindIt() throws {
        let bed = try Bed(places: 1)
        defer { bed.stop() }
        let names = [
            "transaction_isolation", "search_path", "synchronous_commit", "statement_timeout", "lock_timeout",
            "idle_in_transaction_session_timeout",
        ]
        let show = "SELECT ARRAY[" + names.map { "current_setting('\($0)')" }.joined(separator: ", ") + "]"
        let ours = ["read committed", "\"$user\", public", "on", "4s", "2s", "10s"]
        let stranger = PostgresSession(configuration: try bed.pooled())
        let session = PostgresSession(configuration: try bed.pooled())
        // A client that keeps to no rule: plain SET, which stays in the session that the next client gets.
        try stranger.connect()
        let link = try #require(stranger.link)
        func dirty() throws {
            for sql in [
                // Not so short that it ends what sets ours, or the stranger's own.
                "SET search_path TO pg_catalog", "SET synchronous_commit TO off", "SET statement_timeout TO '3777ms'",
                "SET lock_timeout TO '1777ms'",
                "SET default_transaction_isolation TO serializable",
            ] {
                PQclear(try stranger.exchange(link, Deadline(after: .seconds(30)), commits: false) { PQsendQuery(link, sql) })
            }
        }
        try dirty()
        #expect(try session.query(show).one().decode(0, as: [String?].self) == ours)
        let inside = try session.transaction { try $0.query(show).one().decode(0, as: [String?].self) }
        #expect(inside == ours)
        try session.execute(script: "CREATE TABLE things (n bigint); CREATE TABLE seen AS \(show) AS settings -- a comment at the end")
        #expect(try session.query("SELECT settings FROM public.seen").one().decode(0, as: [String?].self) == ours)
        // The session of the server is as its last client left it.
        let left = try stranger.exchange(link, Deadline(after: .seconds(30)), commits: false) {
            PQsendQuery(link, "SHOW statement_timeout")
        }
        defer { PQclear(left) }
        #expect(PQgetvalue(left, 0, 0).map { String(cString: $0) } == "3777ms")
    }

    /// The same statements as without a pooler take as many round trips: one each, and one more each to begin and to commit a transaction.
    @Test func roundTripsAreCounted() throws {
        let bed = try Bed()
        defer { bed.stop() }
        func trips(_ session: PostgresSession, _ body: (PostgresSession) throws -> Void) throws -> Int {
            let before = session.roundTrips
            try body(session)
            return session.roundTrips - before
        }
        let pooled = PostgresSession(configuration: try bed.pooled())
        let direct = PostgresSession(configuration: try bed.direct)
        let one = { (session: PostgresSession) throws -> Void in _ = try session.query("SELECT $1 + 1", [.int(1)]) }
        let three = { (session: PostgresSession) throws -> Void in
            try session.transaction { for n in 1...3 { _ = try $0.query("SELECT $1 + 1", [.int(Int64(n))]) } }
        }
        // The first time, without a pooler, prepares.
        for session in [pooled, direct] { try one(session) }
        #expect(try trips(pooled, one) == 1 && trips(direct, one) == 1)
        #expect(try trips(pooled, three) == 5 && trips(direct, three) == 5)
        let script = { (session: PostgresSession) throws -> Void in try session.execute(script: "SELECT 1; SELECT 2") }
        #expect(try trips(pooled, script) == 1 && trips(direct, script) == 1)
        let refused = { (session: PostgresSession) throws -> Void in
            #expect(throws: PostgresError.self) { try session.query("SELECT 1 / $1", [.int(0)]) }
        }
        #expect(try trips(pooled, refused) == 2, "the second takes the transaction back")
    }

    @Test func typesRowsAndCountsAreTheSame() throws {
        let bed = try Bed()
        defer { bed.stop() }
        let session = PostgresSession(configuration: try bed.pooled())
        let row = try session.query(
            "SELECT $1, $2, $3, $4::bigint, $5",
            [.int(.min), .text("grüße 🛒"), .bytes([0, 255]), .null, .ints([1, -2])]
        ).one()
        #expect(try row.decode(0, as: Int64.self) == .min && row.decode(1, as: String.self) == "grüße 🛒")
        #expect(try row.decode(2, as: [UInt8].self) == [0, 255] && row.isNull(3) && row.decode(4, as: [Int64].self) == [1, -2])
        try session.execute(script: "CREATE TABLE numbers (n bigint)")
        #expect(try session.query("INSERT INTO numbers SELECT generate_series(1, 10)").rowsAffected == 10)
        var sum: Int64 = 0
        try session.query("SELECT n FROM numbers", []) { (row) throws(PostgresError) in sum += try row.decode(0, as: Int64.self) }
        #expect(sum == 55)
        #expect(try session.query("SELECT n FROM numbers WHERE n > 100").isEmpty)
        #expect(session.preparedStatementCount == 0)
        // More than a socket takes at once, both ways.
        let long = String(repeating: "x", count: 4 << 20)
        #expect(try session.query("SELECT $1", [.text(long)]).one().decode(0, as: String.self) == long)
    }

    /// A refusal is the statement's own, with its state, and leaves neither an open transaction nor a lost connection.
    @Test func refusalsLeaveTheSessionSound() throws {
        let bed = try Bed(places: 1)
        defer { bed.stop() }
        let session = PostgresSession(configuration: try bed.pooled { $0.statementTimeout = .seconds(2) })
        let other = PostgresSession(configuration: try bed.pooled())
        try session.execute(script: "CREATE TABLE things (n bigint PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)")
        let opened = session.connectionsOpened
        for (sql, state) in [
            ("SELECT nothing", "42703"), ("SELECT pg_sleep(60)", "57014"),
            // Refused by the COMMIT alone.
            ("INSERT INTO things VALUES (1), (1)", "23505"),
        ] {
            let error = #expect(throws: PostgresError.self) { try session.query(sql) }
            #expect(error?.code == .server(sqlState: state), "\(sql): \(String(describing: error))")
            // Its place is free for others at once.
            #expect(try other.query("SELECT count(*) FROM things").one().decode(0, as: Int64.self) == 0)
        }
        let script = #expect(throws: PostgresError.self) { try session.execute(script: "INSERT INTO things VALUES (2); SELECT nothing") }
        #expect(script?.sqlState == "42703")
        #expect(throws: PostgresError.self) { try session.transaction { _ = try $0.query("SELECT nothing") } }
        #expect(try other.query("SELECT count(*) FROM things").one().decode(0, as: Int64.self) == 0)
        #expect(try session.query("SELECT 1").count == 1)
        #expect(session.connectionsOpened == opened)
    }

    /// The pooler dies with statements under way. What was sent and not answered is unknown, and whether it took effect is found by sending the same again.
    @Test func aPoolerThatDiesLeavesNothingHalf() async throws {
        let bed = try Bed(places: 4)
        defer { bed.stop() }
        let configuration = try bed.pooled {
            $0.minimumBackoff = .milliseconds(5); $0.maximumBackoff = .milliseconds(50)
        }
        try PostgresSession(configuration: configuration).execute(
            script: "CREATE TABLE sales (key bigint PRIMARY KEY); CREATE TABLE stock AS SELECT 0::bigint AS sold"
        )
        let tally = Tally()
        let sellers = (0..<4).map { seller in
            Task.detached {
                let connection = try PostgresConnection(configuration: configuration)
                var key = Int64(seller) << 32
                while !tally.isStopped.load(ordering: .relaxed) {
                    key += 1
                    var isSettled = false
                    while !isSettled, !tally.isStopped.load(ordering: .relaxed) {
                        do throws(PostgresError) {
                            _ = try await connection.query(
                                "WITH new AS (INSERT INTO sales VALUES ($1) ON CONFLICT DO NOTHING RETURNING key) UPDATE stock SET sold = sold + (SELECT count(*) FROM new)",
                                [.int(key)]
                            )
                            isSettled = true
                            _ = tally.confirmed.withLock { $0.insert(key) }
                        } catch {
                            if error.isOutcomeUnknown { tally.unknown.withLock { $0 += 1 } }
                            try await Task.sleep(for: .milliseconds(1))
                        }
                    }
                }
            }
        }
        // Most kills meet a statement under way. Should none of five have done so, there are some more.
        for round in 1...20 where round <= 5 || tally.unknown.withLock({ $0 }) == 0 {
            let before = tally.confirmed.withLock { $0.count }
            let isSelling = try await eventually { tally.confirmed.withLock { $0.count } >= before + 100 }
            #expect(isSelling, "round \(round)")
            try bed.pooler.restart()
        }
        tally.isStopped.store(true, ordering: .relaxed)
        for seller in sellers { try await seller.value }
        let direct = PostgresSession(configuration: try bed.direct)
        // In one statement, and so of one moment: a statement that the last kill cut off may still be at its end.
        let row = try direct.query("SELECT (SELECT array_agg(key) FROM sales), sold FROM stock").one()
        let sold = Set(try row.decode(0, as: [Int64].self))
        #expect(tally.confirmed.withLock { $0.isSubset(of: sold) })
        #expect(sold.count - tally.confirmed.withLock { $0.count } <= 4, "at most one each was under way at the end")
        #expect(try row.decode(1, as: Int64.self) == Int64(sold.count))
        #expect(tally.unknown.withLock { $0 } > 0, "met in the middle of a statement")
    }

    // MARK: Migrations

    private static let migrations = [
        Migration(version: 1, name: "first", sql: "CREATE TABLE counts (n bigint)"),
        Migration(version: 2, name: "second", sql: "INSERT INTO counts VALUES (1); SELECT pg_sleep(0.05) -- a comment"),
        Migration(version: 3, name: "third", sql: "UPDATE counts SET n = n + 1"),
    ]

    @Test func serversThatMigrateTogetherApplyEachOnce() async throws {
        let bed = try Bed(places: 3)
        defer { bed.stop() }
        let configuration = try bed.pooled()
        let applied = try await withThrowingTaskGroup(of: [Int].self) { group in
            for _ in 0..<6 { group.addTask { try await Migrator(configuration: configuration).apply(Self.migrations) } }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        #expect(applied.sorted() == [1, 2, 3])
        let direct = PostgresSession(configuration: try bed.direct)
        #expect(try direct.query("SELECT n FROM counts").one().decode(0, as: Int64.self) == 2)
        #expect(try direct.query("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").one().decode(0, as: Int64.self) == 0)
        // A server without a pooler knows them, and the other way round.
        #expect(try await Migrator(configuration: try bed.direct).apply(Self.migrations) == [])
        var changed = Self.migrations
        changed[2].sql = "SELECT 3"
        let error = await #expect(throws: MigrationError.self) { try await Migrator(configuration: configuration).apply(changed) }
        #expect(error?.code == .changedChecksum && error?.version == 3)
    }

    @Test func aMigrationThatFailsLeavesNothing() async throws {
        let bed = try Bed()
        defer { bed.stop() }
        var migrations = Self.migrations
        migrations[1].sql = "INSERT INTO counts VALUES (1); SELECT nothing"
        let error = await #expect(throws: MigrationError.self) { try await Migrator(configuration: try bed.pooled()).apply(migrations) }
        #expect(error?.version == 2 && error?.cause?.sqlState == "42703")
        let direct = PostgresSession(configuration: try bed.direct)
        #expect(try direct.query("SELECT count(*) FROM counts").one().decode(0, as: Int64.self) == 0)
        #expect(try await Migrator(configuration: try bed.pooled()).apply(Self.migrations) == [2, 3])
    }

    // MARK: What the start says

    @Test(arguments: [PrivatePgBouncer.Mode.transaction, .statement])
    func withoutTheSettingAPoolerIsNamed(mode: PrivatePgBouncer.Mode) async throws {
        let bed = try Bed(mode: mode)
        defer { bed.stop() }
        let plain = try PostgresConfiguration(url: "postgresql://postgres@127.0.0.1:\(bed.pooler.port)/postgres")
        let error = await #expect(throws: MigrationError.self) { try await Migrator(configuration: plain).apply(Self.migrations) }
        let trouble = error.flatMap(PostgresStartTrouble.init)
        #expect(trouble?.isNotThereYet == false)
        #expect(trouble?.words.contains("DATABASE_POOLER=transaction") == true, "\(String(describing: trouble))")
    }

    /// A pooler by statement cannot carry a transaction, whatever is set: its own words say so.
    @Test func aPoolerByStatementIsRefused() async throws {
        let bed = try Bed(mode: .statement)
        defer { bed.stop() }
        let error = await #expect(throws: MigrationError.self) {
            try await Migrator(configuration: try bed.pooled()).apply(Self.migrations)
        }
        let trouble = error.flatMap(PostgresStartTrouble.init)
        #expect(trouble?.words.contains("statement pooling") == true, "\(String(describing: trouble))")
    }

    /// With the server behind it away, a start waits as it does without a pooler.
    @Test func aServerThatIsAwayBehindThePoolerIsWaitedFor() async throws {
        let bed = try Bed(patience: 5)
        defer { bed.stop() }
        bed.server.kill()
        let session = PostgresSession(
            configuration: try bed.pooled {
                $0.connectTimeout = .seconds(30); $0.callTimeout = .seconds(30)
            }
        )
        let error = #expect(throws: PostgresError.self) { try session.query("SELECT 1") }
        #expect(error?.isNotThereYet == true, "\(String(describing: error))")
        try bed.server.restart()
        _ = try await eventuallyFound("the server is there again") { try session.query("SELECT 1") }
    }
}
