import CircuitBreaker
import Logging
import NIOCore
import ServerMetrics
import StockContract

/// One cell: product servers that share one ledger and one Redis, and all that the order server keeps for them. Nothing of it is shared with another cell, so that
/// one that is down or slow harms its own products only.
struct ProductCell: Sendable {
    /// The first of the cell's ranges of ids, such as `1-999999`; nil where there are no ranges.
    let name: String?
    let calls: StockBatches
    let catalogue: ProductCatalogue
    let breaker: CircuitBreaker
    let soldOut: SoldOutProducts
    /// Whether the cell's product servers answer.
    let answering: ProductAnswering
    private let publicPeers: HTTPPeers
    private let batchPeers: HTTPPeers?

    /// - Parameters:
    ///   - isOnly: whether there is no other cell
    ///   - onAnswering: hears under the cell's dependency name why its product servers do not answer, and nil when they do again
    init(
        _ cell: CellSetting,
        isOnly: Bool,
        _ settings: OrderServerConfiguration,
        loop: any EventLoop,
        sizes: Histogram,
        onTrouble: @escaping HTTPPeer.TroubleHook,
        onAnswering: @escaping @Sendable (_ dependency: String, _ why: String?) -> Void
    ) {
        name = cell.ids?.name
        let dependency = isOnly ? ProductCell.dependency : ProductCell.dependency + "@" + (name ?? "")
        answering = ProductAnswering { onAnswering(dependency, $0) }
        publicPeers = HTTPPeers(cell.servers, loop: loop, connectionAge: settings.connectionAge, onTrouble: onTrouble)
        batchPeers =
            cell.internalServers.isEmpty
            ? nil : HTTPPeers(cell.internalServers, loop: loop, connectionAge: settings.connectionAge, onTrouble: onTrouble)
        breaker = CircuitBreaker(
            name: dependency,
            configuration: settings.breaker
        )
        calls = StockBatches(
            peers: batchPeers ?? publicPeers,
            route: batchPeers == nil ? .single : .batch,
            settings: StockBatches.Configuration(
                // Without batches one request carries one order, so there may be as many calls as there are orders in work.
                maximumCalls: batchPeers == nil ? max(64, settings.maximumCalls) : settings.maximumCalls,
                maximumQueued: settings.maximumQueued,
                callTimeout: settings.callTimeout,
                token: settings.token
            ),
            breaker: breaker,
            answering: answering,
            loop: loop,
            sizes: sizes
        )
        catalogue = ProductCatalogue(peers: publicPeers, timeout: settings.callTimeout, answering: answering)
        soldOut = SoldOutProducts(time: settings.soldOutTime, lookTime: .seconds(1))
    }

    /// The name of the breaker and of the health check where there is one cell; with several the cell's name follows behind an `@`.
    static let dependency = "productServer"

    func shutdown() {
        publicPeers.shutdown()
        batchPeers?.shutdown()
    }
}
