import Eventually
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization
import Testing

@testable import FlashSaleKit

@Suite("The closed loop", .timeLimit(.minutes(10)))
struct ClosedLoopTests {
    private let group = MultiThreadedEventLoopGroup.singleton

    private func run(
        _ request: ClosedLoop.Request,
        connections: Int,
        // Longer than a busy machine stands still: what has to happen within it happens at its very beginning.
        duration: Duration = .seconds(2),
        status: @escaping @Sendable (Int) -> Int? = { _ in 200 },
        closes: Bool = false
    ) async throws -> (figures: ClosedLoop.Figures, seen: [CountingServer.Seen]) {
        let server = try await CountingServer(group: group, closes: closes, status: status)
        let endpoint = try HTTPEndpoint("http://127.0.0.1:\(server.port)")
        let figures = try await ClosedLoop.run(request, at: endpoint, connections: connections, for: duration, on: group.next())
        await server.close()
        return (figures, server.seen)
    }

    private let decrease = ClosedLoop.Request(
        "PATCH",
        "/products/1/stock",
        .numbered(before: "{\"orderId\":", after: ",\"quantity\":1}", keyPrefix: "DEC-"),
        after: 99_999_999_999_999
    )

    @Test func everyRequestHasAKeyAndABodyOfItsOwnAndIsCountedOnce() async throws {
        let (figures, seen) = try await run(decrease, connections: 8)
        #expect(figures.broken == 0)
        #expect(figures.answered == [200: seen.count])
        #expect(figures.inTime > 8 && figures.inTime <= seen.count)
        #expect(figures.latencies.count == figures.inTime)
        #expect(figures.seconds >= 2)
        // Whole numbers, also those that a floating point would write with an exponent.
        let keys = Set(seen.map(\.key))
        #expect(keys == Set((0..<seen.count).map { "DEC-\(100_000_000_000_000 + $0)" }))
        #expect(seen.allSatisfy { $0.body == "{\"orderId\":\($0.key.dropFirst(4)),\"quantity\":1}" })
        #expect(Set(seen.map(\.head)) == ["PATCH /products/1/stock"])
    }

    @Test func aConstantBodyGoesWithOrWithoutKeys() async throws {
        let (_, with) = try await run(ClosedLoop.Request("POST", "/orders", .constant("{}", keyPrefix: "k-"), after: 4), connections: 1)
        #expect(with.first?.key == "k-5")
        #expect(with.allSatisfy { $0.body == "{}" })
        let (_, without) = try await run(ClosedLoop.Request("POST", "/orders", .constant("{}", keyPrefix: nil)), connections: 1)
        #expect(Set(without.map(\.key)) == [""])
        let (figures, bare) = try await run(ClosedLoop.Request("GET", "/x", .none), connections: 1)
        #expect(bare.allSatisfy { $0.body.isEmpty && $0.head == "GET /x" })
        #expect(figures.answers == bare.count)
    }

    @Test func pathsAreDrawnAsTheSpreadSays() async throws {
        let paths = (1...50).map { "/products/\($0)/stock" }
        func drawn(_ spread: ProductSpread) async throws -> [String: Int] {
            let request = ClosedLoop.Request("PATCH", paths: paths, spread: spread, .numbered(before: "", after: "", keyPrefix: "k-"))
            let (figures, seen) = try await run(request, connections: 8) { _ in 200 }
            #expect(figures.answers == seen.count)
            #expect(Set(seen.map(\.key)).count == seen.count)
            return Dictionary(seen.map { (String($0.head.dropFirst("PATCH ".count)), 1) }, uniquingKeysWith: +)
        }
        // The generator's seed is the same each time: only how many it sends differs.
        let even = try await drawn(.even)
        #expect(even.count == 50)
        let zipf = try await drawn(.zipf(1))
        let all = zipf.values.reduce(0, +)
        // 22 % by 1 / (1 + 1/2 + ... + 1/50), 2 % if all were alike.
        #expect(zipf[paths[0], default: 0] * 100 > all * 15)
        #expect(zipf[paths[0], default: 0] * 100 < all * 30)
    }

    @Test func statusesAreToldApart() async throws {
        let (figures, seen) = try await run(decrease, connections: 4) { $0 % 3 == 0 ? 400 : 200 }
        #expect(figures.answered[400] == seen.count / 3)
        #expect(figures.answers == seen.count)
    }

    @Test func theRequestsUnderWayAtTheEndAreAnsweredAndNotInTime() async throws {
        // One connection whose third request is answered after the time is over.
        let server = try await ScriptedServer(
            [.answer([ScriptedServer.ok]), .answer([ScriptedServer.ok]), .late(.milliseconds(2_500), ScriptedServer.ok)],
            group: group
        )
        let endpoint = try HTTPEndpoint("http://127.0.0.1:\(server.address.port ?? 0)")
        let figures = try await ClosedLoop.run(
            ClosedLoop.Request("GET", "/", .none),
            at: endpoint,
            connections: 1,
            for: .seconds(2),
            on: group.next()
        )
        await server.close()
        #expect(figures.answers == 3)
        #expect(figures.inTime == 2)
        #expect(figures.broken == 0)
    }

    @Test func aConnectionThatEndsIsBroken() async throws {
        let (figures, _) = try await run(decrease, connections: 2, closes: true)
        #expect(figures.broken == 2)
        #expect(figures.firstFailure != nil)
    }

    @Test func anAnswerThatDoesNotComeEndsTheRun() async throws {
        let (figures, _) = try await run(decrease, connections: 3) { $0 > 10 ? nil : 200 }
        #expect(figures.broken == 3)
        #expect(figures.answers == 10)
        #expect(figures.firstFailure == HTTPFailure.timedOut.description)
    }

    @Test func aPauseMakesItSlower() async throws {
        let server = try await CountingServer(group: group, closes: false) { _ in 200 }
        let endpoint = try HTTPEndpoint("http://127.0.0.1:\(server.port)")
        let figures = try await ClosedLoop.run(
            decrease,
            at: endpoint,
            connections: 2,
            for: .milliseconds(500),
            pause: .milliseconds(50),
            on: group.next()
        )
        await server.close()
        // Ten turns of a connection at most, were the server infinitely quick and every wait the mean.
        #expect(figures.answers > 0 && figures.answers < 80)
    }

    @Test func nobodyListening() async throws {
        let server = try await CountingServer(group: group, closes: false) { _ in 200 }
        let endpoint = try HTTPEndpoint("http://127.0.0.1:\(server.port)")
        await server.close()
        await #expect(throws: HTTPFailure.self) {
            _ = try await ClosedLoop.run(decrease, at: endpoint, connections: 1, for: .seconds(1), on: group.next())
        }
    }
}

@Suite("A child process", .timeLimit(.minutes(10)))
struct ChildProcessTests {
    @Test func endsWithItsGroup() async throws {
        let log = "/tmp/child-process-test-\(UInt32.random(in: 0 ... .max))"
        let child = try ChildProcess(
            ["/bin/sh", "-c", "trap '' TERM; sleep 300 & echo $!; wait; wait"],
            environment: ["PATH": "/usr/bin:/bin"],
            log: log
        )
        let grandchild = try await eventuallyFound("a process in: \(child.lastLines)") {
            Int32(child.lastLines.trimmingCharacters(in: .newlines))
        }
        #expect(child.isRunning)
        // A signal is for the whole group. Nobody else stops processes: the watcher kills them.
        child.signal(SIGSTOP)
        #expect(try await eventually { state(of: grandchild) == "T" })
        child.signal(SIGCONT)
        await child.end(patience: .milliseconds(100))
        #expect(!child.isRunning)
        // Killed as well; it may stay in the process table as long as nobody reaps it.
        #expect(try await eventually { !isAlive(grandchild) })
        unlink(log)
    }

    @Test func oneThatIsNotThere() {
        #expect(throws: ChildProcess.Failure.self) { try ChildProcess(["/nonexistent/program"], environment: [:], log: "/dev/null") }
    }

    private func isAlive(_ pid: pid_t) -> Bool { state(of: pid).map { $0 != "Z" } ?? false }

    /// As `/proc` has it: `T` is stopped, `Z` has ended and waits to be reaped. Nil for none.
    private func state(of pid: pid_t) -> Character? {
        guard let stat = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8), let close = stat.lastIndex(of: ")") else {
            return nil
        }
        return stat[close...].dropFirst(2).first
    }
}

/// Answers every request with the status that its number is given, from 1; nil for no answer.
private final class CountingServer: Sendable {
    struct Seen: Sendable {
        var head: String
        var key: String
        var body: String
    }

    private let log = Mutex<[Seen]>([])
    private let channel: any Channel
    let port: Int

    var seen: [Seen] { log.withLock { $0 } }

    init(group: any EventLoopGroup, closes: Bool, status: @escaping @Sendable (Int) -> Int?) async throws {
        let take = Mutex<(@Sendable (Seen) -> Int)?>(nil)
        let number: @Sendable (Seen) -> Int = { seen in take.withLock { $0 }?(seen) ?? 0 }
        channel = try await ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 256)
            .childChannelInitializer { channel in
                channel.pipeline.configureHTTPServerPipeline().flatMapThrowing {
                    try channel.pipeline.syncOperations.addHandler(Handler(number: number, closes: closes, status: status))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        port = channel.localAddress?.port ?? 0
        take.withLock {
            $0 = { [self] seen in
                log.withLock { log in
                    log.append(seen)
                    return log.count
                }
            }
        }
    }

    func close() async { try? await channel.close().get() }

    private final class Handler: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        typealias OutboundOut = HTTPServerResponsePart

        private let number: @Sendable (Seen) -> Int
        private let closes: Bool
        private let status: @Sendable (Int) -> Int?
        private var seen = Seen(head: "", key: "", body: "")

        init(number: @escaping @Sendable (Seen) -> Int, closes: Bool, status: @escaping @Sendable (Int) -> Int?) {
            self.number = number
            self.closes = closes
            self.status = status
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            switch unwrapInboundIn(data) {
            case .head(let head):
                seen = Seen(head: "\(head.method.rawValue) \(head.uri)", key: head.headers.first(name: "Idempotency-Key") ?? "", body: "")
            case .body(let bytes): seen.body += String(buffer: bytes)
            case .end:
                let count = number(seen)
                if closes { return context.close(promise: nil) }
                guard let status = status(count) else { return }
                let head = HTTPResponseHead(version: .http1_1, status: .init(statusCode: status), headers: ["Content-Length": "0"])
                context.write(wrapOutboundOut(.head(head)), promise: nil)
                context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
            }
        }
    }
}
