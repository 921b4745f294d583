import Eventually
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization
import Testing

@testable import OrderServer

/// Connections to a product server age.
@Suite("Connections to a product server", .timeLimit(.minutes(1)))
struct HTTPPeerTests {
    /// Answers every request with 200, and counts the connections and those that ended.
    private final class Counting: Sendable {
        let counts = Mutex((opened: 0, closed: 0, calls: 0))

        func start(port: Int = 0) async throws -> any Channel {
            try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
                .childChannelInitializer { channel in
                    self.counts.withLock { $0.opened += 1 }
                    channel.closeFuture.whenComplete { _ in self.counts.withLock { $0.closed += 1 } }
                    return channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                        try channel.pipeline.syncOperations.addHandler(Answering(self))
                    }
                }
                .bind(host: "127.0.0.1", port: port).get()
        }
    }

    private final class Answering: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        typealias OutboundOut = HTTPServerResponsePart
        private let server: Counting
        init(_ server: Counting) { self.server = server }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            guard case .end = unwrapInboundIn(data) else { return }
            server.counts.withLock { $0.calls += 1 }
            let head = HTTPResponseHead(version: .http1_1, status: .ok, headers: ["content-length": "0"])
            context.write(wrapOutboundOut(.head(head)), promise: nil)
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        }
    }

    private func call(_ peer: HTTPPeer) async throws -> Int {
        try await peer.call(.init(method: .GET, path: "/"), timeout: .seconds(20)).get().status
    }

    @Test("a connection of its age is closed behind the answer, and no call fails for it; a young one is kept")
    func aging() async throws {
        let server = Counting()
        let channel = try await server.start()
        let endpoint = try #require(HTTPEndpoint("http://127.0.0.1:\(channel.localAddress?.port ?? 0)"))
        let peer = HTTPPeer(endpoint, loop: MultiThreadedEventLoopGroup.singleton.next(), connectionAge: .milliseconds(50))
        let deadline = ContinuousClock.now + .seconds(30)
        var calls = 0
        while server.counts.withLock({ $0.opened }) < 4, ContinuousClock.now < deadline {
            #expect(try await call(peer) == 200)
            calls += 1
        }
        #expect(server.counts.withLock { $0.opened } >= 4)
        #expect(server.counts.withLock { $0.calls } == calls)
        try await eventually("those that have aged are closed") { server.counts.withLock { $0.opened - $0.closed } <= 1 }
        peer.shutdown()

        let young = HTTPPeer(endpoint, loop: MultiThreadedEventLoopGroup.singleton.next(), connectionAge: .seconds(3600))
        let opened = server.counts.withLock { $0.opened }
        for _ in 0..<20 { #expect(try await call(young) == 200) }
        #expect(server.counts.withLock { $0.opened } == opened + 1)
        young.shutdown()
        try await channel.close()
    }

    @Test("a server that joins behind one name gets calls, while the one that was there goes on")
    func joins() async throws {
        // The name is a port that passes connections on, one by one in turn, to whoever is there now.
        let (old, new) = (Counting(), Counting())
        let (first, second) = (try await old.start(), try await new.start())
        let targets = Mutex([try #require(first.localAddress)])
        let turn = Atomic(0)
        let name = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelOption(.autoRead, value: false)
            .childChannelInitializer { channel in
                let all = targets.withLock { $0 }
                let target = all[turn.wrappingAdd(1, ordering: .relaxed).newValue % all.count]
                return ClientBootstrap(group: channel.eventLoop).channelInitializer { other in
                    other.eventLoop.makeCompletedFuture { try other.pipeline.syncOperations.addHandler(Passing(to: channel)) }
                }.connect(to: target).flatMapThrowing { other in
                    try channel.pipeline.syncOperations.addHandler(Passing(to: other))
                    channel.setOption(.autoRead, value: true).whenFailure { _ in channel.close(promise: nil) }
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let endpoint = try #require(HTTPEndpoint("http://127.0.0.1:\(name.localAddress?.port ?? 0)"))
        let peer = HTTPPeer(endpoint, loop: MultiThreadedEventLoopGroup.singleton.next(), connectionAge: .milliseconds(50))
        for _ in 0..<10 { #expect(try await call(peer) == 200) }
        let joined = try #require(second.localAddress)
        targets.withLock { $0.append(joined) }
        let deadline = ContinuousClock.now + .seconds(30)
        while new.counts.withLock({ $0.calls }) == 0, ContinuousClock.now < deadline { #expect(try await call(peer) == 200) }
        #expect(new.counts.withLock { $0.calls } > 0)
        peer.shutdown()
        for channel in [name, first, second] { try await channel.close() }
    }

    /// Gives what it reads to another connection.
    private final class Passing: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private let other: any Channel
        init(to other: any Channel) { self.other = other }
        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            other.writeAndFlush(unwrapInboundIn(data), promise: nil)
        }
        func channelInactive(context: ChannelHandlerContext) { other.close(promise: nil) }
    }
}
