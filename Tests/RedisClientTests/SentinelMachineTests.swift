import NIOCore
import NIOEmbedded
import Testing

@testable import RedisClient

private func at(_ milliseconds: Int64) -> NIODeadline { .uptimeNanoseconds(0) + .milliseconds(milliseconds) }
private func server(_ port: Int) -> RedisEndpoint { RedisEndpoint(host: "10.0.0.1", port: port) }
private func named(_ port: Int, by sentinel: Int, epoch: Int64? = nil) -> MasterSearch.Master {
    MasterSearch.Master(endpoint: server(port), saidBy: sentinel, epoch: epoch)
}

@Suite struct MasterSearchTests {
    private func search(_ count: Int = 3, inUse: MasterSearch.Master? = nil) -> MasterSearch {
        MasterSearch(order: Array(0..<count), inUse: inUse, ends: at(1000))
    }

    @Test func theFirstMasterThatSaysSoItself() {
        var search = self.search()
        #expect(search.begin(now: at(0)) == .ask(sentinel: 0))
        #expect(search.answered(0, .named(server(1), epoch: 4), now: at(1)) == .checkRole(named(1, by: 0, epoch: 4)))
        #expect(search.checked(named(1, by: 0, epoch: 4), .master, now: at(2)) == .found(named(1, by: 0, epoch: 4)))
    }

    @Test func whoFailsOrKnowsNothingIsFollowedByTheNext() {
        var search = self.search()
        _ = search.begin(now: at(0))
        #expect(search.answered(0, .failed("refused"), now: at(1)) == .ask(sentinel: 1))
        #expect(search.answered(1, .unknown, now: at(2)) == .ask(sentinel: 2))
        #expect(search.answered(2, .named(server(1), epoch: nil), now: at(3)) == .checkRole(named(1, by: 2)))
        #expect(search.troubles == [0: "refused", 1: "it knows no master of this name"])
    }

    /// Two sentinels name a replica: it is asked for its role once. The third names the master.
    @Test func aReplicaIsNotUsedAndNotAskedTwice() {
        var search = self.search()
        _ = search.begin(now: at(0))
        #expect(search.answered(0, .named(server(1), epoch: 1), now: at(1)) == .checkRole(named(1, by: 0, epoch: 1)))
        #expect(search.checked(named(1, by: 0, epoch: 1), .other("replica (sync)"), now: at(2)) == .ask(sentinel: 1))
        #expect(search.answered(1, .named(server(1), epoch: 1), now: at(3)) == .ask(sentinel: 2))
        #expect(search.answered(2, .named(server(2), epoch: 1), now: at(4)) == .checkRole(named(2, by: 2, epoch: 1)))
        #expect(search.troubles[0] == "it names 10.0.0.1:1, which says that it is a replica (sync)")
    }

    @Test func nobodyKnows() {
        var search = self.search(2)
        _ = search.begin(now: at(0))
        _ = search.answered(0, .failed("refused"), now: at(1))
        _ = search.answered(1, .named(server(1), epoch: nil), now: at(1))
        #expect(search.checked(named(1, by: 1), .failed("silent"), now: at(2)) == .failed)
        #expect(search.troubles[1] == "it names 10.0.0.1:1, which cannot be asked: silent")
    }

    /// No question begins behind the end.
    @Test func theTimeIsBounded() {
        for time in [Int64(999), 1000] {
            var search = self.search()
            _ = search.begin(now: at(0))
            let next = search.answered(0, .failed("silent"), now: at(time))
            #expect(next == (time < 1000 ? .ask(sentinel: 1) : .failed))
            var other = self.search()
            _ = other.begin(now: at(0))
            let role = other.answered(0, .named(server(1), epoch: nil), now: at(time))
            #expect(role == (time < 1000 ? .checkRole(named(1, by: 0)) : .failed))
        }
    }

    /// A sentinel that is cut off names the master of an older epoch, which says itself that it is one.
    @Test func anOlderConfigurationIsPutAside() {
        var search = self.search(inUse: named(2, by: 1, epoch: 5))
        _ = search.begin(now: at(0))
        #expect(search.answered(0, .named(server(1), epoch: 4), now: at(1)) == .ask(sentinel: 1))
        #expect(search.answered(1, .named(server(2), epoch: 5), now: at(2)) == .checkRole(named(2, by: 1, epoch: 5)))
    }

    @Test func anOlderConfigurationAloneIsNotUsed() {
        var search = self.search(inUse: named(2, by: 1, epoch: 5))
        _ = search.begin(now: at(0))
        _ = search.answered(0, .named(server(1), epoch: 4), now: at(1))
        #expect(search.answered(1, .failed("refused"), now: at(2)) == .ask(sentinel: 2))
        #expect(search.answered(2, .failed("refused"), now: at(3)) == .failed, "one of three is no majority")
    }

    /// The sentinels were set up anew, and count from the beginning: the newest that more than half of them leave is used.
    @Test func theSentinelsWereSetUpAnew() {
        var search = self.search(inUse: named(2, by: 1, epoch: 5))
        _ = search.begin(now: at(0))
        _ = search.answered(0, .named(server(3), epoch: 1), now: at(1))
        _ = search.answered(1, .named(server(4), epoch: 0), now: at(2))
        #expect(search.answered(2, .failed("refused"), now: at(3)) == .checkRole(named(3, by: 0, epoch: 1)))
        #expect(search.checked(named(3, by: 0, epoch: 1), .failed("silent"), now: at(4)) == .checkRole(named(4, by: 1, epoch: 0)))
    }

    /// Two names of one server, or two servers, under one epoch: the one in use stays.
    @Test func anotherServerUnderTheSameEpochIsPutAside() {
        var search = self.search(inUse: named(2, by: 1, epoch: 5))
        _ = search.begin(now: at(0))
        #expect(search.answered(0, .named(server(1), epoch: 5), now: at(1)) == .ask(sentinel: 1))
        #expect(search.answered(1, .named(server(2), epoch: 5), now: at(1)) == .checkRole(named(2, by: 1, epoch: 5)))
        var newer = self.search(inUse: named(2, by: 1, epoch: 5))
        _ = newer.begin(now: at(0))
        #expect(newer.answered(0, .named(server(1), epoch: 6), now: at(1)) == .checkRole(named(1, by: 0, epoch: 6)))
    }

    @Test func orders() {
        var generator = Fixed()
        for first in [nil, 0, 3] {
            let order = MasterSearch.order(count: 4, first: first, failed: [1, 3], using: &generator)
            #expect(order.sorted() == [0, 1, 2, 3])
            if let first { #expect(order.first == first) }
            let others = order.filter { $0 != first }
            let isFailed = others.map { [1, 3].contains($0) }
            #expect(isFailed == isFailed.sorted { !$0 && $1 }, "those that failed come last: \(order)")
        }
        // Different servers begin with different sentinels.
        var random = SystemRandomNumberGenerator()
        let firsts = Set((0..<200).map { _ in MasterSearch.order(count: 3, first: nil, failed: [], using: &random)[0] })
        #expect(firsts == [0, 1, 2])
    }
}

@Suite struct MasterKnowledgeTests {
    private typealias MasterKnowledge = SharedAnswer<MasterSearch.Master>

    private let master = named(1, by: 0, epoch: 1)

    private func knowing() -> MasterKnowledge {
        var knowledge = MasterKnowledge(age: .milliseconds(250), pause: .milliseconds(50))
        #expect(knowledge.wanted(now: at(0)) == .search(after: .zero))
        knowledge.began(now: at(0))
        #expect(knowledge.found(master, now: at(10)) == .deliver(isNews: true))
        return knowledge
    }

    @Test func oneSearchForAllWhoWait() {
        var knowledge = MasterKnowledge(age: .milliseconds(250), pause: .milliseconds(50))
        #expect(knowledge.wanted(now: at(0)) == .search(after: .zero))
        #expect(knowledge.wanted(now: at(0)) == .wait)
        knowledge.began(now: at(0))
        #expect(knowledge.wanted(now: at(5)) == .wait)
    }

    @Test func anAnswerServesForItsAge() {
        var knowledge = knowing()
        #expect(knowledge.wanted(now: at(259)) == .use(master))
        #expect(knowledge.wanted(now: at(260)) == .search(after: .zero))
    }

    @Test func aFailureServesForItsAgeToo() {
        var knowledge = knowing()
        _ = knowledge.wanted(now: at(300))
        knowledge.began(now: at(300))
        #expect(knowledge.failed("nobody", now: at(310)) == .deliver(isNews: true))
        #expect(knowledge.wanted(now: at(320)) == .fail("nobody"))
        #expect(knowledge.finding == master, "what was found stays known")
        #expect(knowledge.wanted(now: at(560)) == .search(after: .zero))
        knowledge.began(now: at(560))
        #expect(knowledge.failed("nobody", now: at(570)) == .deliver(isNews: false), "the same words are told once")
        _ = knowledge.wanted(now: at(900))
        knowledge.began(now: at(900))
        #expect(knowledge.found(master, now: at(910)) == .deliver(isNews: true), "the same master is news after trouble")
        _ = knowledge.wanted(now: at(1200))
        knowledge.began(now: at(1200))
        #expect(knowledge.found(master, now: at(1210)) == .deliver(isNews: false))
        _ = knowledge.wanted(now: at(1500))
        knowledge.began(now: at(1500))
        #expect(knowledge.found(named(2, by: 0), now: at(1510)) == .deliver(isNews: true))
    }

    /// Doubts make an answer stale, and searches begin at least a pause apart however many come.
    @Test func aDoubt() {
        var knowledge = knowing()
        #expect(knowledge.doubted(now: at(20)) == .milliseconds(30))
        #expect(knowledge.doubted(now: at(21)) == nil)
        #expect(knowledge.wanted(now: at(22)) == .wait)
        knowledge.began(now: at(50))
        #expect(knowledge.found(master, now: at(60)) == .deliver(isNews: false))
        #expect(knowledge.wanted(now: at(61)) == .use(master))
        #expect(knowledge.doubted(now: at(200)) == .zero)
    }

    /// What is found by a search that a doubt has met is not used; but there is a second search only once.
    @Test func aDoubtWhileASearchRuns() {
        for fails in [false, true] {
            var knowledge = knowing()
            _ = knowledge.doubted(now: at(100))
            knowledge.began(now: at(100))
            #expect(knowledge.doubted(now: at(110)) == nil)
            let first = fails ? knowledge.failed("nobody", now: at(120)) : knowledge.found(master, now: at(120))
            #expect(first == .again(after: .milliseconds(30)))
            #expect(knowledge.wanted(now: at(121)) == .wait)
            knowledge.began(now: at(150))
            #expect(knowledge.doubted(now: at(155)) == nil)
            #expect(knowledge.found(named(2, by: 1), now: at(160)) == .deliver(isNews: true), "those who wait are answered now")
            #expect(knowledge.wanted(now: at(161)) == .search(after: .milliseconds(39)), "the last doubt still counts")
        }
    }
}

@Suite struct SwitchWatchTests {
    private func watch(authenticates: Bool = false) -> SwitchWatch {
        SwitchWatch(master: "shop", authenticates: authenticates, silence: .milliseconds(100), now: at(0))
    }

    private let subscribed = RedisValue.array([
        .bulkString(Array("subscribe".utf8)), .bulkString(Array("+switch-master".utf8)), .integer(1),
    ])

    private func message(_ channel: String, _ text: String) -> RedisValue {
        .array(["message", channel, text].map { .bulkString(Array($0.utf8)) })
    }

    @Test func itListens() {
        var watch = self.watch(authenticates: true)
        #expect(watch.tick(now: at(50)) == .none, "a PING before SUBSCRIBE has another reply")
        #expect(watch.received(.simpleString("OK"), now: at(1)) == .subscribe)
        #expect(watch.received(subscribed, now: at(2)) == .listening)
        #expect(watch.tick(now: at(50)) == .ping)
        #expect(watch.received(.array([.bulkString(Array("pong".utf8)), .bulkString([])]), now: at(60)) == .none)
        #expect(watch.received(message("+switch-master", "shop 10.0.0.1 1 10.0.0.2 2"), now: at(70)) == .switched)
        #expect(watch.received(message("+switch-master", "shop2 10.0.0.1 1 10.0.0.2 2"), now: at(70)) == .none, "another master")
        #expect(watch.received(message("+sdown", "shop"), now: at(70)) == .none)
        #expect(watch.received(.array([.null]), now: at(70)) == .none)
    }

    @Test func whatEndsIt() {
        var silent = watch()
        #expect(silent.tick(now: at(99)) == .none)
        #expect(silent.tick(now: at(100)) == .end("nothing was heard from it"))
        #expect(silent.tick(now: at(200)) == .none, "it ends once")
        #expect(silent.received(subscribed, now: at(200)) == .none)
        var refused = watch(authenticates: true)
        #expect(refused.received(.error(RedisServerError("WRONGPASS secret")), now: at(1)) == .end("the sentinel refuses: WRONGPASS"))
        var odd = watch()
        #expect(odd.received(.simpleString("OK"), now: at(1)) == .end("the sentinel answers SUBSCRIBE with something else"))
        var later = watch()
        _ = later.received(subscribed, now: at(1))
        #expect(later.received(.error(RedisServerError("NOPERM")), now: at(2)) == .end("the sentinel refuses: NOPERM"))
    }
}

/// The subscription on an embedded channel, fed with its replies cut at every byte.
@Suite struct SwitchWatchHandlerTests {
    private static let script =
        RESP.ok + "*3\r\n$9\r\nsubscribe\r\n$14\r\n+switch-master\r\n:1\r\n" + "*2\r\n$4\r\npong\r\n$0\r\n\r\n"
        + RESP.switched("shop", to: RedisEndpoint(host: "h", port: 2)) + RESP.switched("other", to: RedisEndpoint(host: "h", port: 2))

    private func run(_ pieces: [ArraySlice<UInt8>]) throws -> (hints: [Bool], sent: String) {
        let channel = EmbeddedChannel()
        defer { _ = try? channel.finish(acceptAlreadyClosed: true) }
        var sentinels = RedisSentinels(endpoints: [RedisEndpoint(host: "h", port: 1)], master: "shop")
        sentinels.password = "pw"
        var hints: [Bool] = []
        let handler = SwitchWatchHandler(sentinels, now: channel.eventLoop.now) { hints.append($0) }
        try channel.pipeline.syncOperations.addHandler(handler)
        try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
        for piece in pieces { try channel.writeInbound(ByteBuffer(bytes: piece)) }
        var sent = ""
        while let buffer = try channel.readOutbound(as: ByteBuffer.self) { sent += String(buffer: buffer) }
        return (hints, sent)
    }

    @Test func repliesCutAtEveryByte() throws {
        let bytes = Array(Self.script.utf8)
        let expected = RESP.array(["AUTH", "pw"]) + RESP.array(["SUBSCRIBE", "+switch-master"])
        for cut in 0...bytes.count {
            let (hints, sent) = try run([bytes[..<cut], bytes[cut...]])
            #expect(hints == [false, true], "cut at \(cut)")
            #expect(sent == expected, "cut at \(cut)")
        }
        #expect(try run(bytes.indices.map { bytes[$0...$0] }).hints == [false, true])
    }

    @Test func silenceAndNonsenseEndIt() throws {
        for text in ["", "*3\r\n", "HTTP/1.1 400\r\n", "-NOAUTH\r\n"] {
            let channel = EmbeddedChannel()
            let sentinels = RedisSentinels(endpoints: [RedisEndpoint(host: "h", port: 1)], master: "shop")
            try channel.pipeline.syncOperations.addHandler(SwitchWatchHandler(sentinels, now: channel.eventLoop.now) { _ in })
            try channel.connect(to: SocketAddress(ipAddress: "127.0.0.1", port: 1)).wait()
            try channel.writeInbound(ByteBuffer(string: text))
            #expect(channel.isActive == (text.isEmpty || text.hasPrefix("*")), "\(text)")
            channel.embeddedEventLoop.advanceTime(by: TimeAmount(sentinels.watchSilence) + .seconds(1))
            #expect(!channel.isActive, "\(text)")
            _ = try? channel.finish(acceptAlreadyClosed: true)
        }
    }
}
