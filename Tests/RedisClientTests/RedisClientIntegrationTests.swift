import Eventually
import NIOCore
import NIOPosix
import PrivateServers
import Synchronization
import Testing

@testable import RedisClient

/// Against a private Redis of its own for each test.
@Suite(.timeLimit(.minutes(10)))
struct RedisClientIntegrationTests {
    /// A server, a client and its loops, closed at the end.
    static func with(
        options: [String] = [],
        url: (PrivateRedis) -> String = { $0.url },
        settings change: (inout RedisConfiguration) -> Void = { _ in },
        onConnect: RedisClient.ConnectHook? = nil,
        onDisconnect: RedisClient.DisconnectHook? = nil,
        _ body: (PrivateRedis, RedisClient, any EventLoop) async throws -> Void
    ) async throws {
        let server = try PrivateRedis.start(options: options)
        defer { server.kill() }
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        var settings = try RedisConfiguration(url: url(server))
        // A busy machine is slow, and slow is not what is tested here.
        settings.commandTimeout = .seconds(30)
        settings.silenceLimit = .seconds(30)
        settings.preparationTimeout = .seconds(30)
        change(&settings)
        let client = RedisClient(configuration: settings, eventLoopGroup: group, onConnect: onConnect, onDisconnect: onDisconnect)
        try await thenShutdown(group, client.shutdown) { try await body(server, client, group.next()) }
    }

    /// Sends commands in one turn of the loop and collects the outcomes.
    static func pipeline(_ client: RedisClient, _ commands: [RedisCommand], seconds: Int64 = 30) async throws -> [Result<
        RedisValue, RedisError
    >] {
        try await client.withConnection { connection in
            let deadline = connection.eventLoop.now + .seconds(seconds)
            let promise = connection.eventLoop.makePromise(of: [Result<RedisValue, RedisError>].self)
            let outcomes = NIOLoopBoundBox([Result<RedisValue, RedisError>](), eventLoop: connection.eventLoop)
            for command in commands {
                connection.send(command, deadline: deadline) {
                    outcomes.value.append($0)
                    if outcomes.value.count == commands.count { promise.succeed(outcomes.value) }
                }
            }
            return promise.futureResult
        }
    }

    @Test func tenThousandInOrder() async throws {
        try await Self.with { _, client, _ in
            let outcomes = try await Self.pipeline(client, (0..<10_000).map { RedisCommand("ECHO", .integer($0)) })
            #expect(try outcomes.map { try $0.get().int } == (0..<10_000).map { $0 })
            #expect(client.snapshot().flushes <= 3)
            try await eventually("nothing pending") { client.snapshot().pending == 0 }
        }
    }

    @Test func scriptsAndTheirErrors() async throws {
        try await Self.with { _, client, _ in
            let missing = await #expect(throws: RedisError.self) {
                try await client.send(.evalSHA("ffffffffffffffffffffffffffffffffffffffff", keys: ["k"]))
            }
            #expect(missing?.serverError?.kind == .noScript)
            let sha = try #require(try await client.send(.scriptLoad("return {redis.call('INCRBY', KEYS[1], ARGV[1]), ARGV[2]}")).string)
            let value = try await client.send(.evalSHA(sha, keys: ["{p}:n"], arguments: [.integer(-3), "x"]))
            #expect(value == .array([.integer(-3), .bulkString([UInt8(ascii: "x")])]))
            let direct = try await client.withConnection { connection in
                let promise = connection.eventLoop.makePromise(of: RedisValue.self)
                connection.send(argumentCount: 6, deadline: connection.defaultDeadline) {
                    promise.completeWith($0.mapError { $0 as any Error })
                } write: { writer in
                    writer.write("EVALSHA" as StaticString)
                    writer.write(sha)
                    writer.write(1 as Int64)
                    writer.write("{p}:n")
                    writer.write(10 as Int64)
                    writer.write(bytes: [0])
                }
                return promise.futureResult
            }
            #expect(direct == .array([.integer(7), .bulkString([0])]))
        }
    }

    @Test func killedMidFlightIsLostAfterSending() async throws {
        try await Self.with(settings: { $0.silenceLimit = .seconds(60) }) { server, client, _ in
            _ = try await client.send(.ping)
            server.pause()
            let flushes = client.snapshot().flushes
            async let outcomes = Self.pipeline(client, Array(repeating: .ping, count: 100), seconds: 60)
            try await eventually("commands are out") { client.snapshot().pending == 100 && client.snapshot().flushes > flushes }
            server.kill()
            for outcome in try await outcomes {
                guard case .failure(let error) = outcome else { Issue.record("a reply"); continue }
                #expect(error.code == .connectionLost(sent: true) && error.isOutcomeUnknown)
            }
            try await eventually("the loss is counted") { client.snapshot().disconnects == 1 }
            // Nothing listens now: known not to be sent.
            let refused = await #expect(throws: RedisError.self) { try await client.send(.ping, timeout: .milliseconds(30)) }
            #expect(refused?.code == .notConnected)
            try await eventually("an attempt was refused") { client.snapshot().connectFailures > 0 }
            try server.restart()
            try await client.waitUntilConnected(timeout: .seconds(60))
            #expect(try await client.send(.ping).string == "PONG")
            #expect(client.snapshot().connects == 2 && client.snapshot().connectFailures > 0)
        }
    }

    @Test func aShortPauseTimesOutAndRecoversOnTheSameConnection() async throws {
        try await Self.with { server, client, _ in
            _ = try await client.send(.ping)
            server.pause()
            let error = await #expect(throws: RedisError.self) {
                // Long enough for it to leave, also on a busy machine.
                try await client.send(RedisCommand("INCR", "n"), timeout: .seconds(2))
            }
            #expect(error?.code == .timedOut(sent: true))
            #expect(client.snapshot().ready == 1 && client.snapshot().timeouts == 1)
            server.resume()
            // The late reply to the first is dropped; Redis had run it.
            #expect(try await client.send(RedisCommand("INCR", "n")).int == 2)
            #expect(client.snapshot().lateReplies == 1 && client.snapshot().connects == 1 && client.snapshot().disconnects == 0)
        }
    }

    @Test func aLongPauseEndsTheConnectionAndRecovers() async throws {
        try await Self.with(
            settings: {
                $0.silenceLimit = .milliseconds(500)
                $0.preparationTimeout = .milliseconds(500)
            },
            onConnect: { connection in connection.send(.info("server")).map { $0.string ?? "" } }
        ) { server, client, _ in
            try await client.waitUntilConnected(timeout: .seconds(60))
            server.pause()
            try await eventually("closed for silence") {
                // Only what has left is waited for in silence. One that did not in its time is followed by another one.
                _ = try? await client.send(.ping, timeout: .milliseconds(20))
                return client.snapshot().silences >= 1 && client.snapshot().ready == 0
            }
            try await eventually("an attempt fails, since the hook gets no reply") { client.snapshot().connectFailures >= 1 }
            server.resume()
            // Half a second of silence ends a connection here, and a busy machine may take longer for an answer.
            try await eventually("it answers again") { (try? await client.send(.ping))?.string == "PONG" }
        }
    }

    @Test func theHookRunsBeforeTheConnectionIsHandedOut() async throws {
        let runs = Mutex(0)
        let ends = Mutex<[RedisError.Code]>([])
        try await Self.with(
            onConnect: { connection in
                runs.withLock { $0 += 1 }
                return connection.send(.info("server")).map { $0.string ?? "" }
            },
            onDisconnect: { connection, error in
                #expect(connection.attachment is String)
                ends.withLock { $0.append(error.code) }
            }
        ) { server, client, eventLoop in
            let early = try await eventLoop.submit { client.connection(on: eventLoop) == nil }.get()
            #expect(early)
            try await client.waitUntilConnected(timeout: .seconds(60))
            let info = try await eventLoop.submit { client.connection(on: eventLoop)?.attachment as? String }.get()
            #expect(info?.contains("run_id:") == true)
            try server.restart()
            try await eventually("connected again") { client.snapshot().connects == 2 }
            #expect(runs.withLock { $0 } >= 2)
            #expect(ends.withLock { $0 } == [.connectionLost(sent: true)])
        }
    }

    @Test func aFailingHookIsTriedAgainWithBackoff() async throws {
        let runs = Mutex(0)
        try await Self.with(onConnect: { connection in
            let run = runs.withLock { count -> Int in
                count += 1
                return count
            }
            return run < 4
                ? connection.send(RedisCommand("NOSUCHCOMMAND")).map { $0.isNull } : connection.eventLoop.makeSucceededFuture("ready")
        }) { _, client, _ in
            try await client.waitUntilConnected(timeout: .seconds(60))
            #expect(client.snapshot().connectFailures == 3 && client.snapshot().connects == 1)
        }
    }

    @Test func passwordDatabaseAndUnixSocket() async throws {
        try await Self.with(options: ["--requirepass", "s3cret"], url: { "unix://:s3cret@\($0.socketPath)?db=3" }) { _, client, _ in
            try await client.waitUntilConnected(timeout: .seconds(60))
            #expect(try await client.send(RedisCommand("CLIENT", "INFO")).string?.contains(" db=3 ") == true)
        }
        try await Self.with(options: ["--requirepass", "s3cret"], url: { "redis://:wrong@127.0.0.1:\($0.port)" }) { _, client, _ in
            try await eventually("it says why") {
                let error = await #expect(throws: RedisError.self) { try await client.waitUntilConnected(timeout: .milliseconds(300)) }
                #expect(error?.code == .notConnected)
                return error?.detail?.contains("WRONGPASS") == true
            }
        }
    }

    @Test func aCancelledTaskStopsWaiting() async throws {
        try await Self.with { server, client, _ in
            _ = try await client.send(.ping)
            server.pause()
            let flushes = client.snapshot().flushes
            let task = Task { try await client.send(.ping, timeout: .seconds(30)) }
            try await eventually("the command is out") { client.snapshot().pending == 1 && client.snapshot().flushes > flushes }
            task.cancel()
            let error = await #expect(throws: RedisError.self) { try await task.value }
            #expect(error?.code == .cancelled(sent: true))
            server.resume()
            #expect(try await client.send(RedisCommand("ECHO", 5)).int == 5)
        }
    }

    @Test func closeWaitsForWhatIsOut() async throws {
        try await Self.with { server, client, _ in
            _ = try await client.send(.ping)
            server.pause()
            let flushes = client.snapshot().flushes
            async let reply = client.send(RedisCommand("ECHO", 7), timeout: .seconds(30))
            try await eventually("the command is out") { client.snapshot().pending == 1 && client.snapshot().flushes > flushes }
            async let closing: Void = client.shutdown()
            let refused = Task { () -> RedisError.Code? in
                while !Task.isCancelled {
                    do throws(RedisError) {
                        _ = try await client.send(.ping, timeout: .milliseconds(20))
                    } catch {
                        if error.code == .closed { return error.code }
                    }
                }
                return nil
            }
            #expect(await refused.value == .closed)
            server.resume()
            #expect(try await reply.int == 7)
            await closing
            await client.shutdown()
            #expect(client.snapshot().ready == 0)
        }
    }

    @Test func aServerBoundByMemoryRefusesWithItsKind() async throws {
        try await Self.with(options: ["--maxmemory", "1"]) { _, client, _ in
            let error = await #expect(throws: RedisError.self) { try await client.send(.set("k", "v")) }
            #expect(error?.serverError?.kind == .outOfMemory)
        }
    }

    @Test func privateRedisKeepsOrDropsItsData() throws {
        let server = try PrivateRedis.start()
        try server.call(["SET", "k", "1"])
        let dump = try server.saveDumpCopy()
        try server.call(["SET", "k", "2"])
        try server.restart(fromDump: dump)
        #expect(try server.call(["GET", "k"]) == "$1\r\n1\r\n")
        try server.restart()
        #expect(try server.call(["GET", "k"]) == "$-1\r\n")
        server.stop()
        #expect(server.pid == nil)
    }
}
