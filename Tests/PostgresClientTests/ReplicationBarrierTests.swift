import Eventually
import PrivateServers
import Testing

@testable import PostgresClient

/// Plain reads that tell what they have read wait for the synchronous standby, and cost nothing where there is none.
@Suite(.serialized, .timeLimit(.minutes(5))) struct ReplicationBarrierTests {
    private static let read = "select n, \(PostgresSession.replicatedServer) from t where n = $1"

    private func row(_ pool: PostgresPool, _ n: Int64) async throws -> Int64? {
        guard let row = try await pool.query(Self.read, [.int(n)]).first else { return nil }
        try await pool.awaitReplication(at: try row.decode(1))
        return try row.decode(0)
    }

    @Test func withoutASynchronousStandbyNothingIsPaid() async throws {
        let server = try PrivatePostgres.start(fsync: false, settings: ["autovacuum = off"])
        defer { server.stop() }
        let admin = PostgresSession(configuration: try PostgresConfiguration(url: server.url))
        try admin.execute(script: "create table t (n bigint); insert into t values (1)")
        var configuration = try PostgresConfiguration(url: server.url)
        configuration.applicationName = "readers"
        let pool = PostgresPool(configuration: configuration, maximumConnections: 2)
        #expect(try await row(pool, 1) == 1)
        let numbers = "select pg_snapshot_xmax(pg_current_snapshot())::text"
        let before = try admin.query(numbers).one().decode(0, as: String.self)
        for _ in 0..<200 { #expect(try await row(pool, 1) == 1) }
        #expect(try admin.query(numbers).one().decode(0, as: String.self) == before, "no transaction was given a number")
        let sessions = "select count(*) from pg_stat_activity where application_name like 'readers%'"
        #expect(try admin.query(sessions).one().decode(0, as: Int64.self) == 1, "no session beside that of the pool")
        // A plain role pays nothing either, and may read the setting.
        try admin.execute(script: "create role plain login; grant select on t to plain")
        let plain = PostgresSession(configuration: try PostgresConfiguration(url: "postgresql://plain@127.0.0.1:\(server.port)/postgres"))
        #expect(try plain.query(Self.read, [.int(1)]).one().decode(1, as: Int64?.self) == nil)
        try plain.awaitReplication()
        await pool.shutdown()
    }

    @Test(arguments: [PostgresConfiguration.Pooler.none, .transaction])
    func readersWaitForTheStandby(pooler: PostgresConfiguration.Pooler) async throws {
        let pair = try await SynchronousPair.start()
        defer { pair.stop() }
        let (standby, admin) = (pair.standby, pair.admin)
        var configuration = try PostgresConfiguration(url: pair.plainURL)
        configuration.applicationName = "readers"
        try configuration.use(pooler)
        let pool = PostgresPool(configuration: configuration, maximumConnections: 4, acquireTimeout: .seconds(60))
        _ = try await pool.query("insert into t values (1)")
        #expect(try await row(pool, 1) == 1)
        standby.pause()
        async let insert: PostgresError? = {
            do throws(PostgresError) {
                _ = try await pool.query("insert into t values (2)")
                return nil
            } catch { return error }
        }()
        let waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'"
        #expect(try await eventually { try admin.query(waiting).one().decode(0, as: Int64.self) == 1 })
        _ = try admin.query("select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'")
        #expect(await insert?.code == .notReplicated)
        // The row can be seen, and twenty readers share the wait for it.
        let readers = Task {
            await withTaskGroup(of: PostgresError.Code?.self) { group in
                for _ in 0..<20 {
                    group.addTask {
                        do {
                            _ = try await row(pool, 2)
                            return nil
                        } catch { return (error as? PostgresError)?.code }
                    }
                }
                return await group.reduce(into: []) { $0.append($1) }
            }
        }
        #expect(try await eventually { try admin.query(waiting).one().decode(0, as: Int64.self) == 1 })
        let codes = await readers.value
        #expect(codes.allSatisfy { $0 == .timedOut(outcomeUnknown: true) }, "\(codes)")
        // What was given up holds no place at the server: its wait, of an empty transaction, is cancelled.
        #expect(try await eventually { try admin.query(waiting).one().decode(0, as: Int64.self) == 0 })
        standby.resume()
        // A standby that was away may have to catch up for longer than a reader waits.
        #expect(try await eventually { (try? await row(pool, 2)) == 2 })
        #expect(try await row(pool, 3) == nil)
        // Another server than the one that was read: what was read there may be lost.
        let moved = await #expect(throws: PostgresError.self) { try await pool.awaitReplication(at: 1) }
        #expect(moved?.code == .connectionLost(outcomeUnknown: false))
        await pool.shutdown()
        let shut = await #expect(throws: PostgresError.self) { try await pool.awaitReplication(at: 1) }
        #expect(shut?.code == .shutDown)
    }

    /// A statement that was sent with an unknown outcome finds its work done when it is repeated, and writes nothing. It does not succeed before the standby has it.
    @Test func aRepeatThatFindsItsWorkDoneWaits() async throws {
        let pair = try await SynchronousPair.start()
        defer { pair.stop() }
        let (standby, admin) = (pair.standby, pair.admin)
        var configuration = try PostgresConfiguration(url: pair.primary.url)
        configuration.callTimeout = .seconds(60)
        let worker = try PostgresWorker(configuration: configuration)
        try await worker.connect()
        standby.pause()
        let work = Task {
            try await worker.perform { session in
                try session.repeatable("insert into t values ($1) on conflict do nothing returning n", [.int(1)], within: .seconds(60))
                    .count
            }
        }
        let waiting = "select pid from pg_stat_activity where wait_event = 'SyncRep' and query like $1"
        #expect(try await eventually { try admin.query(waiting, [.text("insert%")]).count == 1 })
        _ = try admin.query("select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'")
        #expect(try await eventually { try admin.query(waiting, [.text("%pg_logical_emit_message%")]).count == 1 }, "the repeat waits")
        standby.resume()
        #expect(try await work.value == 0)
        await worker.shutdown()
    }
}
