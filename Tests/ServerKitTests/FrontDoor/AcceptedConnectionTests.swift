import Eventually
import Foundation
import HotPath
import Logging
import NIOCore
import NIOPosix
import Testing

@testable import ServerKit

@Suite("A connection that nobody handles")
struct AcceptedConnectionTests {
    /// A stopping server drops what it accepts in its last moment. The process went down with it.
    @Test func isClosed() async throws {
        let group = MultiThreadedEventLoopGroup.singleton
        let door = FrontDoorChannel(
            responder: { _, _, _ in },
            endpoint: NoHotPath(),
            configuration: FrontDoorConfiguration(),
            connections: ConnectionLimits(.init(), metrics: nil)
        )
        let server = try await ServerBootstrap(group: group)
            .childChannelInitializer { channel in door.setup(channel: channel, logger: Logger(label: "test")).map { _ in } }
            .bind(host: "127.0.0.1", port: 0).get()
        let port = try #require(server.localAddress?.port)
        for _ in 1...20 {
            let client = try await ClientBootstrap(group: group).connect(host: "127.0.0.1", port: port).get()
            // Ends when the server has closed its side.
            try await client.closeFuture.get()
        }
        try await server.close()
        // A client sees the end before the server has let go of the connection's place.
        #expect(try await eventually(every: .milliseconds(1)) { door.connections.count == 0 })
    }

    /// When a client ends its half, SwiftNIO reads all that the kernel holds at once. A client that had sent much and fast could have megabytes there: more than a
    /// front door holds, which then ended the connection without the answers that it owed.
    @Test func hasABoundedBufferInTheKernel() async throws {
        let group = MultiThreadedEventLoopGroup.singleton
        let door = FrontDoorChannel(
            responder: { _, _, _ in },
            endpoint: NoHotPath(),
            configuration: FrontDoorConfiguration(),
            connections: ConnectionLimits(.init(), metrics: nil)
        )
        let sizes = group.next().makePromise(of: Int.self)
        let server = try await ServerBootstrap(group: group)
            .childChannelInitializer { channel in
                door.setup(channel: channel, logger: Logger(label: "test")).flatMap { _ in
                    channel.getOption(.socketOption(.so_rcvbuf)).map { sizes.succeed(Int($0)) }
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let port = try #require(server.localAddress?.port)
        let client = try await ClientBootstrap(group: group).connect(host: "127.0.0.1", port: port).get()
        let size = try await sizes.futureResult.get()
        // The kernel doubles what it is given, and gives at most what the machine allows.
        let allowed = try #require(Int(try String(contentsOfFile: "/proc/sys/net/core/rmem_max", encoding: .utf8).filter(\.isNumber)))
        #expect(size == 2 * min(FrontDoorSizes.receiveBufferBytes, allowed))
        // The largest request of all ports, and the reads before and behind it.
        let (largest, read) = (262_144 + RequestReader.Limits().headBytes, 64 * 1024)
        #expect(largest + 2 * read + 2 * FrontDoorSizes.receiveBufferBytes <= FrontDoorSizes.maximumWaitingBytes)
        // The server may have ended the connection already.
        try? await client.close()
        try await server.close()
    }
}
