import ServiceLifecycle
import StockContract

/// Ends connections and threads when everything that uses them has ended.
struct StoresService: Service, CustomStringConvertible {
    let end: @Sendable () async -> Void
    var description: String { "stores" }

    func run() async throws {
        try? await gracefulShutdown()
        await self.end()
    }
}
