import Eventually
import NIOCore
import NIOPosix
import Synchronization
import Testing

@testable import RedisClient

/// A client that finds its master through scripted sentinels, whose replies come byte by byte.
@Suite(.timeLimit(.minutes(10)))
struct SentinelClientTests {
    /// What the client told of its master.
    private final class Told: Sendable {
        private let state = Mutex<(masters: [String], troubles: [String])>(([], []))
        var masters: [String] { state.withLock { $0.masters } }
        var troubles: [String] { state.withLock { $0.troubles } }
        var hooks: RedisClient.MasterHooks {
            .init(
                onMaster: { master, by in self.state.withLock { $0.masters.append("\(master) by \(by)") } },
                onTrouble: { why in self.state.withLock { $0.troubles.append(why) } }
            )
        }
    }

    private func with(
        _ sentinels: [RedisEndpoint],
        _ change: (inout RedisConfiguration, inout RedisSentinels) -> Void = { _, _ in },
        _ body: (RedisClient, Told) async throws -> Void
    ) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
        var named = RedisSentinels(endpoints: sentinels, master: "shop")
        // A busy machine is slow, and slow is not what is tested here.
        named.answerTimeout = .seconds(20)
        named.searchTimeout = .seconds(120)
        named.watchSilence = .seconds(20)
        named.checkInterval = .seconds(600)
        named.answerAge = .milliseconds(20)
        var configuration = RedisConfiguration()
        configuration.commandTimeout = .seconds(20)
        configuration.silenceLimit = .seconds(20)
        configuration.preparationTimeout = .seconds(20)
        configuration.connectTimeout = .seconds(20)
        change(&configuration, &named)
        configuration.address = .sentinels(named)
        let told = Told()
        let client = RedisClient(configuration: configuration, eventLoopGroup: group, masterHooks: told.hooks)
        try await thenShutdown(group, client.shutdown) { try await body(client, told) }
    }

    /// A port where nobody listens, and that no other test is given.
    private static let nobody = RedisEndpoint(host: "127.0.0.1", port: 1)

    /// Every search that has begun has asked this sentinel, which has answered, and one connection is left: the subscription.
    private func isSearched(_ client: RedisClient, _ sentinel: ScriptedRedis, atLeast searches: Int) -> Bool {
        let begun = client.snapshot().masterSearches
        // A search asks two questions of a sentinel.
        return begun >= searches && sentinel.count("SENTINEL") >= 2 * begun && sentinel.open == 1
    }

    /// Sentinels that are away, silent, closing, odd, of another shop or name a replica come before one that names the master. Whoever is silent costs his time.
    @Test func oneGoodSentinelIsEnough() async throws {
        let master = try await ScriptedRedis(RESP.server())
        let replica = try await ScriptedRedis(RESP.server(RESP.replica))
        let silent = try await ScriptedRedis { _ in nil }
        let closing = try await ScriptedRedis { _ in ScriptedRedis.closing }
        let odd = try await ScriptedRedis { _ in "*2\r\n$1\r\nh\r\n$1\r\nx\r\n" }
        let stranger = try await ScriptedRedis(RESP.sentinel(master.endpoint, name: "other"))
        let wrong = try await ScriptedRedis(RESP.sentinel(replica.endpoint))
        let good = try await ScriptedRedis(RESP.sentinel(master.endpoint, epoch: nil))
        let away = Self.nobody
        let bad = [silent, closing, odd, stranger, wrong]
        let endpoints = bad.map(\.endpoint) + [away]
        try await with(endpoints + [good.endpoint]) {
            // Whoever is silent costs this, and a busy machine may need some of it for the good one.
            $1.answerTimeout = .seconds(4)
        } _: { client, told in
            try await client.waitUntilConnected(timeout: .seconds(120))
            #expect(client.master == master.endpoint)
            #expect(client.snapshot().ready == 2, "every event loop has its connection")
            #expect(told.masters == ["\(master.endpoint) by \(good.endpoint)"] && told.troubles.isEmpty)
            #expect(try await client.send(.ping).string == "PONG")
            #expect(replica.count("PING") == 0, "a replica is asked for its role and no more")
        }
        // Without the good one nobody names a master that is one, and each says why.
        await good.stop()
        try await with(endpoints) {
            $1.answerTimeout = .seconds(4)
        } _: { client, told in
            let error = await #expect(throws: RedisError.self) { try await client.send(.ping, timeout: .milliseconds(100)) }
            #expect(error?.code == .notConnected && error?.isOutcomeUnknown == false)
            try await eventually("it is told") { !told.troubles.isEmpty }
            let words = try #require(told.troubles.first)
            for text in [
                "\(silent.endpoint): redis: timed out", "\(closing.endpoint): redis: connection lost",
                "\(odd.endpoint): its answer cannot be read",
                "\(stranger.endpoint): it knows no master of this name",
                "\(wrong.endpoint): it names \(replica.endpoint), which says that it is a replica (sync)",
                "\(away): ",
            ] { #expect(words.contains(text), "\(text) in \(words)") }
            #expect(told.masters.isEmpty && client.master == nil)
        }
        for server in bad + [master, replica] { await server.stop() }
    }

    /// The sentinels have credentials of their own; neither end hears the other's.
    @Test func credentialsOfBothEnds() async throws {
        let master = try await ScriptedRedis(RESP.server())
        let sentinel = try await ScriptedRedis(RESP.sentinel(master.endpoint))
        try await with([sentinel.endpoint]) { configuration, sentinels in
            configuration.username = "shop"
            configuration.password = "gate-secret"
            sentinels.username = "asker"
            sentinels.password = "sentinel-secret"
        } _: { client, _ in
            try await client.waitUntilConnected(timeout: .seconds(60))
            try await eventually("it listens") { client.snapshot().sentinelsHeard == 1 }
            #expect(Set(sentinel.commands.filter { $0[0] == "AUTH" }) == [["AUTH", "asker", "sentinel-secret"]])
            #expect(Set(master.commands.filter { $0[0] == "AUTH" }) == [["AUTH", "shop", "gate-secret"]])
        }
        sentinel.say { $0.first == "AUTH" ? "-WRONGPASS invalid sentinel-secret\r\n" : "-NOAUTH Authentication required.\r\n" }
        try await with([sentinel.endpoint]) {
            $1.password = "sentinel-secret"
        } _: { client, told in
            await #expect(throws: RedisError.self) { try await client.send(.ping, timeout: .milliseconds(100)) }
            try await eventually("it is told") { !told.troubles.isEmpty }
            #expect(told.troubles.allSatisfy { $0.contains("WRONGPASS") && !$0.contains("secret") }, "\(told.troubles)")
        }
        for server in [master, sentinel] { await server.stop() }
    }

    /// A server says READONLY: the command is known not to have run, and the client connects to the one that the sentinel names now.
    @Test(arguments: [
        "-READONLY You can't write against a read only replica.\r\n",
        "-ERR Error running script (call to f_1): @user_script:1: -READONLY You can't write against a read only replica.\r\n",
    ])
    func readOnly(_ reply: String) async throws {
        let (old, new) = (try await ScriptedRedis(RESP.server()), try await ScriptedRedis(RESP.server()))
        let sentinel = try await ScriptedRedis(RESP.sentinel(old.endpoint, epoch: 1))
        // The answer would serve for long: it is READONLY that has the client ask. (The old server goes on saying that it is a master.)
        try await with([sentinel.endpoint]) {
            $1.answerAge = .seconds(600)
        } _: { client, told in
            try await client.waitUntilConnected(timeout: .seconds(60))
            try await eventually("the search behind the subscription is over") { isSearched(client, sentinel, atLeast: 2) }
            sentinel.say(RESP.sentinel(new.endpoint, epoch: 2))
            old.say { $0.first == "SET" ? reply : RESP.server()($0) }
            let error = await #expect(throws: RedisError.self) { try await client.send(.set("k", "v")) }
            #expect(error?.isOutcomeUnknown == false && error?.serverError?.isReadOnly == true)
            try await eventually("both loops are at the new master") { new.open == 2 && old.open == 0 && client.snapshot().ready == 2 }
            #expect(try await client.send(.set("k", "v")).string == "OK")
            #expect(old.count("SET") == 1, "it was not sent again")
            #expect(told.masters.count == 2 && client.snapshot().masterChanges == 1)
        }
        for server in [old, new, sentinel] { await server.stop() }
    }

    /// A sentinel tells of a change: the client asks, and goes where the answer says, not where the message does.
    @Test func aSwitchIsAHint() async throws {
        let (old, new, liar) = (
            try await ScriptedRedis(RESP.server()), try await ScriptedRedis(RESP.server()), try await ScriptedRedis(RESP.server())
        )
        let sentinel = try await ScriptedRedis(RESP.sentinel(old.endpoint, epoch: 1))
        try await with([sentinel.endpoint]) { client, told in
            try await client.waitUntilConnected(timeout: .seconds(60))
            try await eventually("it listens") { client.snapshot().sentinelsHeard == 1 }
            try await eventually("the search behind the subscription is over") { isSearched(client, sentinel, atLeast: 2) }
            let (connects, searches) = (client.snapshot().connects, client.snapshot().masterSearches)
            // The master is the same: every connection stays.
            sentinel.push(RESP.switched("shop", to: liar.endpoint))
            try await eventually("it asked") { isSearched(client, sentinel, atLeast: searches + 1) }
            try await eventually("the question for the role is over") { old.open == 2 }
            #expect(client.snapshot().connects == connects && client.snapshot().disconnects == 0)
            // Another master: all connections move.
            sentinel.say(RESP.sentinel(new.endpoint, epoch: 2))
            sentinel.push(RESP.switched("shop", to: liar.endpoint))
            try await eventually("all connections moved") { new.open == 2 && old.open == 0 && client.snapshot().ready == 2 }
            #expect(liar.accepted == 0 && client.master == new.endpoint)
            try await eventually("both messages were heard") { client.snapshot().masterSwitchesHeard == 2 }
            #expect(told.masters.count == 2)
            // An older configuration: nothing moves, even if its master says that it is one.
            let before = client.snapshot().masterSearchesFailed
            sentinel.say(RESP.sentinel(old.endpoint, epoch: 1))
            let second = try await ScriptedRedis(RESP.sentinel(nil))
            sentinel.push(RESP.switched("shop", to: old.endpoint))
            // One of one is more than half of the sentinels: they were set up anew.
            try await eventually("the only sentinel is believed") { client.master == old.endpoint }
            #expect(client.snapshot().masterSearchesFailed == before)
            await second.stop()
        }
        for server in [old, new, liar, sentinel] { await server.stop() }
    }

    /// One of three sentinels is cut off from the others and goes on naming the old master, which says that it is one.
    @Test func aSentinelThatIsCutOffMovesNothing() async throws {
        let (old, new) = (try await ScriptedRedis(RESP.server()), try await ScriptedRedis(RESP.server()))
        let alone = try await ScriptedRedis(RESP.sentinel(old.endpoint, epoch: 1))
        let others = [
            try await ScriptedRedis(RESP.sentinel(new.endpoint, epoch: 2)), try await ScriptedRedis(RESP.sentinel(new.endpoint, epoch: 2)),
        ]
        try await with((others + [alone]).map(\.endpoint)) {
            $1.checkInterval = .milliseconds(20)
        } _: { client, told in
            // At the start nothing is known: whichever sentinel answers first is believed, and the next answer of another one corrects it.
            try await client.waitUntilConnected(timeout: .seconds(60))
            try await eventually("the new master is known") { client.master == new.endpoint }
            let asked = alone.commands.count { $0 == ["SENTINEL", "MASTER", "shop"] }
            try await eventually("the one that is cut off was asked, again and again") {
                alone.commands.count { $0 == ["SENTINEL", "MASTER", "shop"] } >= asked + 5
            }
            #expect(client.master == new.endpoint)
            // It alone answers: nothing is found, and nothing moves.
            try await eventually("both loops are at the new master") { old.open == 0 && client.snapshot().ready == 2 && new.open >= 2 }
            let connects = client.snapshot().connects
            for other in others { other.say { _ in ScriptedRedis.closing } }
            let failed = client.snapshot().masterSearchesFailed
            try await eventually("it alone answers") { client.snapshot().masterSearchesFailed > failed + 3 }
            #expect(client.master == new.endpoint && client.snapshot().connects == connects && new.open >= 2)
            #expect(told.troubles.last?.contains("\(alone.endpoint): it names \(old.endpoint), of an older configuration") == true)
        }
        for server in others + [old, new, alone] { await server.stop() }
    }

    /// Each new connection asks: the master has gone without a message.
    @Test func aLostConnectionAsksAgain() async throws {
        let (old, new) = (try await ScriptedRedis(RESP.server()), try await ScriptedRedis(RESP.server()))
        let sentinel = try await ScriptedRedis(RESP.sentinel(old.endpoint))
        try await with([sentinel.endpoint]) { client, told in
            try await client.waitUntilConnected(timeout: .seconds(60))
            await old.stop()
            try await eventually("nothing is found") { !told.troubles.isEmpty && client.snapshot().ready == 0 }
            sentinel.say(RESP.sentinel(new.endpoint, epoch: 1))
            try await client.waitUntilConnected(timeout: .seconds(60))
            #expect(new.open >= 2 && client.master == new.endpoint)
        }
        for server in [new, sentinel] { await server.stop() }
    }

    /// The server was a master when the search asked, and is none when a connection is made: it is not handed out.
    @Test func aRoleThatChangesMeanwhile() async throws {
        let roles = Mutex(0)
        let server = try await ScriptedRedis { command in
            guard command.first == "ROLE" else { return RESP.server()(command) }
            let asked = roles.withLock { count in
                count += 1
                return count
            }
            // By turns: the search is told master, the connection replica, until both are told master.
            return asked < 8 && asked.isMultiple(of: 2) ? RESP.replica : RESP.master
        }
        // It cannot be listened to: a hint would have the client search once more, out of turn.
        let answers = RESP.sentinel(server.endpoint)
        let sentinel = try await ScriptedRedis { $0.first == "SUBSCRIBE" ? "-NOPERM no\r\n" : answers($0) }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        var sentinels = RedisSentinels(endpoints: [sentinel.endpoint], master: "shop")
        sentinels.answerTimeout = .seconds(20)
        sentinels.checkInterval = .seconds(600)
        var configuration = RedisConfiguration(address: .sentinels(sentinels))
        configuration.preparationTimeout = .seconds(20)
        let client = RedisClient(configuration: configuration, eventLoopGroup: group)
        try await client.waitUntilConnected(timeout: .seconds(60))
        #expect(client.snapshot().connectFailures == 3)
        #expect(roles.withLock { $0 } == 8)
        await client.shutdown()
        try await group.shutdownGracefully()
        for server in [server, sentinel] { await server.stop() }
    }

    /// The sentinel that is listened to goes: the next one is, and the client asks, since it may have missed something.
    @Test func theNextSentinelIsListenedTo() async throws {
        let (old, new) = (try await ScriptedRedis(RESP.server()), try await ScriptedRedis(RESP.server()))
        let sentinels = [
            try await ScriptedRedis(RESP.sentinel(old.endpoint, epoch: 1)), try await ScriptedRedis(RESP.sentinel(old.endpoint, epoch: 1)),
        ]
        try await with(sentinels.map(\.endpoint)) { client, _ in
            try await client.waitUntilConnected(timeout: .seconds(60))
            try await eventually("it listens") { sentinels.contains { $0.subscribers == 1 } }
            let first = try #require(sentinels.first { $0.subscribers == 1 })
            let other = try #require(sentinels.first { $0 !== first })
            for sentinel in sentinels { sentinel.say(RESP.sentinel(new.endpoint, epoch: 2)) }
            await first.stop()
            try await eventually("it listens to the other") { other.subscribers == 1 }
            try await eventually("it has moved") { new.open == 2 && old.open == 0 }
            // The client knows of the subscription when the answer to it has come.
            try await eventually("it knows that it listens") { client.snapshot().sentinelsHeard == 1 }
        }
        for server in sentinels + [old, new] { await server.stop() }
    }

    /// A search that waits for a silent sentinel does not hold up the end for longer than its question may take.
    @Test func closedWhileASearchRuns() async throws {
        let silent = try await ScriptedRedis { _ in nil }
        try await with([silent.endpoint]) {
            $1.answerTimeout = .seconds(2)
        } _: { client, _ in
            let sent = Task { try await client.send(.ping, timeout: .seconds(120)) }
            try await eventually("it asks") { silent.accepted > 0 }
            await client.shutdown()
            let error = await #expect(throws: RedisError.self) { try await sent.value }
            #expect(error?.code == .closed)
            try await eventually("nothing is open") { silent.open == 0 }
            await #expect(throws: RedisError.self) { try await client.send(.ping, timeout: .milliseconds(100)) }
        }
        await silent.stop()
    }
}
