import ServerKit
import ServiceLifecycle
import StockGate

/// Keeps the engine's background work going, and ends the engine last.
struct EngineService: Service, CustomStringConvertible {
    let engine: StockEngine
    /// The engine has started: without its database there is nothing to sweep, to audit or to complain about.
    let prepared: PreparedLatch
    var description: String { "engine" }

    func run() async throws {
        await cancelWhenGracefulShutdown {
            await self.prepared.wait()
            await self.engine.run()
        }
        await self.engine.shutdown()
    }
}
