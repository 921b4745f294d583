import PrivateServers
import Synchronization
import Testing

@testable import PostgresClient

@Suite(.timeLimit(.minutes(5))) struct HistoryTests {
    private func history(_ system: String?, _ timeline: UInt32?, _ database: UInt32? = 5) -> PostgresHistory {
        PostgresHistory(system: system, timeline: timeline, database: database)
    }

    private func expect(
        _ watch: inout PostgresHistoryWatch,
        opened new: PostgresHistory,
        at position: UInt64? = nil,
        since mark: PostgresHistoryWatch.Mark? = nil,
        is expected: PostgresHistoryWatch.News
    ) {
        let news = watch.opened(new, at: position, since: mark ?? watch.mark)
        #expect(news == expected)
    }

    @Test func theFirstHistoryAndTheSameAgainAreNoNews() {
        var watch = PostgresHistoryWatch()
        expect(&watch, opened: history("7", 1), is: .none)
        expect(&watch, opened: history("7", 1), is: .none)
        #expect(watch.current == history("7", 1))
    }

    @Test func aPromotionAndAnotherSystemAreChanges() {
        var watch = PostgresHistoryWatch()
        expect(&watch, opened: history("7", 1), is: .none)
        expect(&watch, opened: history("7", 2), is: .changed(from: history("7", 1)))
        expect(&watch, opened: history("8", 1), is: .changed(from: history("7", 2)))
        #expect(watch.current == history("8", 1))
    }

    @Test func aServerThatWasReplacedIsNotUsed() {
        var watch = PostgresHistoryWatch()
        expect(&watch, opened: history("7", 1), is: .none)
        expect(&watch, opened: history("7", 3), is: .changed(from: history("7", 1)))
        expect(&watch, opened: history("7", 1), is: .outdated(by: history("7", 3)))
        expect(&watch, opened: history("7", 2), is: .outdated(by: history("7", 3)))
        #expect(watch.current == history("7", 3))
        expect(&watch, opened: history("7", 3), is: .none)
    }

    @Test func whatTheRoleMayNotAskForIsNoChange() {
        var watch = PostgresHistoryWatch()
        expect(&watch, opened: history(nil, 1), is: .none)
        expect(&watch, opened: history("7", nil), is: .none)
        #expect(watch.current == history("7", 1))
        expect(&watch, opened: history(nil, nil), is: .none)
        expect(&watch, opened: history(nil, 2), is: .changed(from: history("7", 1)))
        expect(&watch, opened: history(nil, 1), is: .outdated(by: history("7", 2)))
        expect(&watch, opened: history("8", nil), is: .changed(from: history("7", 2)))
    }

    @Test func aDatabaseThatWasMadeAnewIsAChange() {
        var watch = PostgresHistoryWatch()
        expect(&watch, opened: history("7", 1, 5), is: .none)
        expect(&watch, opened: history("7", 1, 6), is: .changed(from: history("7", 1, 5)))
        expect(&watch, opened: history("7", 1, nil), is: .none)
        #expect(watch.current == history("7", 1, 6))
    }

    /// A copy of the server's files that is put in its place has the same timeline and a shorter log.
    @Test func aLogThatIsShorterThanBeforeIsAChange() {
        var watch = PostgresHistoryWatch()
        expect(&watch, opened: history("7", 1), at: 1000, is: .none)
        expect(&watch, opened: history("7", 1), at: 1000, is: .none)
        expect(&watch, opened: history("7", 1), at: 2000, is: .none)
        expect(&watch, opened: history("7", 1), at: nil, is: .none)
        expect(&watch, opened: history("7", 1), at: 1999, is: .changed(from: history("7", 1)))
        expect(&watch, opened: history("7", 1), at: 1999, is: .none)
        // A promoted standby's log may be shorter, which is told once: by the timeline.
        expect(&watch, opened: history("7", 2), at: 1500, is: .changed(from: history("7", 1)))
        expect(&watch, opened: history("7", 2), at: 1600, is: .none)
    }

    /// The log grows while a session waits for what its server says, and others are told more meanwhile.
    @Test func anAnswerThatComesLateIsNoShorterLog() {
        var watch = PostgresHistoryWatch()
        expect(&watch, opened: history("7", 1), at: 1000, is: .none)
        let early = watch.mark
        expect(&watch, opened: history("7", 1), at: 3000, is: .none)
        expect(&watch, opened: history("7", 1), at: 1500, since: early, is: .none)
        // What was known of one history says nothing of the next.
        let before = watch.mark
        expect(&watch, opened: history("7", 2), at: 500, is: .changed(from: history("7", 1)))
        expect(&watch, opened: history("7", 2), at: 600, since: before, is: .none)
    }

    /// A standby is promoted while the primary goes on: for a moment there are two.
    @Test func sessionsLeaveThePrimaryThatWasReplaced() throws {
        let primary = try PrivatePostgres.start(fsync: false)
        defer { primary.stop() }
        let standby = try PrivatePostgres.startStandby(of: primary, name: "second")
        defer { standby.stop() }
        let hosts = [primary.port, standby.port].map { "127.0.0.1:\($0)" }.joined(separator: ",")
        let configuration = try PostgresConfiguration(url: "postgresql://postgres@\(hosts)/postgres")
        let changes = Mutex<[PostgresHosts.HistoryChange]>([])
        configuration.hosts.watchHistory { change in changes.withLock { $0.append(change) } }
        let (lane, other) = (PostgresSession(configuration: configuration), PostgresSession(configuration: configuration))
        let timeline = "select ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int"
        #expect(try lane.query(timeline).one().decode(0, as: Int64.self) == 1)
        #expect(try other.query(timeline).one().decode(0, as: Int64.self) == 1)
        let first = try #require(configuration.hosts.history)
        #expect(first.timeline == 1 && first.system?.isEmpty == false && first.database != nil)
        _ = try PostgresSession(configuration: try PostgresConfiguration(url: standby.url))
            .query("select pg_promote(true, 60)", timeout: .seconds(90))
        // Both go on for as long as nobody has seen the new one.
        #expect(try lane.query(timeline).one().decode(0, as: Int64.self) == 1)
        configuration.hosts.failed(0, "this test says so")
        let third = PostgresSession(configuration: configuration)
        #expect(try third.query(timeline).one().decode(0, as: Int64.self) == 2)
        #expect(changes.withLock { $0 } == [.init(now: .init(system: first.system, timeline: 2, database: first.database), before: first)])
        // The old primary still takes statements: nobody sends it any more.
        #expect(try lane.query(timeline).one().decode(0, as: Int64.self) == 2)
        #expect(try other.transaction { try $0.query(timeline).one().decode(0, as: Int64.self) } == 2)
        #expect([lane, other, third].map(\.connectionsOpened) == [2, 2, 1])
        configuration.hosts.failed(1, "this test says so")
        let fourth = PostgresSession(configuration: configuration)
        #expect(try fourth.query(timeline).one().decode(0, as: Int64.self) == 2, "the replaced one is tried, and passed over")
        #expect(configuration.hosts.snapshot()[0].trouble?.contains("replaced") == true)
        #expect(changes.withLock { $0.count } == 1)
    }

    /// A role that may not ask for the system's identifier still learns the timeline; one that may ask for neither learns nothing, and works.
    @Test func whatThePlainRoleLearns() throws {
        let server = try PrivatePostgres.start(fsync: false)
        defer { server.stop() }
        let admin = PostgresSession(configuration: try PostgresConfiguration(url: server.url))
        try admin.execute(script: "create role plain login")
        func learnt() throws -> PostgresHistory? {
            let configuration = try PostgresConfiguration(url: "postgresql://plain@127.0.0.1:\(server.port)/postgres")
            configuration.hosts.watchHistory { _ in }
            let session = PostgresSession(configuration: configuration)
            #expect(try session.query("select 1").count == 1)
            #expect(session.connectionsOpened == 1)
            return configuration.hosts.history
        }
        #expect(try learnt()?.timeline == 1)
        #expect(try learnt()?.system?.isEmpty == false)
        let database = try learnt()?.database
        #expect(database != nil)
        try admin.execute(script: "revoke execute on function pg_control_system() from public")
        #expect(try learnt() == history(nil, 1, database))
        try admin.execute(script: "revoke execute on function pg_walfile_name(pg_lsn) from public")
        #expect(try learnt() == history(nil, nil, database))
    }

    /// A database that is dropped and restored, and a server that is put back to a copy of its files, are other histories at the same address.
    @Test func restoredDataAreAnotherHistory() throws {
        let server = try PrivatePostgres.start(fsync: false)
        defer { server.stop() }
        try PostgresSession(configuration: try PostgresConfiguration(url: server.url)).execute(script: "create database shop")
        let configuration = try PostgresConfiguration(url: "postgresql://postgres@127.0.0.1:\(server.port)/shop")
        let changes = Mutex(0)
        configuration.hosts.watchHistory { _ in changes.withLock { $0 += 1 } }
        let session = PostgresSession(configuration: configuration)
        try session.execute(script: "create table t (x int); insert into t values (1)")
        let dump = try server.dump("shop")
        // A server that is killed and started again is the same history.
        server.kill()
        try server.restart()
        session.close()
        #expect(try session.query("select x from t").count == 1)
        #expect(changes.withLock { $0 } == 0)
        try server.restore("shop", from: dump)
        session.close()
        #expect(try session.query("select x from t").count == 1)
        #expect(changes.withLock { $0 } == 1)
        try server.putBack(after: {
            try session.execute(script: "insert into t select generate_series(2, 2000)")
            session.close()
            #expect(try session.query("select x from t").count == 2000)
        })
        session.close()
        #expect(try session.query("select x from t").count == 1)
        #expect(changes.withLock { $0 } == 2)
    }
}
