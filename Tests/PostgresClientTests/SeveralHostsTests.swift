import PrivateServers
import Synchronization
import Testing

@testable import PostgresClient

/// Several hosts in one address: each has its own bound, and only one that may write is taken.
@Suite(.timeLimit(.minutes(5))) struct SeveralHostsTests {
    private func configuration(_ ports: [Int], _ query: String = "", connect: Duration = .seconds(20)) throws -> PostgresConfiguration {
        let hosts = ports.map { "127.0.0.1:\($0)" }.joined(separator: ",")
        var configuration = try PostgresConfiguration(url: "postgresql://postgres@\(hosts)/postgres\(query)")
        configuration.connectTimeout = connect
        configuration.callTimeout = .seconds(120)
        return configuration
    }

    @Test func aSilentHostCostsItsOwnBoundAndOnlyOnce() throws {
        // A host whose server hangs.
        let silent = try LoopbackServer()
        defer { silent.stop() }
        let configuration = try configuration([silent.port, SharedServer.port()], connect: .seconds(3))
        let news = Mutex<[PostgresHosts.Change]>([])
        configuration.hosts.onChange { change in news.withLock { $0.append(change) } }
        let began = ContinuousClock.now
        let first = PostgresSession(configuration: configuration)
        #expect(try first.query("select 1").count == 1)
        #expect(ContinuousClock.now - began >= .milliseconds(2900), "the silent host was tried")
        #expect(configuration.hosts.snapshot().map(\.isCurrent) == [false, true])
        #expect(configuration.hosts.snapshot().map(\.failures) == [1, 0])
        // The copies of a configuration share what they have met.
        var copy = configuration
        copy.applicationName = "second"
        for _ in 0..<3 { #expect(try PostgresSession(configuration: copy).query("select 1").count == 1) }
        #expect(configuration.hosts.snapshot().map(\.failures) == [1, 0], "nobody waits for it again")
        #expect(news.withLock { $0.map(\.host) } == ["127.0.0.1:\(try SharedServer.port())"], "one line for a change")
    }

    /// Of a call's time no host gets more than its share, so that the last one is tried as well.
    @Test func theCallsTimeIsShared() throws {
        let silent = (try LoopbackServer(), try LoopbackServer())
        defer {
            silent.0.stop()
            silent.1.stop()
        }
        let configuration = try configuration([silent.0.port, silent.1.port, SharedServer.port()])
        let session = PostgresSession(configuration: configuration)
        #expect(try session.query("select 1", timeout: .seconds(12)).count == 1)
        #expect(configuration.hosts.snapshot().map(\.failures) == [1, 1, 0])
    }

    @Test func aHostThatRefusesIsTriedLast() throws {
        // Nobody listens at port 1; another test's server may be given the port of one that has stopped.
        let configuration = try configuration([1, SharedServer.port()])
        for _ in 0..<3 { #expect(try PostgresSession(configuration: configuration).query("select 1").count == 1) }
        #expect(configuration.hosts.snapshot().map(\.failures) == [1, 0])
        #expect(configuration.hosts.snapshot()[0].trouble?.isEmpty == false)
    }

    @Test func aStandbyThatComesFirstIsPassedOver() throws {
        let primary = try PrivatePostgres.start(fsync: false)
        defer { primary.stop() }
        let standby = try PrivatePostgres.startStandby(of: primary, name: "second")
        defer { standby.stop() }
        let ports = [standby.port, primary.port]
        let inRecovery = "select pg_is_in_recovery()"
        let writing = try configuration(ports)
        let session = PostgresSession(configuration: writing)
        #expect(try !session.query(inRecovery).one().decode(0, as: Bool.self))
        #expect(writing.hosts.snapshot().map(\.failures) == [1, 0])
        let any = PostgresSession(configuration: try configuration(ports, "?target_session_attrs=any"))
        #expect(try any.query(inRecovery).one().decode(0, as: Bool.self), "the address says otherwise")
        // The primary dies and the standby takes over: the next session is opened there, and so is the one of a thread that was connected.
        primary.kill()
        var promoting = try PostgresConfiguration(url: standby.url)
        promoting.statementTimeout = .zero
        let admin = PostgresSession(configuration: promoting)
        _ = try admin.query("select pg_promote(true, 60)", timeout: .seconds(90))
        _ = try? session.query("select 1")
        #expect(try !session.query(inRecovery).one().decode(0, as: Bool.self))
        #expect(writing.hosts.snapshot().map(\.isCurrent) == [true, false])
        try session.execute(script: "create table t (n bigint)")
    }

    /// Where every host fails, the error names each; it may pass if one of them may.
    @Test func whatIsToldWhenEveryHostFails() {
        func error(_ words: String, _ state: String? = nil) -> PostgresError {
            .init(code: .connectFailed, message: words, sqlState: state)
        }
        let both = PostgresSession.failure([("a:1", error("refused")), ("b:2", error("starting", "57P03"))])
        #expect(both.message == "a:1: refused; b:2: starting" && both.isNotThereYet)
        let one = PostgresSession.failure([("a:1", error("authentication failed", "28P01")), ("b:2", error("refused"))])
        #expect(one.message == "b:2: refused" && one.isNotThereYet && one.sqlState == nil)
        let none = PostgresSession.failure([("a:1", error("authentication failed", "28P01")), ("b:2", error("no", "3D000"))])
        #expect(!none.isNotThereYet && none.message == "a:1: authentication failed; b:2: no")
        #expect(PostgresSession.failure([("a:1", error("refused"))]).message == "refused")
    }

    @Test(
        arguments: [
            ("postgresql://u@a:1,b:2/d", ["a:1", "b:2"]), ("postgresql://u@a,b:2/d", ["a", "b:2"]),
            ("host=a,b port=5432 dbname=d", ["a:5432", "b:5432"]), ("host=a,b hostaddr=10.0.0.1,10.0.0.2 port=1,2", ["a:1", "b:2"]),
            ("hostaddr=10.0.0.1,10.0.0.2", ["10.0.0.1", "10.0.0.2"]), ("host=/run/a,/run/b", ["/run/a", "/run/b"]),
            ("dbname=d", ["(default)"]),
        ]
    )
    func hostsOfAnAddress(url: String, names: [String]) throws {
        let configuration = try PostgresConfiguration(url: url)
        #expect(configuration.hosts.snapshot().map(\.name) == names)
        let attributes = configuration.connectionSettings.first { $0.keyword == "target_session_attrs" }?.value
        #expect(attributes == (names.count > 1 ? "read-write" : nil))
        guard names.count > 1 else { return }
        for index in names.indices {
            let settings = configuration.connectionSettings(host: index)
            #expect(Set(settings.map(\.keyword)).count == settings.count)
            #expect(!settings.contains { ["host", "hostaddr", "port"].contains($0.keyword) && $0.value.contains(",") })
        }
    }

    @Test(
        arguments: [
            "host=a,b,c port=1,2 password=hidden", "host=a,b hostaddr=10.0.0.1 password=hidden", "hostaddr=10.0.0.1 port=1,2",
            "host=" + Array(repeating: "h", count: 17).joined(separator: ","),
        ]
    )
    func hostsThatDoNotGoTogetherAreRefused(url: String) {
        let error = #expect(throws: PostgresError.self) { try PostgresConfiguration(url: url) }
        #expect(error?.code == .invalidConfiguration && error?.description.contains("hidden") == false)
    }
}
