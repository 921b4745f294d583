import NIOCore
import Testing

@testable import RedisClient

private func at(_ milliseconds: Int64) -> NIODeadline { .uptimeNanoseconds(0) + .milliseconds(milliseconds) }
private func node(_ port: Int) -> RedisEndpoint { RedisEndpoint(host: "10.0.0.1", port: port) }
private func slot(_ number: UInt16) throws -> HashSlot { try #require(HashSlot(rawValue: number)) }

/// What hiredis makes of a text, fed in two pieces.
private func parsed(_ text: String, split: Int = 0) throws -> RedisValue {
    let reader = try #require(ReplyReader(maximumBytes: 1 << 20, maximumElements: 100_000))
    let bytes = Array(text.utf8)
    bytes[..<split].withUnsafeBytes { reader.feed($0) }
    bytes[split...].withUnsafeBytes { reader.feed($0) }
    guard case .reply(let value) = reader.next() else {
        Issue.record("no reply")
        return .null
    }
    return value
}

@Suite struct HashSlotTests {
    /// The numbers are those of `CLUSTER KEYSLOT`.
    @Test(
        arguments: [
            ("123456789", 12739), ("foo", 12182), ("bar", 5061), ("", 0), ("foo{bar}{zap}", 5061), ("{bar}", 5061), ("a{bar}b", 5061),
        ] as [(String, UInt16)]
    )
    func known(_ key: String, _ number: UInt16) {
        #expect(HashSlot(key: key).rawValue == number)
    }

    @Test func tags() {
        #expect(HashSlot(key: "{user1000}.following") == HashSlot(key: "{user1000}.followers"))
        // An empty tag, and an opening brace without a closing one, are no tags.
        #expect(HashSlot(key: "foo{}{bar}") != HashSlot(key: "bar") && HashSlot(key: "foo{}{bar}") != HashSlot(key: ""))
        #expect(HashSlot(key: "}foo{bar") != HashSlot(key: "bar"))
        // The tag ends at the first closing brace, and may hold an opening one.
        #expect(HashSlot(key: "foo{{bar}}zap") == HashSlot(key: "{bar") && HashSlot(key: "foo{{bar}}zap") != HashSlot(key: "bar"))
        for name in ["stock", "meta", "pending", "owed", "marks", "marker"] {
            #expect(HashSlot(key: "sg:{4711}:\(name)") == HashSlot(key: "4711"))
        }
    }

    @Test func bounds() {
        #expect(HashSlot(rawValue: 16383)?.rawValue == 16383 && HashSlot(rawValue: 16384) == nil)
        #expect((0..<5000).allSatisfy { HashSlot(key: "key-\($0)").rawValue < 16384 })
    }
}

@Suite struct SlotMapTests {
    private let three: [RESP.Serving] = [(0...5460, node(1)), (5461...10922, node(2)), (10923...16383, node(3))]

    private func shards(_ text: String, usesTLS: Bool = false) throws -> SlotMap {
        try SlotMap(shards: try parsed(text), asked: node(9), usesTLS: usesTLS)
    }

    private func why(_ body: () throws -> SlotMap) -> String? {
        do {
            _ = try body()
            return nil
        } catch {
            return (error as? SlotMap.Refusal)?.description ?? "?"
        }
    }

    /// Both forms say the same, wherever their texts are split.
    @Test func bothForms() throws {
        let (shards, slots) = (RESP.shards(three), RESP.slots(three))
        let map = try SlotMap(shards: try parsed(shards), asked: node(9), usesTLS: false)
        for split in 0..<shards.utf8.count {
            #expect(try SlotMap(shards: try parsed(shards, split: split), asked: node(9), usesTLS: false) == map)
        }
        for split in 0..<slots.utf8.count { #expect(try SlotMap(slots: try parsed(slots, split: split), asked: node(9)) == map) }
        #expect(map.masters == [node(1), node(2), node(3)] && map.uncovered == 0)
        let expected: [(UInt16, Int)] = [(0, 1), (5460, 1), (5461, 2), (10922, 2), (10923, 3), (16383, 3)]
        for (number, port) in expected { #expect(try map[slot(number)] == node(port)) }
        #expect(map.count(of: node(1)) == 5461 && map.count(of: node(7)) == 0)
    }

    @Test func gapsAreServedByNobody() throws {
        let map = try shards(RESP.shards([(1...5, node(1)), (7...8, node(1)), (10...16383, node(2))]))
        #expect(map.uncovered == 3 && map.masters == [node(1), node(2)])
        for number in [0, 6, 9] as [UInt16] { #expect(try map[slot(number)] == nil) }
        for number in [1, 5, 7, 8] as [UInt16] { #expect(try map[slot(number)] == node(1)) }
    }

    @Test func refused() {
        let cases: [(String, [RESP.Serving])] = [
            ("it names two masters for slot 5460", [(0...5460, node(1)), (5460...16383, node(2))]),
            ("it names two masters for slot 7", [(0...16383, node(1)), (7...7, node(1))]),
            ("it names slots that no cluster has", [(0...16384, node(1))]),
            ("it names slots that no cluster has", [(-1...5, node(1))]),
            ("it names a port that there is not", [(0...5, node(0))]),
            ("it names a port that there is not", [(0...5, node(65536))]),
            ("it names no slot", []),
            ("it names more than 128 masters", (0..<129).map { ($0...$0, node($0 + 1)) }),
        ]
        for (words, serving) in cases {
            #expect(why { try shards(RESP.shards(serving)) } == words)
            #expect(why { try SlotMap(slots: try parsed(RESP.slots(serving)), asked: node(9)) } == words)
        }
        #expect(why { try shards(RESP.shards((0..<128).map { ($0...$0, node($0 + 1)) })) } == nil)
        #expect(
            why { try SlotMap(slots: try parsed("*1\r\n*3\r\n:5\r\n:4\r\n*2\r\n$1\r\nh\r\n:1\r\n"), asked: node(9)) } != nil,
            "reversed"
        )
        for odd in [":1\r\n", "*-1\r\n", "*1\r\n:1\r\n", "*1\r\n*1\r\n:1\r\n", "*1\r\n*2\r\n$5\r\nslots\r\n*0\r\n", "$1\r\nx\r\n"] {
            #expect(why { try shards(odd) } != nil && why { try SlotMap(slots: try parsed(odd), asked: node(9)) } != nil, "\(odd)")
        }
    }

    /// One shard, with these nodes: role, health, endpoint (nil: null), port, port of TLS.
    private func shard(_ nodes: [(String, String, String?, Int?, Int?)]) -> String {
        var text = "*1\r\n*4\r\n" + RESP.bulk("slots") + "*2\r\n:0\r\n:9\r\n" + RESP.bulk("nodes") + "*\(nodes.count)\r\n"
        for (role, health, endpoint, port, tls) in nodes {
            text += "*\(6 + (port == nil ? 0 : 2) + (tls == nil ? 0 : 2))\r\n"
            text += RESP.bulk("role") + RESP.bulk(role) + RESP.bulk("health") + RESP.bulk(health) + RESP.bulk("endpoint")
            text += endpoint.map(RESP.bulk) ?? "$-1\r\n"
            if let port { text += RESP.bulk("port") + ":\(port)\r\n" }
            if let tls { text += RESP.bulk("tls-port") + ":\(tls)\r\n" }
        }
        return text
    }

    @Test func whoIsTheMasterOfAShard() throws {
        let old = ("master", "fail", "h" as String?, 1 as Int?, nil as Int?)
        let new = ("master", "online", "h" as String?, 2 as Int?, nil as Int?)
        let replica = ("replica", "online", "h" as String?, 3 as Int?, nil as Int?)
        func ports(_ text: String) throws -> [Int] { try shards(text).masters.map(\.port) }
        #expect(try ports(shard([old, replica, new])) == [2], "the one that is well")
        #expect(try ports(shard([replica, old])) == [1], "nobody has taken over yet")
        #expect(why { try shards(shard([new, new])) } == "it names two masters for the same slots")
        #expect(why { try shards(shard([old, old])) } == "it names two masters for the same slots")
        #expect(why { try shards(shard([replica])) } == "it names no slot")
    }

    @Test func hostsAndPorts() throws {
        func master(_ host: String?, _ port: Int?, _ tls: Int?, usesTLS: Bool = false) throws -> RedisEndpoint? {
            try shards(shard([("master", "online", host, port, tls)]), usesTLS: usesTLS).masters.first
        }
        #expect(try master(nil, 5, nil) == node(5) && master("", 5, nil) == node(5), "the host that was asked")
        #expect(try master("::1", 5, 6) == RedisEndpoint(host: "::1", port: 5))
        #expect(try master("a", 5, 6, usesTLS: true) == RedisEndpoint(host: "a", port: 6))
        for (host, port, tls, usesTLS) in [("?", 5, nil, false), ("a", 5, nil, true), ("a", nil, 6, false)] as [(String, Int?, Int?, Bool)]
        {
            #expect(why { try shards(shard([("master", "online", host, port, tls)]), usesTLS: usesTLS) } == "it names no slot")
        }
    }
}

@Suite struct RedirectionTests {
    private func read(_ text: String) -> Redirection? { Redirection(RedisServerError(text), replied: node(9)) }

    @Test func forms() throws {
        let moved = try #require(read("MOVED 3999 127.0.0.1:6381"))
        #expect(try moved.kind == .moved && moved.slot == slot(3999) && moved.node == RedisEndpoint(host: "127.0.0.1", port: 6381))
        #expect(read("ASK 0 ::1:7")?.node == RedisEndpoint(host: "::1", port: 7) && read("ASK 0 ::1:7")?.kind == .ask)
        #expect(read("MOVED 1 :6381")?.node == node(6381), "the host that replied")
        #expect(read("MOVED 1 h:1 more")?.node == RedisEndpoint(host: "h", port: 1))
    }

    @Test(arguments: [
        "MOVED", "MOVED 1", "MOVED 16384 h:1", "MOVED -1 h:1", "MOVED x h:1", "MOVED 1 h", "MOVED 1 h:", "MOVED 1 h:0", "MOVED 1 h:65536",
        "MOVED 1 ?:1", "MOVED 1 \(String(repeating: "h", count: 256)):1", "ERR MOVED 1 h:1", "TRYAGAIN 1 h:1",
    ])
    func none(_ text: String) { #expect(read(text) == nil) }
}

@Suite struct ClusterCallTests {
    private func call(isRepeatable: Bool = true) -> ClusterCall { ClusterCall(isRepeatable: isRepeatable, deadline: at(1000)) }
    private func error(_ text: String) -> RedisError { RedisError(.server(RedisServerError(text))) }
    private typealias Step = ClusterCall.Step

    @Test func movedIsFollowedAndRaisesADoubt() throws {
        var call = self.call()
        #expect(call.target == .owner)
        let doubt = try ClusterCall.Doubt.moved(slot(7), to: node(2))
        #expect(
            call.failed(error("MOVED 7 10.0.0.1:2"), replied: node(1), now: at(0))
                == Step(next: .send(.node(node(2)), after: .zero), doubt: doubt)
        )
        #expect(call.target == .node(node(2)))
    }

    @Test func askIsFollowedOnce() {
        var call = self.call()
        #expect(call.failed(error("ASK 7 10.0.0.1:2"), replied: node(1), now: at(0)) == Step(next: .send(.asking(node(2)), after: .zero)))
        #expect(call.failed(error("ASK 7 10.0.0.1:3"), replied: node(2), now: at(0)) == Step(next: .end))
        var other = self.call()
        _ = other.failed(error("ASK 7 10.0.0.1:2"), replied: node(1), now: at(0))
        let back = other.failed(error("MOVED 7 10.0.0.1:1"), replied: node(2), now: at(0))
        #expect(back.next == .send(.node(node(1)), after: .zero), "it came back meanwhile")
    }

    @Test func tryAgainPausesLongerEachTime() {
        var call = self.call()
        _ = call.failed(error("ASK 7 10.0.0.1:2"), replied: node(1), now: at(0))
        for pause in [2, 4, 8, 16] as [Int64] {
            let step = call.failed(error("TRYAGAIN Multiple keys"), replied: node(2), now: at(0))
            #expect(step == Step(next: .send(.asking(node(2)), after: .milliseconds(pause))), "to the same node, and with ASKING again")
        }
        #expect(call.failed(error("TRYAGAIN Multiple keys"), replied: node(2), now: at(0)) == Step(next: .end))
        #expect(call.redirects == ClusterCall.maximumRedirects)
    }

    @Test func redirectionsAreBounded() {
        var call = self.call()
        for count in 1...ClusterCall.maximumRedirects {
            let step = call.failed(error("MOVED 7 10.0.0.1:\(count)"), replied: node(1), now: at(0))
            #expect(step.next == .send(.node(node(count)), after: .zero))
        }
        let last = call.failed(error("MOVED 7 10.0.0.1:2"), replied: node(1), now: at(0))
        #expect(last.next == .end && last.doubt != nil, "the map is doubted all the same")
    }

    /// An apply.
    @Test(arguments: ["MOVED 7 10.0.0.1:2", "ASK 7 10.0.0.1:2", "TRYAGAIN x", "CLUSTERDOWN x", "READONLY x", "NOSCRIPT x", "LOADING x"])
    func whatMayBeSentOnceIsNeverSentAgain(_ text: String) {
        var call = self.call(isRepeatable: false)
        #expect(call.failed(error(text), replied: node(1), now: at(0)).next == .end)
        #expect(call.redirects == 0)
    }

    /// Its outcome is unknown, or this process has refused it. That is so behind a redirection, too.
    @Test(
        arguments: [
            .timedOut(sent: true), .timedOut(sent: false), .connectionLost(sent: true), .connectionLost(sent: false),
            .cancelled(sent: true),
            .protocolViolation, .queueFull, .closed, .notConnected,
        ] as [RedisError.Code]
    )
    func withoutAReplyNothingIsSentAgain(_ code: RedisError.Code) {
        var call = self.call()
        _ = call.failed(error("MOVED 7 10.0.0.1:2"), replied: node(1), now: at(0))
        #expect(call.failed(RedisError(code), replied: node(2), now: at(0)) == Step(next: .end))
    }

    @Test func nothingIsSentBehindTheDeadline() {
        for (now, next) in [(999, .send(.node(node(2)), after: .zero)), (1000, .end)] as [(Int64, ClusterCall.Step.Next)] {
            var call = self.call()
            #expect(call.failed(error("MOVED 7 10.0.0.1:2"), replied: node(1), now: at(now)).next == next)
        }
        var call = self.call()
        #expect(call.failed(error("TRYAGAIN x"), replied: node(1), now: at(998)).next == .end, "the pause is counted")
    }

    @Test func otherErrors() {
        let cases: [(String, ClusterCall.Doubt?)] = [
            ("CLUSTERDOWN Hash slot not served", .unknown), ("READONLY You can't", .unknown),
            ("ERR Error running script (call to f_1): @user_script:1: -READONLY You can't", .unknown), ("MOVED nonsense", .unknown),
            ("ASK nonsense", .unknown), ("NOSCRIPT x", nil), ("ERR x", nil), ("CROSSSLOT x", nil), ("OOM x", nil),
        ]
        for (text, doubt) in cases {
            var call = self.call()
            #expect(call.failed(error(text), replied: node(1), now: at(0)) == Step(next: .end, doubt: doubt), "\(text)")
        }
    }
}

@Suite struct MapSearchTests {
    private func map(_ ports: Int...) throws -> SlotMap {
        let size = HashSlot.count / ports.count
        let serving = ports.enumerated().map { (size * $0...size * ($0 + 1) - 1, node($1)) }
        return try SlotMap(shards: try parsed(RESP.shards(serving)), asked: node(9), usesTLS: false)
    }

    private func answer(_ map: SlotMap, epoch: Int64? = 5, isWell: Bool = true, by port: Int = 1) -> MapSearch.Answer {
        MapSearch.Answer(map: map, epoch: epoch, isWell: isWell, saidBy: node(port))
    }

    private func search(_ count: Int = 3, named: Int? = nil, inUse: MapSearch.Answer? = nil) -> MapSearch {
        MapSearch(order: (1...count).map { node($0) }, named: named.map { node($0) }, inUse: inUse, ends: at(1000))
    }

    @Test func theFirstMap() throws {
        var search = self.search()
        #expect(search.begin(now: at(0)) == .ask(node(1)))
        #expect(search.replied(node(1), .failed("refused"), now: at(1)) == .ask(node(2)))
        let answer = try answer(map(1, 2), by: 2)
        #expect(search.replied(node(2), .map(answer), now: at(2)) == .found(answer))
        #expect(search.troubles.map(\.why) == ["refused"] && search.troubles.map(\.node) == [node(1)])
    }

    /// A node that is cut off from the others knows an older configuration; so does one that a change has not reached yet.
    @Test func anOlderMapIsPutAside() throws {
        let inUse = try answer(map(1, 2), epoch: 5)
        var search = self.search(inUse: inUse)
        _ = search.begin(now: at(0))
        let old = try answer(map(1, 3), epoch: 4, by: 1)
        #expect(search.replied(node(1), .map(old), now: at(1)) == .ask(node(2)))
        #expect(search.replied(node(2), .map(inUse), now: at(2)) == .found(inUse), "the map in use stands")
        // Nobody knows better, and more than half have answered: the cluster was made anew.
        var anew = self.search(inUse: inUse)
        _ = anew.begin(now: at(0))
        _ = anew.replied(node(1), .map(old), now: at(1))
        _ = anew.replied(node(2), .failed("silent"), now: at(1))
        let other = try answer(map(3, 4), epoch: 3, by: 3)
        #expect(anew.replied(node(3), .map(other), now: at(1)) == .found(old), "the newest of those that were put aside")
        // It alone has answered.
        var alone = self.search(inUse: inUse)
        _ = alone.begin(now: at(0))
        _ = alone.replied(node(1), .map(old), now: at(1))
        _ = alone.replied(node(2), .failed("silent"), now: at(1))
        #expect(alone.replied(node(3), .failed("silent"), now: at(1)) == .failed)
    }

    @Test func aNewerMapIsUsedAtOnce() throws {
        var search = self.search(inUse: try answer(map(1, 2), epoch: 5))
        _ = search.begin(now: at(0))
        let new = try answer(map(1, 3), epoch: 6)
        #expect(search.replied(node(1), .map(new), now: at(1)) == .found(new))
        var same = self.search(inUse: try answer(map(1, 2), epoch: 5))
        _ = same.begin(now: at(0))
        let raised = try answer(map(1, 2), epoch: 4)
        #expect(same.replied(node(1), .map(raised), now: at(1)) == .found(raised), "the same map needs no epoch")
    }

    /// The target of a slot that was handed over knows first that the slot is its own.
    @Test func theNamedNodeKnowsBestUnderTheSameEpoch() throws {
        let inUse = try answer(map(1, 2), epoch: 5)
        let other = try answer(map(1, 3), epoch: 5, by: 1)
        var named = search(named: 1, inUse: inUse)
        _ = named.begin(now: at(0))
        #expect(named.replied(node(1), .map(other), now: at(1)) == .found(other))
        var unnamed = search(named: 2, inUse: inUse)
        _ = unnamed.begin(now: at(0))
        #expect(unnamed.replied(node(1), .map(other), now: at(1)) == .ask(node(2)))
    }

    /// Where full coverage is asked for, all nodes say so as soon as one shard is down. One that is cut off says it alone.
    @Test func aNodeThatSaysThatTheClusterIsDown() throws {
        let down = try answer(map(1, 2), isWell: false, by: 1)
        var search = self.search()
        _ = search.begin(now: at(0))
        #expect(search.replied(node(1), .map(down), now: at(1)) == .ask(node(2)))
        let well = try answer(map(1, 3), by: 2)
        #expect(search.replied(node(2), .map(well), now: at(1)) == .found(well))
        var all = self.search()
        _ = all.begin(now: at(0))
        _ = all.replied(node(1), .map(down), now: at(1))
        _ = all.replied(node(2), .failed("silent"), now: at(1))
        #expect(all.replied(node(3), .map(down), now: at(1)) == .found(down))
    }

    @Test func theTimeAndTheNumberAreBounded() throws {
        for time in [Int64(999), 1000] {
            var search = self.search()
            _ = search.begin(now: at(0))
            #expect(search.replied(node(1), .failed("silent"), now: at(time)) == (time < 1000 ? .ask(node(2)) : .failed))
        }
        var search = self.search(40)
        var step = search.begin(now: at(0))
        var asked = 0
        while case .ask(let node) = step {
            asked += 1
            step = search.replied(node, .failed("silent"), now: at(0))
        }
        #expect(asked == MapSearch.maximumAsked && step == .failed)
    }

    @Test func theOrder() {
        var generator = Fixed()
        let order = MapSearch.order(
            seeds: [node(1), node(2), node(3)],
            masters: [node(2), node(4), node(5)],
            named: node(7),
            failed: [node(2), node(3), node(7)],
            using: &generator
        )
        #expect(order.first == node(7), "it was named, whatever it said last time")
        #expect(Set(order[1...3]) == [node(4), node(5), node(1)] && order[3] == node(1), "masters before seeds")
        #expect(Array(order[4...]) == [node(2), node(3)], "those that failed come last")
    }

    /// A change that comes while a search runs is news once, and a repeated answer is none.
    @Test func theAnswerIsShared() throws {
        var knowledge = SharedAnswer<MapSearch.Answer>(age: .milliseconds(250), pause: .milliseconds(50))
        #expect(knowledge.wanted(now: at(0)) == .search(after: .zero))
        knowledge.began(now: at(0))
        let (first, second) = (try answer(map(1, 2)), try answer(map(1, 3), epoch: 6))
        #expect(knowledge.found(first, now: at(1)) == .deliver(isNews: true))
        #expect(knowledge.doubted(now: at(2)) == .milliseconds(48), "searches keep their distance")
        knowledge.began(now: at(50))
        var again = first
        again.saidBy = node(2)
        again.epoch = 9
        #expect(knowledge.found(again, now: at(51)) == .deliver(isNews: false), "another node says the same")
        _ = knowledge.doubted(now: at(200))
        knowledge.began(now: at(200))
        #expect(knowledge.found(second, now: at(201)) == .deliver(isNews: true) && knowledge.finding == second)
    }
}
