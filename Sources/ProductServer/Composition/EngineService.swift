import ServerKit
import ServiceLifecycle
import StockGate

/// Runs the engine's background work, and shuts the engine down last.
struct EngineService: Service, CustomStringConvertible {
    let engine: StockEngine
    /// Opens when the engine has started. Before that the engine has no database to sweep or to audit.
    let prepared: PreparedLatch
    var description: String { "engine" }

    func run() async throws {
        await cancelWhenGracefulShutdown {
            await prepared.wait()
            await engine.run()
        }
        await engine.shutdown()
    }
}
