import Foundation
import NIOCore
import NIOPosix
import Testing

@testable import PrivateServers

@Suite("Loopback ports")
struct LoopbackPortTests {
    /// As many as a test run takes: none comes twice, none is one that the kernel could give to an outgoing connection, and each can be listened on.
    @Test func eachIsFreeAndGivenOnce() async throws {
        var given: Set<Int> = []
        var taken = 0
        for _ in 0..<300 {
            let port = try LoopbackPort.free()
            #expect(LoopbackPort.range.contains(port) && given.insert(port).inserted, "\(port)")
            do {
                let server = ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup)
                try await server.bind(host: "127.0.0.1", port: port).get().close()
            } catch let error as IOError where error.errnoCode == EADDRINUSE {
                // A test of another process has just got it.
                taken += 1
            }
        }
        #expect(taken < 5)
        #expect(LoopbackPort.range.upperBound < 20_000, "scripts/stack gives the ports from 22,768 on, the kernel those from 32,768 on")
    }

    @Test func whatListensIsNotFree() async throws {
        let port = try LoopbackPort.free()
        let listener = try await ServerBootstrap(group: .singletonMultiThreadedEventLoopGroup).bind(host: "127.0.0.1", port: port).get()
        #expect(!LoopbackPort.isFree(port))
        try await listener.close()
        #expect(LoopbackPort.isFree(port))
    }
}
