import Eventually
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import RedisClient

/// A client of a cluster whose nodes are scripted, and whose replies come byte by byte.
@Suite(.timeLimit(.minutes(10)))
struct ClusterClientTests {
    /// What the client told of its map.
    final class Told: Sendable {
        private let state = Mutex<(maps: [SlotMap], troubles: [String])>(([], []))
        var maps: [SlotMap] { state.withLock { $0.maps } }
        var troubles: [String] { state.withLock { $0.troubles } }
        var hooks: RedisCluster.MapHooks {
            .init(
                onMap: { map, _ in self.state.withLock { $0.maps.append(map) } },
                onTrouble: { why in self.state.withLock { $0.troubles.append(why) } }
            )
        }
    }

    static func with(
        _ endpoints: [RedisEndpoint],
        _ change: (inout RedisConfiguration, inout RedisSeeds) -> Void = { _, _ in },
        onConnect: RedisCluster.ConnectHook? = nil,
        _ body: (RedisCluster, Told) async throws -> Void
    ) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        var seeds = RedisSeeds(endpoints: endpoints)
        // A busy machine is slow, and slow is not what is tested here.
        seeds.answerTimeout = .seconds(20)
        seeds.searchTimeout = .seconds(120)
        seeds.checkInterval = .seconds(600)
        seeds.answerAge = .milliseconds(20)
        seeds.minimumPause = .milliseconds(20)
        var configuration = RedisConfiguration()
        configuration.commandTimeout = .seconds(20)
        configuration.silenceLimit = .seconds(20)
        configuration.preparationTimeout = .seconds(20)
        configuration.connectTimeout = .seconds(20)
        change(&configuration, &seeds)
        configuration.address = .cluster(seeds)
        let told = Told()
        let client = try #require(
            RedisCluster(configuration: configuration, eventLoopGroup: group, onConnect: onConnect, mapHooks: told.hooks)
        )
        try await thenShutdown(group, client.shutdown) { try await body(client, told) }
        #expect(client.snapshot().all.ready == 0)
    }

    private func with(
        _ endpoints: [RedisEndpoint],
        _ change: (inout RedisConfiguration, inout RedisSeeds) -> Void = { _, _ in },
        _ body: (RedisCluster, Told) async throws -> Void
    ) async throws {
        try await Self.with(endpoints, change, body)
    }

    /// A key of the first half of the slots, and one of the second.
    private let low = (key: "bar", slot: HashSlot(key: "bar"))
    private let high = (key: "foo", slot: HashSlot(key: "foo"))

    private func halves(_ first: ScriptedRedis, _ second: ScriptedRedis) -> [RESP.Serving] {
        [(0...8191, first.endpoint), (8192...16383, second.endpoint)]
    }

    private func set(_ key: String) -> RedisCommand { .set(key, "v") }

    private func two() async throws -> (ScriptedRedis, ScriptedRedis) {
        let (a, b) = (try await ScriptedRedis { _ in nil }, try await ScriptedRedis { _ in nil })
        for node in [a, b] { node.say(RESP.cluster(halves(a, b))) }
        return (a, b)
    }

    /// Nodes that are away, silent, closing, odd or of no cluster come before one that knows the map, of a version with shards or without.
    @Test(arguments: [false, true])
    func oneGoodNodeIsEnough(isOld: Bool) async throws {
        let (a, b) = try await two()
        for node in [a, b] { node.say(RESP.cluster(halves(a, b), isOld: isOld)) }
        let bad = [
            try await ScriptedRedis { _ in nil }, try await ScriptedRedis { _ in ScriptedRedis.closing },
            try await ScriptedRedis(RESP.cluster([(0...5, a.endpoint), (5...9, b.endpoint)])),
            try await ScriptedRedis { _ in "-ERR This instance has cluster support disabled\r\n" },
        ]
        let gone = try await ScriptedRedis { _ in nil }
        await gone.stop()
        let endpoints = bad.map(\.endpoint) + [gone.endpoint]
        try await with(endpoints + [b.endpoint]) {
            $1.answerTimeout = .seconds(2)
        } _: { client, told in
            #expect(try await client.send(set(low.key), to: low.slot, timeout: .seconds(120)).string == "OK")
            #expect(try await client.send(set(high.key), to: high.slot).string == "OK")
            #expect(a.commands.contains(["SET", low.key, "v"]) && b.commands.contains(["SET", high.key, "v"]))
            #expect(a.count("SET") == 1 && b.count("SET") == 1 && client.snapshot().redirects == 0)
            #expect(told.maps.count == 1 && told.troubles.isEmpty && client.map?.uncovered == 0)
            try await client.waitUntilConnected(timeout: .seconds(60))
            #expect(client.snapshot().all.ready == 4, "one connection for each loop and master")
        }
        try await with(endpoints) {
            $1.answerTimeout = .seconds(2)
        } _: { client, told in
            let error = await #expect(throws: RedisError.self) {
                try await client.send(set(low.key), to: low.slot, timeout: .milliseconds(100))
            }
            #expect(error?.code == .notConnected && error?.isOutcomeUnknown == false)
            try await eventually("it is told") { !told.troubles.isEmpty }
            let words = try #require(told.troubles.first)
            for text in [
                "\(bad[0].endpoint): redis: timed out", "\(bad[1].endpoint): redis: connection lost",
                "\(bad[2].endpoint): it names two masters for slot 5", "\(bad[3].endpoint): it is no node of a cluster",
                "\(gone.endpoint): ",
            ] { #expect(words.contains(text), "\(text) in \(words)") }
            #expect(client.map == nil && client.snapshot().uncoveredSlots == HashSlot.count)
        }
        for server in bad + [a, b] { await server.stop() }
    }

    /// Each node gets the credentials of the address, and each connection is prepared by itself.
    @Test func everyConnectionIsPrepared() async throws {
        let (a, b) = try await two()
        let prepared = Mutex<[RedisEndpoint: Int]>([:])
        try await Self.with([a.endpoint]) { configuration, _ in
            configuration.username = "shop"
            configuration.password = "secret"
        } onConnect: { node, connection in
            prepared.withLock { $0[node, default: 0] += 1 }
            return connection.send(.scriptLoad("return 1")).map { _ in node.port as any Sendable }
        } _: { client, _ in
            try await client.waitUntilConnected(timeout: .seconds(60))
            #expect(prepared.withLock { $0 } == [a.endpoint: 2, b.endpoint: 2] && a.count("SCRIPT") == 2 && b.count("SCRIPT") == 2)
            for node in [a, b] {
                #expect(Set(node.commands.filter { $0[0] == "AUTH" }) == [["AUTH", "shop", "secret"]])
                #expect(node.commands.first == ["AUTH", "shop", "secret"])
            }
        }
        for server in [a, b] { await server.stop() }
    }

    /// The slots moved: the command is sent again where the reply says, once, and the map is asked for, there first.
    @Test func moved() async throws {
        let (a, b) = try await two()
        let slot = low.slot
        try await with([a.endpoint]) { client, told in
            try await client.waitUntilConnected(timeout: .seconds(60))
            let moved: [RESP.Serving] = [(0...16383, b.endpoint)]
            a.say(RESP.cluster(halves(a, b), other: { $0.first == "SET" ? "-MOVED \(slot) \(b.endpoint)\r\n" : RESP.ok }))
            b.say(RESP.cluster(moved))
            #expect(try await client.send(set(low.key), to: slot).string == "OK")
            #expect(a.count("SET") == 1 && b.count("SET") == 1 && client.snapshot().redirects == 1)
            try await eventually("the new map is known") { client.map?[slot] == b.endpoint && told.maps.count == 2 }
            #expect(client.snapshot().mapChanges == 1)
            #expect(try await client.send(set(low.key), to: slot).string == "OK")
            #expect(a.count("SET") == 1 && b.count("SET") == 2, "straight to the new master")
            try await eventually("a node that serves nothing is left") {
                let snapshot = client.snapshot()
                #expect(snapshot.all.connects == 4, "what it did is counted while it ends, and afterwards")
                return snapshot.nodes[a.endpoint] == nil && a.open == 0
            }
            #expect(client.snapshot().all.connects == 4)
        }
        for server in [a, b] { await server.stop() }
    }

    /// A node that a new map no longer names ends when its last reply has come or is given up. Meanwhile what it did is counted, so that no count falls.
    @Test func anEndingNodeIsCounted() async throws {
        let (a, b) = try await two()
        let slot = low.slot
        try await with([a.endpoint]) {
            $0.silenceLimit = .seconds(10)
            _ = $1
        } _: { client, _ in
            try await client.waitUntilConnected(timeout: .seconds(60))
            let key = low.key
            let moved: ScriptedRedis.Script = { command in
                if command.first != "SET" { return RESP.ok }
                return command[1] == key ? "-MOVED \(slot) \(b.endpoint)\r\n" : nil
            }
            a.say(RESP.cluster(halves(a, b), other: moved))
            b.say(RESP.cluster([(0...16383, b.endpoint)]))
            async let unanswered = try? client.send(set("unanswered"), to: slot, timeout: .seconds(20))
            try await eventually("a has what it does not answer") { a.count("SET") == 1 }
            #expect(try await client.send(set(key), to: slot).string == "OK")
            try await eventually("the map no longer names a") { client.snapshot().nodes[a.endpoint] == nil }
            #expect(a.open > 0 && client.snapshot().all.connects == 4, "it is ending")
            #expect(await unanswered == nil)
            try await eventually("a has ended") { a.open == 0 }
            #expect(client.snapshot().all.connects == 4)
        }
        for server in [a, b] { await server.stop() }
    }

    /// What may be sent once fails behind a redirection, known not to have run, and the map is asked for all the same.
    @Test(arguments: ["MOVED", "ASK"])
    func anApplyIsNotRedirected(_ word: String) async throws {
        let (a, b) = try await two()
        let slot = low.slot
        try await with([a.endpoint]) { client, _ in
            try await client.waitUntilConnected(timeout: .seconds(60))
            let searches = client.snapshot().mapSearches
            a.say(RESP.cluster(halves(a, b), other: { $0.first == "SET" ? "-\(word) \(slot) \(b.endpoint)\r\n" : RESP.ok }))
            b.say(RESP.cluster([(0...16383, b.endpoint)]))
            let error = await #expect(throws: RedisError.self) { try await client.send(set(low.key), to: slot, isRepeatable: false) }
            #expect(error?.serverError?.kind.rawValue == word && error?.isOutcomeUnknown == false)
            if word == "MOVED" {
                try await eventually("the new map is known") { client.map?[slot] == b.endpoint }
            } else {
                #expect(client.snapshot().mapSearches == searches, "a slot on its way is no other map yet")
            }
            #expect(a.count("SET") == 1 && b.count("SET") == 0 && b.count("ASKING") == 0 && client.snapshot().redirects == 0)
        }
        for server in [a, b] { await server.stop() }
    }

    /// The caller was told *unknown* already. A redirection that comes then sends nothing.
    @Test func aRedirectionBehindATimeout() async throws {
        let (a, b) = try await two()
        let slot = low.slot
        try await with([a.endpoint]) { client, _ in
            try await client.waitUntilConnected(timeout: .seconds(60))
            a.say(RESP.cluster(halves(a, b), other: { $0.first == "SET" ? nil : RESP.ok }))
            let error = await #expect(throws: RedisError.self) {
                try await client.send(set(low.key), to: slot, timeout: .milliseconds(300))
            }
            #expect(error?.code == .timedOut(sent: true) && a.count("SET") == 1)
            // Only one of the two connections waits for a reply; the other one is closed for a reply that it did not ask for.
            a.pushToAll("-MOVED \(slot) \(b.endpoint)\r\n")
            try await eventually("the reply came late") { client.snapshot().all.lateReplies == 1 }
            #expect(try await client.send(set(high.key), to: high.slot).string == "OK")
            #expect(b.commands.filter { $0.first == "SET" } == [["SET", high.key, "v"]] && client.snapshot().redirects == 0)
        }
        for server in [a, b] { await server.stop() }
    }

    /// A slot is on its way: the other node is asked for this one command, with ASKING straight in front of it.
    @Test func ask() async throws {
        let (a, b) = try await two()
        let slot = low.slot
        try await with([a.endpoint]) { client, told in
            try await client.waitUntilConnected(timeout: .seconds(60))
            let tries = Mutex(0)
            a.say(RESP.cluster(halves(a, b), other: { $0.first == "SET" ? "-ASK \(slot) \(b.endpoint)\r\n" : RESP.ok }))
            b.say(
                RESP.cluster(
                    halves(a, b),
                    other: { command in
                        guard command.first == "SET" else { return RESP.ok }
                        let count = tries.withLock { count in
                            count += 1
                            return count
                        }
                        return count < 3 ? "-TRYAGAIN Multiple keys request during rehashing of slot\r\n" : RESP.ok
                    }
                )
            )
            #expect(try await client.send(set(low.key), to: slot).string == "OK")
            let said = b.commands.filter { ["SET", "ASKING"].contains($0.first) }
            #expect(said == Array(repeating: [["ASKING"], ["SET", low.key, "v"]], count: 3).flatMap { $0 })
            #expect(a.count("SET") == 1 && client.snapshot().redirects == 3 && told.maps.count == 1)
            #expect(client.map?[slot] == a.endpoint, "the next command goes to the owner first")
        }
        for server in [a, b] { await server.stop() }
    }

    /// Two nodes that each name the other.
    @Test func redirectionsAreBounded() async throws {
        let (a, b) = try await two()
        let slot = low.slot
        try await with([a.endpoint]) { client, _ in
            try await client.waitUntilConnected(timeout: .seconds(60))
            a.say(RESP.cluster(halves(a, b), other: { $0.first == "SET" ? "-MOVED \(slot) \(b.endpoint)\r\n" : RESP.ok }))
            b.say(RESP.cluster(halves(a, b), other: { $0.first == "SET" ? "-MOVED \(slot) \(a.endpoint)\r\n" : RESP.ok }))
            let error = await #expect(throws: RedisError.self) { try await client.send(set(low.key), to: slot) }
            #expect(error?.serverError?.kind == .moved)
            #expect(a.count("SET") + b.count("SET") == 1 + ClusterCall.maximumRedirects)
        }
        for server in [a, b] { await server.stop() }
    }

    /// A node knows of slots that nobody serves: the command is refused at once, and others go on.
    @Test func clusterDown() async throws {
        let (a, b) = try await two()
        try await with([a.endpoint]) { client, _ in
            try await client.waitUntilConnected(timeout: .seconds(60))
            let searches = client.snapshot().mapSearches
            a.say(
                RESP.cluster(
                    [(8192...16383, b.endpoint)],
                    epoch: 2,
                    other: { $0.first == "SET" ? "-CLUSTERDOWN Hash slot not served\r\n" : RESP.ok }
                )
            )
            b.say(RESP.cluster([(8192...16383, b.endpoint)], epoch: 2))
            let error = await #expect(throws: RedisError.self) { try await client.send(set(low.key), to: low.slot) }
            #expect(error?.serverError?.kind == .clusterDown && error?.isOutcomeUnknown == false && a.count("SET") == 1)
            try await eventually("it asked") { client.snapshot().mapSearches > searches && client.map?[low.slot] == nil }
            let unserved = await #expect(throws: RedisError.self) { try await client.send(set(low.key), to: low.slot) }
            #expect(unserved?.code == .notConnected && unserved?.detail?.contains("no node of the cluster serves slot 5061") == true)
            #expect(try await client.send(set(high.key), to: high.slot).string == "OK")
            #expect(client.snapshot().uncoveredSlots == 8192)
        }
        for server in [a, b] { await server.stop() }
    }

    /// A node was demoted: what it refuses has not run, and the map is asked for.
    @Test func readOnly() async throws {
        let (a, b) = try await two()
        let new = try await ScriptedRedis { _ in nil }
        try await with([a.endpoint, b.endpoint]) { client, _ in
            try await client.waitUntilConnected(timeout: .seconds(60))
            let after = halves(new, b)
            new.say(RESP.cluster(after, epoch: 2))
            b.say(RESP.cluster(after, epoch: 2))
            a.say(
                RESP.cluster(
                    after,
                    epoch: 2,
                    other: { $0.first == "SET" ? "-READONLY You can't write against a read only replica.\r\n" : RESP.ok }
                )
            )
            let error = await #expect(throws: RedisError.self) { try await client.send(set(low.key), to: low.slot) }
            #expect(error?.serverError?.isReadOnly == true && error?.isOutcomeUnknown == false)
            try await eventually("the new master is known") { client.map?[low.slot] == new.endpoint }
            #expect(try await client.send(set(low.key), to: low.slot).string == "OK")
            #expect(a.count("SET") == 1 && new.count("SET") == 1 && b.count("SET") == 0)
        }
        for server in [a, b, new] { await server.stop() }
    }

    /// A master is lost: the others are asked until one names the next, and meanwhile they serve their own slots.
    @Test func aLostMaster() async throws {
        let (a, b) = try await two()
        let new = try await ScriptedRedis { _ in nil }
        try await with([a.endpoint, b.endpoint]) { client, _ in
            try await client.waitUntilConnected(timeout: .seconds(60))
            await a.stop()
            try await eventually("it is known to be lost") { (client.snapshot().nodes[a.endpoint]?.ready ?? 0) == 0 }
            let error = await #expect(throws: RedisError.self) {
                try await client.send(set(low.key), to: low.slot, timeout: .milliseconds(300))
            }
            #expect(error?.isOutcomeUnknown == false)
            #expect(try await client.send(set(high.key), to: high.slot).string == "OK")
            let searches = client.snapshot().mapSearches
            try await eventually("it goes on asking") { client.snapshot().mapSearches > searches + 2 }
            // An older map, which names another node, moves nothing.
            b.say(RESP.cluster([(0...16383, b.endpoint)], epoch: 0))
            let failed = client.snapshot().mapSearchesFailed
            try await eventually("it is put aside") { client.snapshot().mapSearchesFailed > failed + 1 }
            #expect(client.map?[low.slot] == a.endpoint)
            let after = halves(new, b)
            new.say(RESP.cluster(after, epoch: 2))
            b.say(RESP.cluster(after, epoch: 2))
            #expect(try await client.send(set(high.key), to: high.slot).string == "OK")
            try await eventually("the next master is known") { client.map?[low.slot] == new.endpoint }
            #expect(try await client.send(set(low.key), to: low.slot).string == "OK")
            #expect(new.count("SET") == 1)
        }
        for server in [b, new] { await server.stop() }
    }

    /// A loop of another group has no connection, and a closed client takes nothing.
    @Test func whereNothingCanBeSent() async throws {
        let (a, b) = try await two()
        try await with([a.endpoint]) { client, _ in
            let loop = MultiThreadedEventLoopGroup.singleton.next()
            #expect(
                try await loop.submit { client.connection(for: HashSlot(key: "bar"), on: loop) == nil }.get(),
                "a loop of another group"
            )
            try await client.waitUntilConnected(timeout: .seconds(60))
            #expect(client.snapshot().nodes.keys.sorted { $0.port < $1.port } == [a, b].map(\.endpoint).sorted { $0.port < $1.port })
            await client.shutdown()
            let error = await #expect(throws: RedisError.self) { try await client.send(set(low.key), to: low.slot) }
            #expect(error?.isOutcomeUnknown == false)
        }
        for server in [a, b] { await server.stop() }
    }
}
