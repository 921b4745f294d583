import Eventually
import PrivateServers
import Testing

@testable import PostgresClient

/// A commit that is given up while it waits for a synchronous standby leaves no process behind at the server.
@Suite(.serialized, .timeLimit(.minutes(5))) struct AbandonedWaitsTests {
    private static let waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'"

    @Test func commitsThatAreGivenUpLeaveNoProcessBehind() async throws {
        let pair = try await SynchronousPair.start()
        defer { pair.stop() }
        let (standby, admin) = (pair.standby, pair.admin)
        let configuration = try PostgresConfiguration(url: pair.plainURL)
        let writer = try PostgresConnection(configuration: configuration)
        #expect(try await writer.query("insert into t values (0)", timeout: .seconds(60)).rowsAffected == 1)
        standby.pause()
        let attempts = 24
        var most: Int64 = 0
        var sent = 0
        for n in 1...Int64(attempts) {
            let error = await #expect(throws: PostgresError.self) {
                try await writer.query("insert into t values ($1)", [.int(n)], timeout: .milliseconds(300))
            }
            // On a busy machine the call may be over before the connection is open, or before anything is sent.
            #expect(
                error.map { [.timedOut(outcomeUnknown: true), .timedOut(outcomeUnknown: false), .connectFailed].contains($0.code) } == true,
                "\(String(describing: error))"
            )
            if error?.code == .timedOut(outcomeUnknown: true) { sent += 1 }
            most = max(most, try admin.query(Self.waiting).one().decode(0))
        }
        #expect(sent > 0, "no commit was given up after it was sent")
        #expect(most < 12, "\(most) processes waited at once for \(attempts) commits that were given up")
        #expect(try await eventually { try admin.query(Self.waiting).one().decode(0, as: Int64.self) == 0 })
        let (ended, dropped) = configuration.hosts.abandonedWaits
        #expect(ended > 0, "ended \(ended), dropped \(dropped)")
        // What was given up is committed at the server, and stays unknown to whoever sent it.
        #expect(try admin.query("select from t").count > 1)
        standby.resume()
        // A session that is served has its own wait left alone.
        #expect(try await writer.query("insert into t values (100)", timeout: .seconds(60)).rowsAffected == 1)
    }

    /// At the bound, and where the server cannot be asked, processes are counted and left alone; the session does not wait for that.
    @Test func whatCannotBeEndedIsCounted() async throws {
        let server = try PrivatePostgres.start(fsync: false)
        let configuration = try PostgresConfiguration(url: server.url)
        // A process that there is not has ended already.
        configuration.hosts.abandoned(999_999_999, at: 0, of: configuration)
        #expect(try await eventually { configuration.hosts.abandonedWaits == (1, 0) })
        server.stop()
        let began = ContinuousClock.now
        for process in 0..<Int64(AbandonedWaits.capacity * 3) {
            configuration.hosts.abandoned(1_000_000_000 + process, at: 0, of: configuration)
        }
        #expect(ContinuousClock.now - began < .seconds(20))
        #expect(try await eventually { configuration.hosts.abandonedWaits.dropped == AbandonedWaits.capacity * 3 })
        #expect(configuration.hosts.abandonedWaits.ended == 1)
    }
}
