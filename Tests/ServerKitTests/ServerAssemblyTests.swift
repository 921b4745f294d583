import CircuitBreaker
import Eventually
import HotPath
import Hummingbird
import Logging
import ServerMetrics
import NIOCore
import NIOEmbedded
import NIOPosix
import ServiceLifecycle
import Synchronization
import Testing

@testable import ServerKit

/// Real sockets: what only shows between a client and a running server.
@Suite struct ServerAssemblyTests {
    /// What happened, in order.
    private final class Trail: Sendable {
        private let entries = Mutex<[String]>([])
        func add(_ entry: String) { entries.withLock { $0.append(entry) } }
        var all: [String] { entries.withLock { $0 } }
    }

    private struct Store: Service {
        let name: String
        let trail: Trail

        func run() async throws {
            trail.add("\(name) starts")
            try? await gracefulShutdown()
            trail.add("\(name) stops")
        }
    }

    private struct Running: Service {
        let assembly: ServerAssembly
        func run() async throws { try await assembly.run() }
    }

    private func settings(_ more: [String: String] = [:]) throws -> ServerConfiguration {
        let environment = ["PUBLIC": "0", "ADMIN": "0", "SHUTDOWN_TIMEOUT": "5s"].merging(more) { $1 }
        var reader = SettingsReader(environment: environment)
        let settings = ServerConfiguration(from: &reader, publicPort: ("PUBLIC", 8081), adminPort: ("ADMIN", 9081))
        try reader.finish()
        return settings
    }

    /// Runs a server around a test and stops it as a signal would.
    private func withServer(
        trail: Trail = Trail(),
        breakers: CircuitBreakerRegistry = CircuitBreakerRegistry(),
        settings more: [String: String] = [:],
        hotPath: any HotPathEndpoint = NoHotPath(),
        heartbeat: Duration = .milliseconds(50),
        _ test: @Sendable (ServerAssembly.Ports) async throws -> Void
    ) async throws {
        let registry = MetricsRegistry()
        let metrics = HTTPMetrics(registry: registry)
        let router = ServerRouter(metrics: metrics)
        let drain = ServerDrain()
        HealthRoutes(checks: [], drain: drain).register(on: router)
        router.post("echo") { request, _ in
            let body = try await request.jsonBody()
            return Response.json(bytes: body)
        }
        router.get("document") { _, _ in Response.text(String(repeating: "x", count: 60_000)) }
        router.get("endless") { _, _ in
            Response(
                status: .ok,
                body: ResponseBody { writer in
                    // Ends when the connection does.
                    while true {
                        try await writer.write(ByteBuffer(repeating: 0x78, count: 64 * 1024))
                        trail.add("64 KiB")
                    }
                }
            )
        }
        router.get("large") { _, _ in Response.text(String(repeating: "x", count: 8_000_000)) }
        router.get("slow") { _, _ in
            trail.add("slow starts")
            try await Task.sleep(for: .milliseconds(300))
            trail.add("slow ends")
            return Response.text("slow")
        }
        let admin = ServerAssembly.adminRouter(metrics: metrics, registry: registry, tokens: .none)
        CircuitBreakerRoutes(registry: breakers, heartbeat: heartbeat).register(on: admin)
        for each in [router, admin] {
            each.get("held") { _, _ in
                trail.add("held starts")
                let deadline = ContinuousClock.now + .seconds(30)
                while !trail.all.contains("released"), ContinuousClock.now < deadline { try await Task.sleep(for: .milliseconds(10)) }
                trail.add("held ends")
                return Response.text("held")
            }
        }
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let (ready, continuation) = AsyncStream<ServerAssembly.Ports>.makeStream()
        let assembly = ServerAssembly(
            name: "test-server",
            settings: try settings(more),
            logger: logger,
            publicRouter: router,
            adminRouter: admin,
            registry: registry,
            services: [Store(name: "one", trail: trail), Store(name: "two", trail: trail)],
            hotPath: hotPath,
            drain: drain,
            prepare: { trail.add("prepared") },
            onReady: {
                trail.add("ready")
                continuation.yield($0)
            }
        )
        let group = ServiceGroup(services: [Running(assembly: assembly)], logger: logger)
        async let running: Void = group.run()
        var ports: ServerAssembly.Ports?
        for await bound in ready {
            ports = bound
            break
        }
        do {
            try await test(try #require(ports))
        } catch {
            await group.triggerGracefulShutdown()
            _ = try? await running
            throw error
        }
        await group.triggerGracefulShutdown()
        try await running
    }

    /// Sends bytes, and reads until the server closes or `until` occurs. Bounded by ten seconds.
    private func exchange(_ port: Int, _ texts: [String], until: String? = nil, into trail: Trail? = nil) async throws -> String {
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .connectTimeout(.seconds(5))
            .connect(host: "127.0.0.1", port: port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                }
            }
        let deadline = channel.channel.eventLoop.scheduleTask(in: .seconds(60)) { channel.channel.close(promise: nil) }
        defer { deadline.cancel() }
        return try await channel.executeThenClose { inbound, outbound in
            var answer = ""
            for text in texts {
                // A server that has refused closes while the rest is still sent.
                do { try await outbound.write(ByteBuffer(string: text)) } catch { break }
            }
            do {
                for try await part in inbound {
                    answer += String(buffer: part)
                    trail?.add(String(buffer: part))
                    if let until, answer.contains(until) { break }
                }
            } catch is IOError {
                // A reset after the answer.
            }
            return answer
        }
    }

    @Test func startsInOrderAnswersAndStopsInReverse() async throws {
        let trail = Trail()
        try await withServer(trail: trail) { ports in
            #expect(ports.publicPort > 0 && ports.adminPort > 0 && ports.publicPort != ports.adminPort)
            let live = try await exchange(ports.publicPort, ["GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"])
            #expect(live.hasPrefix("HTTP/1.1 200 OK\r\n"))
            #expect(live.hasSuffix(#"{"status":"UP"}"#))
            let metrics = try await exchange(ports.adminPort, ["GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"])
            #expect(metrics.contains(#"stockgate_http_requests_total{route="/livez",method="GET",status="200"} 1"#))
            let rebinding = try await exchange(
                ports.adminPort,
                ["GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"]
            )
            #expect(rebinding.hasPrefix("HTTP/1.1 403 "))
            // The admin's routes are not on the public port.
            let none = try await exchange(ports.publicPort, ["GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"])
            #expect(none.hasPrefix("HTTP/1.1 404 ") && none.contains("NOT_FOUND"))
        }
        let all = trail.all
        #expect(Set(all.prefix(3)) == ["one starts", "two starts", "prepared"])
        #expect(Array(all.dropFirst(3)) == ["ready", "two stops", "one stops"])
    }

    @Test func aRequestInProgressIsFinished() async throws {
        let trail = Trail()
        let client = Trail()
        try await withServer(trail: trail) { ports in
            Task {
                let text = try? await exchange(ports.publicPort, ["GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"])
                client.add(text ?? "failed")
            }
            // The stop begins behind this, with the request in it.
            try #require(try await eventually { trail.all.contains("slow starts") })
        }
        try #require(try await eventually { !client.all.isEmpty })
        #expect(client.all.first?.hasSuffix("slow") == true)
        let all = trail.all
        #expect(all.firstIndex(of: "slow ends") ?? .max < all.firstIndex(of: "two stops") ?? -1)
    }

    private let post = "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"

    @Test func anOversizeBodyIsRefusedBeforeItIsSent() async throws {
        try await withServer { ports in
            // Not one byte of the body is sent: the length is enough.
            let answer = try await exchange(ports.publicPort, [post + "Content-Length: 10000000\r\n\r\n"])
            #expect(answer.hasPrefix("HTTP/1.1 413 "))
            #expect(answer.contains("PAYLOAD_TOO_LARGE") && answer.lowercased().contains("connection: close"))
        }
    }

    @Test func anOversizeChunkedBodyIsCutOff() async throws {
        try await withServer { ports in
            // 100 MB are promised; the answer comes after a little more than 64 KiB.
            let chunk = "4000\r\n" + String(repeating: "x", count: 0x4000) + "\r\n"
            let answer = try await exchange(
                ports.publicPort,
                [post + "Transfer-Encoding: chunked\r\n\r\n"] + Array(repeating: chunk, count: 6),
                until: "}}"
            )
            #expect(answer.hasPrefix("HTTP/1.1 413 "))
            #expect(answer.contains("PAYLOAD_TOO_LARGE"))
        }
    }

    @Test func pipelinedRequestsAreAnsweredInOrder() async throws {
        try await withServer { ports in
            let one = post + "Content-Length: 7\r\n\r\n{\"a\":1}"
            let two = post + "Transfer-Encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n3\r\n:2}\r\n0\r\n\r\n"
            let last = post + "Content-Length: 99999999\r\n\r\n"
            let answer = try await exchange(ports.publicPort, [one + two + one + last])
            let first = try #require(answer.firstRange(of: #"{"a":1}"#))
            let second = try #require(answer.firstRange(of: #"{"a":2}"#))
            let refused = try #require(answer.firstRange(of: "HTTP/1.1 413"))
            #expect(first.upperBound < second.lowerBound && second.upperBound < refused.lowerBound)
            #expect(answer.split(separator: "HTTP/1.1 ").count == 4)
        }
    }

    @Test func eventsAreStreamedAndEndWithTheServer() async throws {
        let breakers = CircuitBreakerRegistry()
        let breaker = try breakers.breaker(named: "redisStock")
        breaker.transition(to: .forceOpen, by: "ann", reason: nil)
        let client = Trail()
        try await withServer(breakers: breakers) { ports in
            let request = "GET /admin/circuitbreakerevents?follow=true HTTP/1.1\r\nHost: localhost\r\n\r\n"
            Task {
                let text = try? await exchange(ports.adminPort, [request], into: client)
                client.add(text ?? "failed")
                client.add("end")
            }
            // What was before, then a heartbeat: now the stream is live.
            try #require(try await eventually { client.all.joined().contains(":\n\n") })
            #expect(client.all.joined().contains("event: STATE_TRANSITION\ndata: {\"circuitBreakerName\":\"redisStock\""))
            breaker.transition(to: .close, by: "bob", reason: nil)
            try #require(try await eventually { client.all.joined().contains("FORCED_OPEN_TO_CLOSED") })
        }
        try #require(try await eventually { client.all.last == "end" })
        let text = client.all.dropLast().last ?? ""
        #expect(text.contains("content-type: text/event-stream") || text.contains("Content-Type: text/event-stream"))
        // Each event once, and the end of a chunked body: the server has ended the stream itself.
        #expect(text.split(separator: "CLOSED_TO_FORCED_OPEN").count == 2)
        #expect(text.split(separator: "FORCED_OPEN_TO_CLOSED").count == 2)
        #expect(text.hasSuffix("0\r\n\r\n"))
    }

    /// A master of a cluster that takes over has a breaker of its own, and one that comes back has its old name.
    @Test func aStreamHasTheEventsOfBreakersThatCome() async throws {
        let breakers = CircuitBreakerRegistry()
        let client = Trail()
        try await withServer(breakers: breakers) { ports in
            let request = "GET /admin/circuitbreakerevents?follow=true HTTP/1.1\r\nHost: localhost\r\n\r\n"
            Task { _ = try? await exchange(ports.adminPort, [request], into: client) }
            try await eventually("in the stream: \(client.all)") { client.all.joined().contains(":\n\n") }
            func count(_ text: String) -> Int { client.all.joined().ranges(of: text).count }
            let first = try breakers.breaker(named: "redisStock@a")
            first.transition(to: .forceOpen, by: "ann", reason: nil)
            try await eventually("in the stream: \(client.all)") { count("id: redisStock@a-1\nevent: STATE_TRANSITION") == 1 }
            first.transition(to: .close, by: "ann", reason: nil)
            try await eventually("in the stream: \(client.all)") { count("FORCED_OPEN_TO_CLOSED") == 1 }
            breakers.remove(named: "redisStock@a")
            let second = try breakers.breaker(named: "redisStock@a")
            second.transition(to: .disable, by: "ann", reason: nil)
            try await eventually("in the stream: \(client.all)") { count("CLOSED_TO_DISABLED") == 1 }
            second.transition(to: .forceOpen, by: "ann", reason: nil)
            try await eventually("in the stream: \(client.all)") { count("DISABLED_TO_FORCED_OPEN") == 1 }
            #expect(count("event: STATE_TRANSITION") == 4)
        }
    }

    /// Between two heartbeats, which would find a client that has gone.
    @Test(arguments: [false, true]) func aStreamOfEventsGivesItsPlaceBackWhenItsClientGoes(isHalf: Bool) async throws {
        try await withServer(heartbeat: .seconds(3600)) { ports in
            let request = "GET /admin/circuitbreakerevents?follow=true HTTP/1.1\r\nHost: localhost\r\n\r\n"
            var followers: [any Channel] = []
            for _ in 0..<CircuitBreakerRoutes.maximumFollowers {
                let begun = Trail()
                let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                    .channelOption(.allowRemoteHalfClosure, value: true)
                    .channelInitializer { channel in
                        channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Listener(trail: begun)) }
                    }
                    .connect(host: "127.0.0.1", port: ports.adminPort).get()
                try await channel.writeAndFlush(ByteBuffer(string: request))
                followers.append(channel)
                try #require(try await eventually { begun.all.joined().contains(":\n\n") })
            }
            let full = try await exchange(ports.adminPort, [request], until: "OVERLOADED")
            #expect(full.hasPrefix("HTTP/1.1 503"))
            for channel in followers { try await channel.close(mode: isHalf ? .output : .all) }
            // All places are free again, not one alone.
            var later: [any Channel] = []
            for _ in 0..<CircuitBreakerRoutes.maximumFollowers {
                let deadline = ContinuousClock.now + .seconds(60)
                while true {
                    let begun = Trail()
                    let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                        .channelInitializer { channel in
                            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Listener(trail: begun)) }
                        }
                        .connect(host: "127.0.0.1", port: ports.adminPort).get()
                    later.append(channel)
                    try await channel.writeAndFlush(ByteBuffer(string: request))
                    try #require(try await eventually { begun.all.joined().contains("\r\n\r\n") })
                    if begun.all.joined().hasPrefix("HTTP/1.1 200") { break }
                    try #require(ContinuousClock.now < deadline)
                }
            }
            for channel in followers + later { try? await channel.close() }
        }
    }

    /// Notes what a client gets.
    private final class Listener: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        let trail: Trail

        init(trail: Trail) { self.trail = trail }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) { trail.add(String(buffer: unwrapInboundIn(data))) }
    }

    /// Answers nothing until it is let go.
    private final class Held: HotPathEndpoint {
        let count = Mutex(0)
        private let answers = Mutex<[NIOLoopBound<(HotPathAnswer) -> Void>]>([])

        func match(_ head: RequestHead) -> Bool? { head.path == "/held" ? true : nil }

        func respond(
            to match: Bool,
            head: RequestHead,
            body: ByteBuffer,
            on eventLoop: any EventLoop,
            answer: @escaping (HotPathAnswer) -> Void
        ) {
            count.withLock { $0 += 1 }
            let bound = NIOLoopBound(answer, eventLoop: eventLoop)
            answers.withLock { $0.append(bound) }
        }

        func letGo() {
            for answer in answers.withLock({ $0 }) { answer.eventLoop.execute { answer.value(HotPathAnswer(json: [0x31])) } }
        }
    }

    /// What a gauge of the admin port says.
    private func metric(_ name: String, _ port: Int) async throws -> String? {
        let text = try await exchange(port, ["GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"])
        return text.split(separator: "\n").first { $0.hasPrefix(name + " ") }.map { String($0.dropFirst(name.utf8.count + 1)) }
    }

    private func wait(for name: String, toBe value: String, _ ports: ServerAssembly.Ports) async throws {
        var last: String?
        try await eventually("\(name) is \(value), and not \(last ?? "unknown")") {
            last = try await metric(name, ports.adminPort)
            return last == value
        }
    }

    @Test func resetsDuringAHotRequestLeaveNothingBehind() async throws {
        let held = Held()
        try await withServer(hotPath: held) { ports in
            let request = ByteBuffer(string: "PATCH /held HTTP/1.1\r\nHost: localhost\r\n\r\n")
            for round in 1...200 {
                let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                    .connect(host: "127.0.0.1", port: ports.publicPort).get()
                try await channel.writeAndFlush(request)
                try #require(try await eventually { held.count.withLock { $0 } == round })
                // With this linger a close is a reset.
                let provider = try #require(channel as? any SocketOptionProvider)
                try await provider.setSoLinger(linger(l_onoff: 1, l_linger: 0)).get()
                try await channel.close()
            }
            try await wait(for: #"stockgate_http_connections{port="public"}"#, toBe: "0", ports)
            held.letGo()
            // The stop that follows would not end with a connection left.
        }
    }

    /// Asks on one kept connection without a pause, until it is told to go elsewhere. A connection that ends without an answer is an error.
    private static func askUntilSentAway(_ port: Int, _ trail: Trail) async throws {
        let text = "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(host: "127.0.0.1", port: port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
                }
            }
        try await channel.executeThenClose { inbound, outbound in
            try await outbound.write(ByteBuffer(string: text))
            for try await part in inbound {
                let answer = String(buffer: part)
                trail.add(answer.contains("stopping") ? "unready" : "ready")
                if answer.contains("Connection: close") { return trail.add("sent away") }
                try await outbound.write(ByteBuffer(string: text))
            }
            throw CancellationError()
        }
    }

    @Test func aStopFirstSendsItsClientsElsewhereAndLosesNoRequest() async throws {
        let trail = Trail()
        let clients = Mutex<[Task<Void, any Error>]>([])
        try await withServer(settings: ["LAME_DUCK": "3s"]) { ports in
            clients.withLock { clients in
                for _ in 0..<8 { clients.append(Task { try await Self.askUntilSentAway(ports.publicPort, trail) }) }
            }
            try #require(try await eventually { trail.all.count > 100 })
        }
        for task in clients.withLock({ $0 }) { try await task.value }
        #expect(trail.all.filter { $0 == "sent away" }.count == 8)
        #expect(trail.all.contains("unready"))
    }

    /// Opens connections that say nothing, and waits until the server has let them in.
    private func silent(_ count: Int, _ ports: ServerAssembly.Ports) async throws -> [any Channel] {
        var channels: [any Channel] = []
        for _ in 0..<count {
            channels.append(
                try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton).connect(host: "127.0.0.1", port: ports.publicPort)
                    .get()
            )
        }
        // The kernel has connected them; the server may still be about to let them in.
        try await wait(for: #"stockgate_http_connections{port="public"}"#, toBe: "\(count)", ports)
        return channels
    }

    @Test func oneAddressHasItsShare() async throws {
        try await withServer(settings: ["MAX_CONNECTIONS_PER_ADDRESS": "20"]) { ports in
            let channels = try await silent(20, ports)
            let refused = try await exchange(ports.publicPort, [post + "Content-Length: 2\r\n\r\n{}"])
            #expect(refused.hasPrefix("HTTP/1.1 503 ") && refused.contains("OVERLOADED") && refused.contains("Connection: close"))
            let live = try await exchange(ports.publicPort, ["GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"])
            #expect(live.hasPrefix("HTTP/1.1 200 ") && live.contains("Connection: close"))
            for channel in channels { try await channel.close() }
            try await wait(for: #"stockgate_http_connections{port="public"}"#, toBe: "0", ports)
            let taken = try await exchange(ports.publicPort, [post + "Connection: close\r\nContent-Length: 2\r\n\r\n{}"])
            #expect(taken.hasPrefix("HTTP/1.1 200 "))
        }
    }

    @Test func healthIsAnsweredWhileTheServerIsFull() async throws {
        try await withServer(settings: ["MAX_CONNECTIONS": "20"]) { ports in
            let channels = try await silent(20, ports)
            let live = try await exchange(ports.publicPort, ["GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"])
            #expect(live.hasPrefix("HTTP/1.1 200 ") && live.contains("Connection: close"))
            let refused = try await exchange(ports.publicPort, [post + "Content-Length: 2\r\n\r\n{}"])
            #expect(refused.hasPrefix("HTTP/1.1 503 ") && refused.contains("OVERLOADED") && refused.contains("Connection: close"))
            for channel in channels { try await channel.close() }
        }
    }

    @Test func whatComesTooSlowlyOrIsNotTakenEnds() async throws {
        let times = ["REQUEST_TIMEOUT": "300ms", "ANSWER_TIMEOUT": "300ms", "IDLE_TIMEOUT": "3s"]
        try await withServer(settings: times) { ports in
            let slow = try await exchange(ports.publicPort, [post + "Content-Length: 7\r\n\r\n{"])
            #expect(slow.hasPrefix("HTTP/1.1 408 ") && slow.contains("REQUEST_TIMEOUT"))
            let idle = try await exchange(ports.publicPort, ["GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"])
            #expect(idle.hasSuffix(#"{"status":"UP"}"#))
            // A client that asks and never reads: the answers fill its socket, then the server's, then it is let go.
            let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .channelOption(.autoRead, value: false)
                .channelOption(.socketOption(.so_rcvbuf), value: 4096)
                .connect(host: "127.0.0.1", port: ports.publicPort).get()
            let body = String(repeating: "x", count: 60_000)
            let echo = post + "Content-Length: \(body.utf8.count + 2)\r\n\r\n\"\(body)\""
            for _ in 0..<400 { channel.writeAndFlush(ByteBuffer(string: echo), promise: nil) }
            try await wait(for: #"stockgate_http_connections_timed_out_total{port="public",waited_for="answer"}"#, toBe: "1", ports)
            try? await channel.close()
        }
    }

    /// A socket cannot hold these answers. The client ends its half before the first of many, or while it takes the last and the end of the server's half is waiting.
    @Test(arguments: [(100, "/document", true), (1, "/large", false)])
    func aClientThatHasFinishedSendingGetsItsAnswersWholeHoweverSlowlyItReads(count: Int, path: String, atOnce: Bool) async throws {
        try await withServer { ports in
            let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .channelOption(.allowRemoteHalfClosure, value: true)
                .channelOption(.socketOption(.so_rcvbuf), value: 4096)
                .connect(host: "127.0.0.1", port: ports.publicPort) { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try NIOAsyncChannel<ByteBuffer, ByteBuffer>(
                            wrappingChannelSynchronously: channel,
                            configuration: .init(isOutboundHalfClosureEnabled: true)
                        )
                    }
                }
            let deadline = channel.channel.eventLoop.scheduleTask(in: .seconds(300)) { channel.channel.close(promise: nil) }
            defer { deadline.cancel() }
            let text = try await channel.executeThenClose { inbound, outbound in
                let get = "GET \(path) HTTP/1.1\r\nHost: localhost\r\n"
                let last = atOnce ? get + "\r\n" : get + "Connection: close\r\n\r\n"
                try await outbound.write(ByteBuffer(string: String(repeating: get + "\r\n", count: count - 1) + last))
                if atOnce { outbound.finish() }
                var hasFinished = atOnce
                var text = ByteBuffer()
                for try await var part in inbound {
                    text.writeBuffer(&part)
                    // The pace of the reader; the server is faster.
                    try await Task.sleep(for: .milliseconds(1))
                    if !hasFinished { outbound.finish() }
                    hasFinished = true
                }
                return String(buffer: text)
            }
            let answers = ReadAnswer.all(in: text)
            #expect(answers.count == count)
            #expect(answers.allSatisfy { $0.status == 200 && $0.body.utf8.count == (count == 1 ? 8_000_000 : 60_000) })
            #expect(answers.map(\.saysClose) == Array(repeating: false, count: count - 1) + [true])
        }
    }

    /// No socket takes these answers whole. In the first case the answer is the last of its connection, in the second a request waits behind it, in the third none.
    @Test(arguments: [
        "GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\nGET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ])
    func aStopWaitsForNoClientThatTakesNothing(request: String) async throws {
        let began = Mutex(ContinuousClock.now)
        let clients = Mutex<[any Channel]>([])
        // The bounds of a stop, and of an answer that is not taken, are a minute.
        let settings = ["SHUTDOWN_TIMEOUT": "60s", "ANSWER_TIMEOUT": "60s", "LAME_DUCK": "300ms"]
        try await withServer(settings: settings) { ports in
            let channel = try await nonReader(ports.publicPort, request)
            clients.withLock { $0.append(channel) }
            try await wait(
                for: #"stockgate_http_requests_total{route="/large",method="GET",status="200"}"#,
                toBe: "1",
                ports
            )
            began.withLock { $0 = .now }
        }
        #expect(ContinuousClock.now - began.withLock { $0 } < .seconds(20))
        for channel in clients.withLock({ $0 }) { try? await channel.close() }
    }

    /// A request of one port is in work until the other port has closed its idle connection; so the stop of neither waits for the other.
    @Test(arguments: [false, true])
    func aStopOfOnePortDoesNotWaitForTheOther(holdsAdmin: Bool) async throws {
        let trail = Trail()
        let clients = Mutex<[Task<Void, any Error>]>([])
        try await withServer(trail: trail, settings: ["SHUTDOWN_TIMEOUT": "60s"]) { ports in
            let (busy, other) = holdsAdmin ? (ports.adminPort, ports.publicPort) : (ports.publicPort, ports.adminPort)
            let idle = Task {
                _ = try await exchange(other, ["GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"], into: trail)
                trail.add("released")
            }
            let held = Task {
                let answer = try await exchange(busy, ["GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n"])
                #expect(answer.hasPrefix("HTTP/1.1 200 "))
            }
            clients.withLock { $0 = [idle, held] }
            // The idle connection has had an answer, whatever it says.
            try #require(try await eventually { trail.all.contains("held starts") && trail.all.contains { $0.hasPrefix("HTTP/1.1 ") } })
        }
        for task in clients.withLock({ $0 }) { try await task.value }
        let ends = trail.all.filter { ["released", "held ends"].contains($0) }
        #expect(ends == ["released", "held ends"])
    }

    /// A socket's buffer says little of a slow client: what the client's end has acknowledged does.
    @Test func whatAClientTakesIsSeen() async throws {
        let group = MultiThreadedEventLoopGroup.singleton
        let accepted = Mutex<(any Channel)?>(nil)
        let server = try await ServerBootstrap(group: group)
            .childChannelInitializer { channel in
                accepted.withLock { $0 = channel }
                return channel.eventLoop.makeSucceededVoidFuture()
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let client = try await ClientBootstrap(group: group)
            .channelOption(.autoRead, value: false)
            .channelOption(.socketOption(.so_rcvbuf), value: 4096)
            .connect(to: try #require(server.localAddress)).get()
        try #require(try await eventually { accepted.withLock { $0 } != nil })
        let channel = try #require(accepted.withLock { $0 })
        func taken() async throws -> UInt64 {
            try await channel.eventLoop.submit { AcknowledgedBytes.of(channel) ?? .max }.get()
        }
        #expect(try await taken() < 2)
        channel.writeAndFlush(ByteBuffer(repeating: 1, count: 16_000_000), promise: nil)
        var before: UInt64 = 0
        // Each read makes room for a little more; the socket's own buffer, of some hundred kilobytes at least, shows none of it.
        for _ in 0..<10 {
            let deadline = ContinuousClock.now + .seconds(60)
            while try await taken() <= before {
                try #require(ContinuousClock.now < deadline)
                client.read()
            }
            before = try await taken()
        }
        #expect(before < 1_000_000)
        #expect(AcknowledgedBytes.of(EmbeddedChannel()) == nil)
        try await client.close()
        try await server.close()
    }

    /// A socket's own buffer has at most 4 MiB; behind it a streamed answer may hold 2 MiB.
    @Test func anAnswerThatIsStreamedWaitsForItsClientAndEndsWhenItTakesNothing() async throws {
        let trail = Trail()
        try await withServer(trail: trail, settings: ["ANSWER_TIMEOUT": "500ms"]) { ports in
            let channel = try await nonReader(ports.publicPort, "GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
            try await wait(for: #"stockgate_http_connections_timed_out_total{port="public",waited_for="answer"}"#, toBe: "1", ports)
            try await wait(for: #"stockgate_http_connections{port="public"}"#, toBe: "0", ports)
            let parts = trail.all.filter { $0 == "64 KiB" }.count
            #expect((1...96).contains(parts))
            try? await channel.close()
        }
    }

    @Test func aStreamOfEventsEndsWhoseClientTakesNothing() async throws {
        let breakers = CircuitBreakerRegistry()
        let breaker = try breakers.breaker(named: "redisStock")
        try await withServer(breakers: breakers, settings: ["ANSWER_TIMEOUT": "500ms"]) { ports in
            let request = "GET /admin/circuitbreakerevents?follow=true HTTP/1.1\r\nHost: localhost\r\n\r\n"
            let channel = try await nonReader(ports.adminPort, request)
            let name = #"stockgate_http_connections_timed_out_total{port="admin",waited_for="answer"}"#
            let deadline = ContinuousClock.now + .seconds(120)
            while try await metric(name, ports.adminPort) != "1" {
                try #require(ContinuousClock.now < deadline)
                for _ in 0..<500 {
                    breaker.transition(to: .forceOpen, by: "ann", reason: nil)
                    breaker.transition(to: .close, by: "ann", reason: nil)
                }
            }
            try? await channel.close()
        }
    }

    /// A client that asks and reads nothing.
    private func nonReader(_ port: Int, _ request: String) async throws -> any Channel {
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelOption(.autoRead, value: false)
            .channelOption(.socketOption(.so_rcvbuf), value: 4096)
            .connect(host: "127.0.0.1", port: port).get()
        try await channel.writeAndFlush(ByteBuffer(string: request))
        return channel
    }

    private struct Failing: Service {
        struct Failure: Error {}
        let ready: AsyncStream<Void>

        func run() async throws {
            for await _ in ready { break }
            throw Failure()
        }
    }

    @Test(.timeLimit(.minutes(2)))
    func aServiceThatFailsEndsTheServer() async throws {
        let metrics = HTTPMetrics(registry: MetricsRegistry())
        let (ready, continuation) = AsyncStream<Void>.makeStream()
        let assembly = ServerAssembly(
            name: "failing",
            settings: try settings(),
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
            publicRouter: ServerRouter(metrics: metrics),
            adminRouter: ServerRouter(metrics: metrics),
            services: [Failing(ready: ready)],
            onReady: { _ in continuation.yield() }
        )
        await #expect(throws: Failing.Failure.self) { try await assembly.run() }
    }

    @Test(.timeLimit(.minutes(2)))
    func aPortThatIsTakenIsAnError() async throws {
        try await withServer { ports in
            var settings = try settings()
            settings.publicPort = ports.publicPort
            let metrics = HTTPMetrics(registry: MetricsRegistry())
            let second = ServerAssembly(
                name: "second",
                settings: settings,
                logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
                publicRouter: ServerRouter(metrics: metrics),
                adminRouter: ServerRouter(metrics: metrics)
            )
            await #expect(throws: (any Error).self) { try await second.run() }
        }
    }
}
