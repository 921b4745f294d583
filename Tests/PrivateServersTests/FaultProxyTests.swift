import Eventually
import Foundation
import NIOCore
import NIOPosix
import PrivateServers
import Testing

/// The proxy between a real client and a server that sends back what it gets.
///
/// One after another: a program that one test starts holds copies of the other tests' servers' sockets.
@Suite(.serialized, .timeLimit(.minutes(10)))
struct FaultProxyTests {
    /// Sends back what it gets, and knows how much that was.
    private final class Echo: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer

        func channelRead(context: ChannelHandlerContext, data: NIOAny) { context.writeAndFlush(data, promise: nil) }
    }

    /// What a client got: bytes as they come, then the end, with its error if there was one.
    private enum Happening: Sendable {
        case bytes(ByteBuffer)
        case broken
        case ended
    }

    private final class Listener: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        let happenings: AsyncStream<Happening>.Continuation

        init(_ happenings: AsyncStream<Happening>.Continuation) { self.happenings = happenings }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) { happenings.yield(.bytes(unwrapInboundIn(data))) }

        func errorCaught(context: ChannelHandlerContext, error: any Error) {
            happenings.yield(.broken)
            context.close(promise: nil)
        }

        func channelInactive(context: ChannelHandlerContext) {
            happenings.yield(.ended)
            happenings.finish()
        }
    }

    private struct Client {
        let channel: any Channel
        var happenings: AsyncStream<Happening>.Iterator

        /// Sends so many bytes and waits until as many came back.
        /// - Returns: the bytes and how long it took; nil when the connection ended first, with `isBroken` set when it was reset
        mutating func call(_ count: Int = 5) async throws -> (text: ByteBuffer, took: Duration)? {
            let began = ContinuousClock.now
            try await channel.writeAndFlush(ByteBuffer(repeating: 65, count: count))
            return await answer(count).map { ($0, ContinuousClock.now - began) }
        }

        var isBroken = false

        mutating func answer(_ count: Int) async -> ByteBuffer? {
            var text = ByteBuffer()
            while text.readableBytes < count {
                switch await happenings.next() {
                case .bytes(var more): text.writeBuffer(&more)
                case .broken: isBroken = true
                case .ended, nil: return nil
                }
            }
            return text
        }
    }

    private func server() async throws -> any Channel {
        try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { $0.pipeline.addHandler(Echo()) }
            .bind(host: "127.0.0.1", port: 0).get()
    }

    private func connect(_ proxy: FaultProxy) async throws -> Client {
        let (stream, continuation) = AsyncStream<Happening>.makeStream()
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { $0.pipeline.addHandler(Listener(continuation)) }
            .connect(host: "127.0.0.1", port: proxy.port).get()
        return Client(channel: channel, happenings: stream.makeAsyncIterator())
    }

    /// A server, a proxy in front of it and a first client that has been answered.
    private func hold(_ body: (FaultProxy, inout Client) async throws -> Void) async throws {
        let server = try await server()
        let proxy = try await FaultProxy.start(to: try #require(server.localAddress?.port))
        var client = try await connect(proxy)
        #expect(try await client.call()?.text.readableBytes == 5)
        try await body(proxy, &client)
        try await proxy.shutdown()
        client.channel.close(promise: nil)
        try await server.close()
    }

    @Test func bytesPassBothWays() async throws {
        try await hold { proxy, client in
            let large = try await client.call(1_000_000)
            #expect(large?.text.readableBytes == 1_000_000)
            let figures = try await proxy.snapshot()
            #expect(figures.accepted == 1 && figures.connections == 1 && figures.bytesHeld == 0)
            #expect(figures.bytesToServer == 1_000_005 && figures.bytesToClient == 1_000_005)
            try await client.channel.close()
            try await eventually("the connection is forgotten") { try await proxy.snapshot().connections == 0 }
        }
    }

    /// Answers are late, but not fewer: a hundred calls sent at once come back after one delay, not after a hundred.
    @Test func latencyDelaysWithoutLimitingThroughput() async throws {
        try await hold { proxy, client in
            try await proxy.delay(toClient: .milliseconds(200))
            let one = try #require(try await client.call())
            #expect(one.took >= .milliseconds(200))
            let began = ContinuousClock.now
            for _ in 1...100 { try await client.channel.writeAndFlush(ByteBuffer(repeating: 66, count: 1_000)) }
            #expect(await client.answer(100_000)?.readableBytes == 100_000)
            let all = ContinuousClock.now - began
            #expect(all >= .milliseconds(200) && all < .milliseconds(15_000), "a hundred delays are twenty seconds: \(all)")
            try await proxy.delay(toServer: .milliseconds(50), toClient: .milliseconds(50))
            #expect(try #require(try await client.call()).took >= .milliseconds(100))
        }
    }

    @Test func bandwidthLimitsEachDirectionByItself() async throws {
        try await hold { proxy, client in
            let count = 200_000
            for (toServer, toClient) in [(400_000, nil), (nil, 400_000)] as [(Int?, Int?)] {
                try await proxy.limit(toServer: toServer, toClient: toClient)
                let one = try #require(try await client.call(count))
                #expect(one.text.readableBytes == count)
                // Half a second, less what the line makes up for.
                #expect(one.took >= .milliseconds(400), "\(one.took)")
            }
            try await proxy.limit(toClient: 1)
            try await client.channel.writeAndFlush(ByteBuffer(repeating: 67, count: 70_000))
            try await eventually("the answer is held") { try await proxy.snapshot().bytesHeld > 60_000 }
            try await proxy.heal()
            #expect(await client.answer(70_000)?.readableBytes == 70_000)
        }
    }

    /// Bytes come in their order, however each of them is delayed.
    @Test func jitterKeepsTheOrder() async throws {
        try await hold { proxy, client in
            try await proxy.jitter(toServer: .milliseconds(5), toClient: .milliseconds(5))
            var sent: [UInt8] = []
            for number in 0..<60 {
                let bytes = [UInt8](repeating: UInt8(number), count: 50)
                sent += bytes
                try await client.channel.writeAndFlush(ByteBuffer(bytes: bytes))
            }
            #expect(await client.answer(sent.count).map { Array($0.readableBytesView) } == sent)
            // Of an hour, chance does not choose the first moments.
            for isToClient in [true, false] {
                let (toServer, toClient) = isToClient ? (Duration.zero, Duration.seconds(3_600)) : (.seconds(3_600), .zero)
                try await proxy.jitter(toServer: toServer, toClient: toClient)
                let before = try await proxy.snapshot().bytesToServer
                try await client.channel.writeAndFlush(ByteBuffer(repeating: 67, count: 7))
                try await eventually("it is held") { try await proxy.snapshot().bytesHeld == 7 }
                #expect(try await proxy.snapshot().bytesToServer == before + (isToClient ? 7 : 0))
                try await proxy.heal()
                #expect(await client.answer(7)?.readableBytes == 7)
            }
        }
    }

    /// What is held leaves at once when the fault ends.
    @Test func healingLetsGoOfWhatIsHeld() async throws {
        try await hold { proxy, client in
            try await proxy.delay(toClient: .seconds(3_600))
            try await client.channel.writeAndFlush(ByteBuffer(repeating: 67, count: 7))
            try await eventually("the answer is held") { try await proxy.snapshot().bytesHeld == 7 }
            try await proxy.heal()
            #expect(await client.answer(7)?.readableBytes == 7)
        }
    }

    @Test func stallHandsNothingOnAndHoldsLittle() async throws {
        try await hold { proxy, client in
            try await proxy.stall()
            var other = try await connect(proxy)
            // More than the proxy holds: the sender is held back, and nothing reaches the server.
            let flood = 64 << 20
            let sent = client.channel.eventLoop.makePromise(of: Void.self)
            client.channel.writeAndFlush(ByteBuffer(repeating: 68, count: flood), promise: sent)
            try await eventually("the proxy holds its fill") { try await proxy.snapshot().bytesHeld >= FaultProxy.bufferLimit }
            // The other client's connection may still wait to be accepted.
            try await eventually("both are there") { try await proxy.snapshot().connections == 2 }
            let figures = try await proxy.snapshot()
            #expect(figures.bytesToServer == 5 && figures.connections == 2)
            #expect(figures.bytesHeld < FaultProxy.bufferLimit + (1 << 20))
            try await proxy.heal()
            try await sent.futureResult.get()
            #expect(await client.answer(flood)?.readableBytes == flood)
            #expect(try await other.call() != nil)
            other.channel.close(promise: nil)
        }
    }

    @Test func resetCutsEveryConnectionAndTakesNewOnes() async throws {
        try await hold { proxy, client in
            try await proxy.reset()
            #expect(await client.answer(1) == nil)
            #expect(client.isBroken, "by RST, not by an orderly end")
            #expect(try await proxy.snapshot().reset == 1)
            var next = try await connect(proxy)
            #expect(try await next.call() != nil)
            next.channel.close(promise: nil)
        }
    }

    /// So many bytes reach the server, not one more; what it answered to them may or may not arrive.
    @Test func resetAfterSomeBytesCutsInTheMiddle() async throws {
        try await hold { proxy, client in
            try await proxy.reset(afterBytes: 30, .toServer)
            for _ in 1...10 { try? await client.channel.writeAndFlush(ByteBuffer(repeating: 69, count: 10)) }
            #expect(await client.answer(100) == nil)
            let figures = try await proxy.snapshot()
            #expect(figures.bytesToServer == 35 && figures.reset == 1, "\(figures)")
            var next = try await connect(proxy)
            #expect(try await next.call(100) != nil, "once")
            next.channel.close(promise: nil)
        }
    }

    @Test func refuseMeansThatNobodyListens() async throws {
        try await hold { proxy, client in
            try await proxy.refuse()
            #expect(try await client.call() != nil, "open connections stay")
            await #expect(throws: (any Error).self) { try await connect(proxy) }
            try await proxy.heal()
            var next = try await connect(proxy)
            #expect(try await next.call() != nil)
            next.channel.close(promise: nil)
        }
    }

    /// A program that the tests start must not hold the proxy's sockets: its copy would keep the port taken and the connection alive.
    @Test func noOtherProgramHoldsItsSockets() async throws {
        try await hold { proxy, client in
            let (ends, end) = AsyncStream<Void>.makeStream()
            let program = Process()
            program.executableURL = URL(fileURLWithPath: "/bin/sleep")
            program.arguments = ["60"]
            program.terminationHandler = { _ in end.finish() }
            try program.run()
            try await proxy.refuse()
            try await proxy.reset()
            #expect(await client.answer(1) == nil)
            #expect(client.isBroken)
            await #expect(throws: (any Error).self) { try await connect(proxy) }
            try await proxy.heal()
            // It may have been started with SIGTERM blocked, as the thread that starts it has.
            kill(program.processIdentifier, SIGKILL)
            for await _ in ends {}
        }
    }

    @Test func aServerThatIsGoneEndsTheConnection() async throws {
        let server = try await server()
        let proxy = try await FaultProxy.start(to: try #require(server.localAddress?.port))
        try await server.close()
        do {
            var client = try await connect(proxy)
            #expect(await client.answer(1) == nil)
        } catch let error as IOError {
            // The end came before the client had looked at the connection it had made.
            #expect(error.errnoCode == ECONNRESET)
        } catch let error as NIOConnectionError {
            #expect(error.connectionErrors.allSatisfy { ($0.error as? IOError)?.errnoCode == ECONNRESET }, "\(error)")
        }
        try await proxy.shutdown()
    }
}
