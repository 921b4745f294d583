import ServiceLifecycle

/// Closes connections and ends threads after every part that uses them has ended.
struct StoresService: Service, CustomStringConvertible {
    let shutdown: @Sendable () async -> Void
    var description: String { "stores" }

    func run() async throws {
        try? await gracefulShutdown()
        await shutdown()
    }
}
