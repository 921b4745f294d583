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
        let deadline = ContinuousClock.now + .seconds(60)
        while door.connections.count > 0, ContinuousClock.now < deadline { try await Task.sleep(for: .milliseconds(1)) }
        #expect(door.connections.count == 0)
    }
}
