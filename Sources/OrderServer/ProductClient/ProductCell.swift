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
    private let publicPeers: HTTPPeers
    private let batchPeers: HTTPPeers?

    /// - Parameter isOnly: whether there is no other cell
    init(
        _ cell: CellSetting,
        isOnly: Bool,
        _ settings: OrderServerConfiguration,
        loop: any EventLoop,
        sizes: Histogram,
        onTrouble: @escaping HTTPPeer.TroubleHook
    ) {
        name = cell.ids?.name
        publicPeers = HTTPPeers(cell.servers, loop: loop, connectionAge: settings.connectionAge, onTrouble: onTrouble)
        batchPeers =
            cell.internalServers.isEmpty
            ? nil : HTTPPeers(cell.internalServers, loop: loop, connectionAge: settings.connectionAge, onTrouble: onTrouble)
        breaker = CircuitBreaker(
            name: isOnly ? ProductCell.dependency : ProductCell.dependency + "@" + (name ?? ""),
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
            loop: loop,
            sizes: sizes
        )
        catalogue = ProductCatalogue(peers: publicPeers, timeout: settings.callTimeout)
        soldOut = SoldOutProducts(time: settings.soldOutTime, lookTime: .seconds(1))
    }

    /// The name of the breaker and of the health check where there is one cell; with several the cell's name follows behind an `@`.
    static let dependency = "productServer"

    func shutdown() {
        publicPeers.shutdown()
        batchPeers?.shutdown()
    }
}
