import BlockingThreads
import Eventually
import PrivateServers
import Synchronization
import Testing

@testable import PostgresClient

/// A database that may only be read for a while, as after `alter database … set default_transaction_read_only = on` or at a standby: sessions that begin then stay so.
@Suite(.serialized, .timeLimit(.minutes(5))) struct ReadOnlyTests {
    /// A database of its own on the shared server, with a table.
    private struct Database {
        let configuration: PostgresConfiguration
        private let name: String
        private let owner: PostgresSession
        private static let made = Atomic(0)

        init() throws {
            owner = PostgresSession(configuration: try SharedServer.configuration())
            name = "read_only_\(Self.made.wrappingAdd(1, ordering: .relaxed).newValue)"
            _ = try owner.query("create database \(name)")
            configuration = try PostgresConfiguration(url: String(SharedServer.url().dropLast("postgres".count)) + name)
            try PostgresSession(configuration: configuration).execute(script: "create table t (n bigint)")
        }

        /// For sessions that begin from now on.
        func setReadOnly(_ isReadOnly: Bool) throws {
            _ = try owner.query("alter database \(name) set default_transaction_read_only = \(isReadOnly ? "on" : "off")")
        }
    }

    private func insert(_ session: PostgresSession) throws(PostgresError) { _ = try session.query("insert into t values (1)") }

    @Test func sessionWritesAgainAtOnceWhenTheDatabaseMayBeWritten() throws {
        let database = try Database()
        try database.setReadOnly(true)
        let sessions = (0..<2).map { _ in PostgresSession(configuration: database.configuration) }
        var opened: [Int] = []
        for session in sessions {
            let refused = #expect(throws: PostgresError.self) { try insert(session) }
            #expect(refused?.code == .server(sqlState: "25006") && refused?.isTransient == true && refused?.isOutcomeUnknown == false)
            #expect(try session.query("select count(*) from t").one().decode(0, as: Int64.self) == 0, "reads go on")
            // One, and one more for each rest that a busy machine has let pass meanwhile.
            opened.append(session.connectionsOpened)
        }
        try database.setReadOnly(false)
        // Whatever their age, each is replaced within its rest; a call that comes after it does not fail.
        let rest = WakeSignal()
        _ = rest.wait(for: PostgresSession.readOnlyRest)
        try insert(sessions[0])
        try sessions[1].transaction { _ = try $0.query("insert into t values (1)") }
        #expect(sessions.map(\.connectionsOpened) == opened.map { $0 + 1 })
        #expect(try sessions[0].query("select count(*) from t").one().decode(0, as: Int64.self) == 2)
    }

    @Test func oldSessionIsReplacedAndItsStatementSentOnceMore() throws {
        let database = try Database()
        try database.setReadOnly(true)
        let session = PostgresSession(configuration: database.configuration)
        _ = try session.query("select 1")
        try database.setReadOnly(false)
        _ = WakeSignal().wait(for: PostgresSession.readOnlyRest)
        try insert(session)
        #expect(session.connectionsOpened == 2)
        #expect(try session.query("select count(*) from t").one().decode(0, as: Int64.self) == 1)
    }

    @Test func databaseThatStaysReadOnlyCostsFewSessions() throws {
        let database = try Database()
        try database.setReadOnly(true)
        let session = PostgresSession(configuration: database.configuration)
        let began = ContinuousClock.now
        var refused = 0
        while refused < 200 {
            do throws(PostgresError) { try insert(session) } catch { refused += 1 }
        }
        let most = Int((ContinuousClock.now - began) / PostgresSession.readOnlyRest) + 2
        #expect(session.connectionsOpened <= most, "\(session.connectionsOpened) sessions for \(refused) refusals")
    }

    @Test func workerKnowsWhetherItCanWrite() async throws {
        let database = try Database()
        let news = Mutex<[Bool]>([])
        let worker = try PostgresWorker(configuration: database.configuration) { trouble, isNews in
            if isNews { news.withLock { $0.append(trouble == nil) } }
        }
        // Asked again: a busy machine may take longer for a new session than the answer may.
        #expect(try await eventually { await worker.troubleWriting() == nil })
        #expect(news.withLock { $0 } == [], "a session that works from the start is no news")
        try database.setReadOnly(true)
        try await worker.perform { session in
            session.close()
            for _ in 0..<3 { _ = #expect(throws: PostgresError.self) { try session.query("insert into t values (1)") } }
        }
        for _ in 0..<3 { #expect(await worker.troubleWriting()?.sqlState == "25006") }
        try database.setReadOnly(false)
        #expect(try await eventually { await worker.troubleWriting() == nil })
        #expect(news.withLock { $0 } == [false, true], "one line for each change")
        await worker.shutdown()
        #expect(await worker.troubleWriting()?.code == .shutDown)
    }

    @Test func workerThatIsBusyIsJudgedByWhatItDid() async throws {
        let server = try PrivatePostgres.start(fsync: false)
        defer { server.stop() }
        var configuration = try PostgresConfiguration(url: server.url)
        configuration.callTimeout = .seconds(60)
        configuration.statementTimeout = .seconds(60)
        let worker = try PostgresWorker(configuration: configuration)
        try await worker.perform { _ = try $0.query("select 1") }
        let (began, release) = (AsyncStream.makeStream(of: Void.self), WakeSignal())
        try worker.submit { session in
            _ = try? session.query("select 1")
            began.continuation.yield()
            release.wait()
        }
        for await _ in began.stream { break }
        #expect(await worker.troubleWriting(within: .milliseconds(50), rest: .seconds(3600)) == nil, "it has worked lately")
        #expect(await worker.troubleWriting(within: .zero, rest: .zero) != nil, "it has not")
        #expect(await worker.troubleWriting(within: .zero, rest: .zero) != nil, "one question at a time waits for it")
        release.signal()
        #expect(try await eventually { await worker.troubleWriting() == nil })
        server.pause()
        #expect(try await eventually { await worker.troubleWriting(within: .milliseconds(50), rest: .milliseconds(1)) != nil })
        server.resume()
        server.kill()
        #expect(try await eventually { await worker.troubleWriting()?.code == .connectFailed })
        try server.restart()
        #expect(try await eventually { await worker.troubleWriting() == nil })
        await worker.shutdown()
    }

    @Test func idleConnectionsOfAPoolAreClosed() async throws {
        let database = try Database()
        let count = "select count(*) from pg_stat_activity where application_name = 'idle-test'"
        let observer = try PostgresConnection(configuration: try SharedServer.configuration())
        var configuration = database.configuration
        configuration.applicationName = "idle-test"
        let pool = PostgresPool(configuration: configuration, maximumConnections: 3, idleTimeout: .milliseconds(300))
        try await pool.withConnection { one in
            try await pool.withConnection { two in
                _ = (try await one.query("select 1"), try await two.query("select 1"))
            }
            #expect(
                try await eventually { pool.snapshot() == .init(open: 1, busy: 1, waiting: 0, rejected: 0, expired: 0) },
                "one is busy, the other was idle"
            )
        }
        #expect(try await eventually { pool.snapshot().open == 0 })
        #expect(try await eventually { try await observer.query(count).one().decode(0, as: Int64.self) == 0 })
        #expect(try await pool.query("select 1").count == 1)
        pool.closeIdle()
        #expect(pool.snapshot().open == 0)
        await pool.shutdown()
    }
}
