import Eventually
import Synchronization
import Testing

@testable import MessageBroker

@Suite("News of the broker") struct BrokerNewsTests {
    private let away = ConnectionChange.failed(BrokerError(code: .connectFailed, message: "refused"))
    private let lost = ConnectionChange.failed(BrokerError(code: .connectionLost, message: "closed"))
    private let stopped = ConnectionChange.failed(BrokerError(code: .refused(replyCode: 320), message: "CONNECTION_FORCED"))
    private let password = ConnectionChange.failed(BrokerError(code: .authenticationFailed, message: "ACCESS_REFUSED"))
    private let rights = ConnectionChange.failed(BrokerError(code: .refused(replyCode: 403), message: "403"))
    private let other = ConnectionChange.failed(BrokerError(code: .topologyMismatch(name: "q"), message: "406"))

    private func told(_ ends: [String], _ changes: [(String, ConnectionChange)]) -> [BrokerNews.Item] {
        var news = BrokerNews(ends: ends)
        return changes.compactMap { news.heard($0.1, from: $0.0) }
    }

    @Test func aHealthyStartIsToldOnceAllAreThere() {
        #expect(told(["a", "b"], [("b", .connected)]) == [])
        #expect(told(["a", "b"], [("b", .connected), ("a", .connected)]) == [.connected(isBack: false)])
    }

    @Test func goingAndComingBackAreToldOnceEach() {
        let start: [(String, ConnectionChange)] = [("a", .connected), ("b", .connected)]
        // Of two connections one is told off, the other finds the socket closed; then both are refused again and again.
        let outage: [(String, ConnectionChange)] = [("a", stopped), ("b", lost), ("a", away), ("b", away), ("a", away), ("a", lost)]
        let back: [(String, ConnectionChange)] = [("b", .connected), ("a", .connected)]
        #expect(
            told(["a", "b"], start + outage + back + outage)
                == [.connected(isBack: false), .away(why: "CONNECTION_FORCED"), .connected(isBack: true), .away(why: "CONNECTION_FORCED")]
        )
    }

    @Test func eachRefusalIsToldWithItsOwnWords() {
        let changes: [(String, ConnectionChange)] = [
            ("a", away), ("b", away), ("a", password), ("b", password), ("a", password), ("a", rights), ("b", rights), ("b", other),
            ("b", other),
            ("a", .connected), ("b", .connected),
        ]
        #expect(
            told(["a", "b"], changes) == [
                .away(why: "refused"), .refused(why: "ACCESS_REFUSED"), .refused(why: "403"), .refused(why: "406"),
                .connected(isBack: true),
                .connected(isBack: true),
            ]
        )
    }

    @Test func oneThatStaysRefusedHidesNothingOfTheOthers() {
        let changes: [(String, ConnectionChange)] = [
            ("events", other), ("commands", .connected), ("commands", lost), ("events", other), ("commands", .connected),
        ]
        #expect(
            told(["commands", "events"], changes) == [
                .refused(why: "406"), .connected(isBack: false), .away(why: "closed"), .connected(isBack: true),
            ]
        )
    }

    @Test func theNodeIsToldWhenItIsAnotherOne() {
        let (one, two) = (BrokerAddress(host: "one", port: 1), BrokerAddress(host: "two", port: 2))
        let changes: [(String, ConnectionChange)] = [
            ("a", .reached(one)), ("a", .connected), ("b", .reached(two)), ("b", .connected),
            // The node of one connection goes away, and another one is there at once.
            ("a", .reached(two)), ("a", .connected), ("b", .reached(two)), ("b", .connected),
            // All of them go away, and come back.
            ("a", away), ("b", away), ("a", .reached(two)), ("a", .connected), ("b", .reached(one)), ("b", .connected),
        ]
        #expect(
            told(["a", "b"], changes) == [
                .node(one, end: "a"), .node(two, end: "b"), .connected(isBack: false), .node(two, end: "a"), .away(why: "refused"),
                .node(one, end: "b"), .connected(isBack: true),
            ]
        )
        let item = BrokerNews.Item.node(one, end: "commands")
        #expect(item.text == "the connection for commands leads to the broker's node at one:1" && item.why == nil && !item.isTrouble)
    }

    @Test func anAlarmIsToldOnce() {
        let changes: [(String, ConnectionChange)] = [
            ("a", .connected), ("b", .connected), ("a", .blocked(reason: "low on memory")), ("b", .blocked(reason: "low on memory")),
            ("b", .unblocked), ("a", .unblocked),
        ]
        #expect(told(["a", "b"], changes) == [.connected(isBack: false), .blocked(why: "low on memory"), .unblocked])
    }

    @Test func refusedMessagesAreToldWithTheirRoute() {
        let changes: [(String, ConnectionChange)] = [
            ("a", .connected), ("b", .connected), ("a", .refused(route: "e/k")), ("a", .taken(route: "e/k")), ("b", away),
        ]
        #expect(
            told(["a", "b"], changes)
                == [.connected(isBack: false), .messagesRefused(route: "e/k"), .messagesTaken(route: "e/k"), .away(why: "refused")]
        )
        #expect(
            BrokerNews.Item.messagesRefused(route: "e/k").isTrouble && BrokerNews.Item.messagesRefused(route: "e/k").text.contains("e/k")
        )
        #expect(!BrokerNews.Item.messagesTaken(route: "e/k").isTrouble)
    }

    /// A connection's thread reports to it, through the library's own failures.
    @Test(.timeLimit(.minutes(1))) func aConnectionThatIsRefusedTellsItOnce() async throws {
        let (items, told) = AsyncStream.makeStream(of: BrokerNews.Item.self)
        let journal = BrokerJournal(ends: ["only"]) { told.yield($0) }
        var configuration = try BrokerConfiguration(url: "amqp://u:hidden@127.0.0.1:1/")
        configuration.minimumBackoff = .milliseconds(1)
        configuration.maximumBackoff = .milliseconds(2)
        let publisher = try Publisher(configuration: configuration, topology: Topology(), onChange: journal.observer(of: "only"))
        try await eventually("five failed attempts") { publisher.snapshot().failedConnects >= 5 }
        await publisher.shutdown()
        told.finish()
        var all: [BrokerNews.Item] = []
        for await item in items { all.append(item) }
        #expect(all.count == 1)
        #expect(
            all.first?.isTrouble == true && all.first?.why?.contains("u@127.0.0.1:1") == true && all.first?.why?.contains("hidden") == false
        )
    }
}
