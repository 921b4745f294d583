import Eventually
import PostgresClient
import PrivateServers
import Testing

@Suite struct FaultTests {
    /// Whether the statement runs. It is active while it is prepared, too: a server that dies then has not run it.
    private func isSleeping(_ observer: PostgresConnection) async throws -> Bool {
        try await observer.query("SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND wait_event = 'PgSleep'").count == 1
    }

    @Test func serverKilledInACallIsUnknownAndComesBack() async throws {
        let server = try PrivatePostgres.start()
        defer { server.stop() }
        var configuration = try PostgresConfiguration(url: server.url)
        // The server's death ends the call, not its time.
        configuration.callTimeout = .seconds(90)
        configuration.statementTimeout = .seconds(80)
        let connection = try PostgresConnection(configuration: configuration)
        let observer = try PostgresConnection(configuration: configuration)
        try await connection.connect()
        async let outcome: Result<Int, PostgresError> = {
            do throws(PostgresError) { return .success(try await connection.query("SELECT pg_sleep(60)").count) } catch {
                return .failure(error)
            }
        }()
        #expect(try await eventually { try await isSleeping(observer) })
        server.kill()
        guard case .failure(let error) = await outcome else { return #expect(Bool(false), "the call was answered") }
        #expect(error.code == .connectionLost(outcomeUnknown: true))

        let refused = await #expect(throws: PostgresError.self) { try await connection.query("SELECT 1") }
        #expect(refused?.code == .connectFailed)
        try server.restart()
        #expect(try await eventually { (try? await connection.query("SELECT 1").count) == 1 })
        // The observer was idle when its server died: nothing was sent, so the call just connects again.
        #expect(try await observer.query("SELECT 1").count == 1)
        #expect(await observer.connectionsOpened == 2)
    }

    @Test func failedConnectsBackOff() throws {
        // Nobody listens at port 1. The pause is never waited for, and is longer than a busy machine takes for the next call.
        var configuration = try PostgresConfiguration(url: "postgresql://127.0.0.1:1/none")
        configuration.minimumBackoff = .seconds(600)
        configuration.maximumBackoff = .seconds(600)
        let session = PostgresSession(configuration: configuration)
        for _ in 0..<2 {
            let error = #expect(throws: PostgresError.self) { try session.connect() }
            #expect(error?.retryAfter == nil)
        }
        let error = #expect(throws: PostgresError.self) { try session.query("SELECT 1") }
        #expect(error?.code == .connectFailed)
        #expect((error?.retryAfter ?? .zero) > .seconds(1))
    }

    @Test func pausedServerTimesOutWithinTheBound() throws {
        let server = try PrivatePostgres.start()
        defer { server.stop() }
        var configuration = try PostgresConfiguration(url: server.url)
        configuration.callTimeout = .seconds(60)
        configuration.connectTimeout = .seconds(60)
        let session = PostgresSession(configuration: configuration)
        try session.execute(script: "CREATE TABLE t (n bigint)")
        server.pause()
        let start = ContinuousClock.now
        let error = #expect(throws: PostgresError.self) {
            try session.execute(script: "INSERT INTO t VALUES (1)", timeout: .milliseconds(300))
        }
        #expect(error?.code == .timedOut(outcomeUnknown: true))
        // A connection cannot be opened either, within the same bound.
        let second = #expect(throws: PostgresError.self) { try session.query("SELECT 1", timeout: .milliseconds(300)) }
        #expect(second?.code == .connectFailed)
        #expect(ContinuousClock.now - start < .seconds(30), "the call's own bound, not the minute of the others")
        server.resume()
        #expect(try session.query("SELECT count(*) FROM t").one().decode(0, as: Int64.self) <= 1)
    }

    @Test func terminatedBackendIsNoticedBeforeSending() async throws {
        let configuration = try SharedServer.configuration()
        let session = PostgresSession(configuration: configuration)
        let id = try session.query("SELECT pg_backend_pid()").one().decode(0, as: Int64.self)
        let other = PostgresSession(configuration: configuration)
        _ = try other.query("SELECT pg_terminate_backend($1::int)", [.int(id)])
        let isGone = try await eventually { try other.query("SELECT 1 FROM pg_stat_activity WHERE pid = $1::int", [.int(id)]).isEmpty }
        #expect(isGone)
        #expect(try session.query("SELECT 1").count == 1)
        #expect(session.connectionsOpened == 2)
    }
}
