import CircuitBreaker
import Logging
import NIOPosix

/// The order server's side of the product servers.
struct ProductSide: Sendable {
    let catalogue: ProductCatalogue
    let calls: StockBatches
    let breaker: CircuitBreaker
    let breakers: CircuitBreakerRegistry
    let soldOut: SoldOutProducts
    private let publicPeers: HTTPPeers
    private let batchPeers: HTTPPeers?

    init(_ settings: OrderServerConfiguration, group: MultiThreadedEventLoopGroup, metrics: OrderMetrics, logger: Logger) throws {
        let loop = group.next()
        let onTrouble: HTTPPeer.TroubleHook = { endpoint, failure in
            let server: Logger.MetadataValue = "\(endpoint.authority)"
            if let failure {
                logger.error("a product server cannot be reached by TLS", metadata: ["server": server, "why": "\(failure)"])
            } else {
                logger.notice("the product server is reached by TLS again", metadata: ["server": server])
            }
        }
        publicPeers = HTTPPeers(
            settings.productServers,
            loop: loop,
            connectionAge: settings.connectionAge,
            onTrouble: onTrouble
        )
        self.batchPeers =
            settings.internalServers.isEmpty
            ? nil
            : HTTPPeers(settings.internalServers, loop: loop, connectionAge: settings.connectionAge, onTrouble: onTrouble)
        self.breaker = CircuitBreaker(name: "productServer", configuration: settings.breaker)
        breakers = CircuitBreakerRegistry()
        try breakers.add(self.breaker)
        calls = StockBatches(
            peers: self.batchPeers ?? publicPeers,
            route: self.batchPeers == nil ? .single : .batch,
            settings: StockBatches.Configuration(
                // Without batches one request carries one order, so there may be as many calls as there are orders in work.
                maximumCalls: self.batchPeers == nil ? max(64, settings.maximumCalls) : settings.maximumCalls,
                maximumQueued: settings.maximumQueued,
                callTimeout: settings.callTimeout,
                token: settings.token
            ),
            breaker: self.breaker,
            loop: loop,
            sizes: metrics.callBatches
        )
        catalogue = ProductCatalogue(peers: publicPeers, timeout: settings.callTimeout)
        soldOut = SoldOutProducts(time: settings.soldOutTime, lookTime: .seconds(1))
    }

    func shutdown() {
        publicPeers.shutdown()
        batchPeers?.shutdown()
        breakers.shutdown()
    }
}
