import Eventually
import PrivateServers
import Testing

@testable import PostgresClient

/// What a server says besides its answers, and what its farewell does to a call.
@Suite(.timeLimit(.minutes(5))) struct NoticeTests {
    /// A server's warning in another language has the place in its source, and nothing else, in common with the English one.
    @Test func theWarningIsKnownInEveryLanguage() {
        let german = Notice(
            severity: "WARNING",
            sqlState: "01000",
            message: "storniere Warten auf synchrone Replikation wegen Benutzeraufforderung",
            file: "syncrep.c",
            function: "SyncRepWaitForLSN"
        )
        #expect(german.isUnreplicatedCommit && !german.isFarewell)
        let ending = Notice(severity: "WARNING", sqlState: "57P01", message: "…", file: nil, function: "SyncRepWaitForLSN")
        #expect(ending.isUnreplicatedCommit)
        // A proxy may leave the places out.
        let bare = Notice(severity: "WARNING", sqlState: "01000", message: "canceling wait for synchronous replication due to user request")
        #expect(bare.isUnreplicatedCommit)
        #expect(
            !Notice(severity: "WARNING", sqlState: "01000", message: "there is no transaction in progress", file: "xact.c")
                .isUnreplicatedCommit
        )
        #expect(
            !Notice(severity: "LOG", sqlState: "00000", message: "standby is now a synchronous standby", file: "syncrep.c")
                .isUnreplicatedCommit
        )
        #expect(Notice(severity: "FATAL", sqlState: "57P01").isFarewell)
        #expect(!Notice().isFarewell && !Notice().isUnreplicatedCommit)
    }

    private static let warning = ScriptedServer.report(
        "N",
        [("S", "WARNUNG"), ("V", "WARNING"), ("C", "01000"), ("M", "…"), ("F", "syncrep.c"), ("L", "300"), ("R", "SyncRepWaitForLSN")]
    )

    @Test func anUnreplicatedCommitIsUnknownAndTheSessionGoesOn() throws {
        let server = try ScriptedServer { $0.contains("lonely") ? [Self.warning, ScriptedServer.complete] : [ScriptedServer.complete] }
        defer { server.stop() }
        let session = PostgresSession(
            configuration: try PostgresConfiguration(url: "postgresql://u@127.0.0.1:\(server.port)/d?sslmode=disable")
        )
        let error = #expect(throws: PostgresError.self) { try session.execute(script: "lonely") }
        #expect(error?.code == .notReplicated && error?.isOutcomeUnknown == true && error?.isTransient == true)
        // The next statement is not blamed for it.
        try session.execute(script: "fine")
        #expect(session.connectionsOpened == 1)
    }

    /// The server, or a pooler before it, says that the session ends, and leaves the connection open.
    @Test(arguments: ["57P01", "57P02", "57P03"])
    func aFarewellClosesTheSession(state: String) throws {
        let farewell = ScriptedServer.report("E", [("S", "FATAL"), ("V", "FATAL"), ("C", state), ("M", "farewell")])
        let server = try ScriptedServer { $0.contains("last") ? [farewell] : [ScriptedServer.complete] }
        defer { server.stop() }
        let session = PostgresSession(
            configuration: try PostgresConfiguration(url: "postgresql://u@127.0.0.1:\(server.port)/d?sslmode=disable")
        )
        try session.execute(script: "first")
        let error = #expect(throws: PostgresError.self) { try session.execute(script: "last") }
        #expect(error?.code == .connectionLost(outcomeUnknown: true) && error?.sqlState == state)
        #expect(!session.isConnected)
        try session.execute(script: "next")
        #expect(session.connectionsOpened == 2)
    }

    @Test(arguments: [PostgresConfiguration.Pooler.none, .transaction])
    func aRealServersFarewells(pooler: PostgresConfiguration.Pooler) throws {
        let server = try PrivatePostgres.start(fsync: false)
        defer { server.stop() }
        var configuration = try PostgresConfiguration(url: server.url)
        try configuration.use(pooler)
        configuration.callTimeout = .seconds(90)
        configuration.statementTimeout = .zero
        let session = PostgresSession(configuration: configuration)
        // It ends its own session in the middle of its call.
        let ended = #expect(throws: PostgresError.self) {
            try session.query("select pg_terminate_backend(pg_backend_pid()), pg_sleep(60)")
        }
        #expect(ended?.code == .connectionLost(outcomeUnknown: true) && ended?.sqlState == "57P01")
        #expect(try session.query("select 1").count == 1)
        // Inside of a transaction nothing was committed.
        let inside = #expect(throws: PostgresError.self) {
            try session.transaction { _ = try $0.query("select pg_terminate_backend(pg_backend_pid()), pg_sleep(60)") }
        }
        #expect(inside?.isOutcomeUnknown == false)
        #expect(try session.query("select 1").count == 1)
    }

    /// With the setting for a pooler the statement, what begins its transaction and the COMMIT leave together, and the warning comes with the COMMIT's answer.
    @Test(arguments: [PostgresConfiguration.Pooler.none, .transaction])
    func aCancelledWaitForTheStandbyIsUnknown(pooler: PostgresConfiguration.Pooler) async throws {
        let primary = try PrivatePostgres.start(fsync: false)
        defer { primary.stop() }
        let standby = try PrivatePostgres.startStandby(of: primary, name: "second")
        defer { standby.stop() }
        var configuration = try PostgresConfiguration(url: primary.url)
        configuration.callTimeout = .seconds(90)
        configuration.statementTimeout = .zero
        let admin = PostgresSession(configuration: configuration)
        try admin.execute(script: "create table t (n bigint unique)")
        try admin.execute(script: "alter system set synchronous_standby_names = 'second'")
        _ = try admin.query("select pg_reload_conf()")
        #expect(try await eventually { try admin.query("select from pg_stat_replication where sync_state = 'sync'").count == 1 })
        // Commits wait once the checkpointer has read the setting, which it has done when it has taken a checkpoint.
        try admin.execute(script: "checkpoint")
        var written = configuration
        try written.use(pooler)
        let writer = try PostgresConnection(configuration: written)
        try await writer.connect()
        _ = try await writer.query("insert into t values (1)")
        standby.pause()
        async let outcome: PostgresError? = {
            do throws(PostgresError) {
                _ = try await writer.query("insert into t values (2)")
                return nil
            } catch { return error }
        }()
        let waiting = "select pid from pg_stat_activity where wait_event = 'SyncRep'"
        #expect(try await eventually { try admin.query(waiting).count == 1 }, "a commit waits for the standby")
        _ = try admin.query("select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'")
        let error = await outcome
        #expect(error?.code == .notReplicated)
        #expect(try admin.query("select from t where n = 2").count == 1, "it can be seen, though the standby lacks it")
        standby.resume()
        _ = try await writer.query("insert into t values (3)")
        #expect(await writer.connectionsOpened == 1)
    }
}
