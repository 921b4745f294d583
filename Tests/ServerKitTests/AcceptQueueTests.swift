import Eventually
import Glibc
import NIOCore
import NIOPosix
import Testing

@testable import ServerKit

/// A port that closes must not reset whom the kernel has connected already.
@Suite struct AcceptQueueTests {
    /// A client's end of a connection.
    private final class Socket {
        let descriptor: Int32

        /// Begins to connect to a port of this machine, without waiting.
        init(port: Int) throws {
            descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
            try #require(descriptor >= 0)
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = in_port_t(port).bigEndian
            address.sin_addr.s_addr = inet_addr("127.0.0.1")
            let result = withUnsafePointer(to: address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
                }
            }
            try #require(result == 0 || errno == EINPROGRESS)
        }

        /// Waits for `events`, and returns whether there was one within the time.
        func polls(_ events: Int32, milliseconds: Int32) -> Bool {
            var poll = pollfd(fd: descriptor, events: Int16(events), revents: 0)
            return Glibc.poll(&poll, 1, milliseconds) > 0
        }

        /// 0 for one that is connected, else what the attempt failed with.
        var error: Int32 {
            var value: Int32 = 0
            var length = socklen_t(MemoryLayout<Int32>.size)
            getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &value, &length)
            return value
        }

        /// What it reads: a number of bytes, 0 at the end, or -1 with `errno` for a reset.
        func read() -> Int {
            guard polls(Int32(POLLIN), milliseconds: 20_000) else { return -2 }
            var byte: UInt8 = 0
            return Glibc.read(descriptor, &byte, 1)
        }

        func write() -> Int {
            var byte: UInt8 = 1
            return Glibc.write(descriptor, &byte, 1)
        }

        deinit { close(descriptor) }
    }

    /// Sends back what it receives.
    private final class Echo: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer

        func channelRead(context: ChannelHandlerContext, data: NIOAny) { context.writeAndFlush(data, promise: nil) }
    }

    /// Waits until so many connections are in the queue: a client's end may be connected a moment before the kernel has put the other end there.
    private func wait(for count: Int, in queue: AcceptQueue) async throws {
        try await eventually("\(count) connections in the queue", every: .milliseconds(1)) { try await queue.count() == count }
    }

    /// Begins to accept only when it is told to.
    private func listener() async throws -> any Channel {
        try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.autoRead, value: false)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Echo()) }
            }
            .bind(host: "127.0.0.1", port: 0).get()
    }

    @Test func whoIsConnectedIsServedAndWhoIsNotIsRefused() async throws {
        let channel = try await listener()
        let port = try #require(channel.localAddress?.port)
        let queue = AcceptQueue(channel: channel)
        let first = try Socket(port: port)
        let second = try Socket(port: port)
        try #require(first.polls(Int32(POLLOUT), milliseconds: 20_000) && second.polls(Int32(POLLOUT), milliseconds: 20_000))
        #expect(first.write() == 1 && second.write() == 1)
        try await wait(for: 2, in: queue)

        try await queue.makeNoMore()
        let late = try Socket(port: port)
        #expect(!late.polls(Int32(POLLOUT), milliseconds: 100), "a connection was made")
        #expect(try await queue.count() == 2)

        async let drained = queue.drain()
        try await channel.setOption(.autoRead, value: true).get()
        #expect(await drained == 0)
        #expect(try await queue.count() == 0)
        try await channel.close().get()
        #expect(first.read() == 1)
        #expect(second.read() == 1)
        // Its first packet comes again a second later.
        #expect(late.polls(Int32(POLLOUT), milliseconds: 20_000))
        #expect(late.error == ECONNREFUSED)
    }

    /// Why there is a queue to be drained: the control of the test above.
    @Test func aSocketThatClosesResetsItsQueue() async throws {
        let channel = try await listener()
        let client = try Socket(port: try #require(channel.localAddress?.port))
        try #require(client.polls(Int32(POLLOUT), milliseconds: 20_000))
        #expect(client.write() == 1)
        try await wait(for: 1, in: AcceptQueue(channel: channel))
        try await channel.close().get()
        #expect(client.read() == -1)
    }

    @Test func aQueueThatNobodyEmptiesIsLeftAtTheLimit() async throws {
        let channel = try await listener()
        let client = try Socket(port: try #require(channel.localAddress?.port))
        try #require(client.polls(Int32(POLLOUT), milliseconds: 20_000))
        let queue = AcceptQueue(channel: channel)
        try await wait(for: 1, in: queue)
        let began = ContinuousClock.now
        #expect(await queue.drain() == 1, "it says how many still wait")
        #expect(ContinuousClock.now - began >= AcceptQueue.drainLimit)
        #expect(try await queue.count() == 1)
        try await channel.close().get()
    }

    @Test func aSocketThatIsClosedIsNotWaitedFor() async throws {
        let channel = try await listener()
        try await channel.close().get()
        await AcceptQueue(channel: channel).drain()
        await #expect(throws: (any Error).self) { try await AcceptQueue(channel: channel).count() }
    }
}
