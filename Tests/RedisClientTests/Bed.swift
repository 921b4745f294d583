import NIOCore
import NIOPosix

/// The same numbers each time.
struct Fixed: RandomNumberGenerator {
    private var state: UInt64 = 1
    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return state
    }
}

/// Runs `body`, then shuts down a client and its loops, whether or not `body` has thrown.
func thenShutdown(
    _ group: MultiThreadedEventLoopGroup,
    _ shutdown: () async -> Void,
    _ body: () async throws -> Void
) async throws {
    let result: Result<Void, any Error>
    do { result = .success(try await body()) } catch { result = .failure(error) }
    await shutdown()
    try await group.shutdownGracefully()
    try result.get()
}
