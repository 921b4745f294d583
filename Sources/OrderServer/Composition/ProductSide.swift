import CircuitBreaker
import Logging
import NIOPosix
import ServerKit
import ServerMetrics

/// The order server's side of the product servers.
struct ProductSide: Sendable {
    let cells: ProductCells
    let breakers: CircuitBreakerRegistry

    init(_ settings: OrderServerConfiguration, group: MultiThreadedEventLoopGroup, metrics: OrderMetrics, logger: Logger) throws {
        let onTrouble: HTTPPeer.TroubleHook = { endpoint, failure in
            let server: Logger.MetadataValue = "\(endpoint.authority)"
            if let failure {
                logger.error("a product server cannot be reached by TLS", metadata: ["server": server, "why": "\(failure)"])
            } else {
                logger.notice("the product server is reached by TLS again", metadata: ["server": server])
            }
        }
        let onAnswering = { @Sendable (dependency: String, why: String?) in
            let cell: Logger.MetadataValue = "\(dependency)"
            if let why {
                logger.warning(
                    "the product server does not answer: orders wait or are refused",
                    metadata: ["dependency": cell, "why": "\(why)"]
                )
            } else {
                logger.notice("the product server answers again", metadata: ["dependency": cell])
            }
        }
        let isOnly = settings.cells.count == 1
        cells = ProductCells(
            all: settings.cells.map { cell in
                ProductCell(
                    cell,
                    isOnly: isOnly,
                    settings,
                    loop: group.next(),
                    sizes: metrics.callBatches,
                    onTrouble: onTrouble,
                    onAnswering: onAnswering
                )
            },
            map: settings.cellMap
        )
        breakers = CircuitBreakerRegistry()
        for cell in cells.all { try breakers.add(cell.breaker) }
    }

    /// What the health checks ask: the breaker of each cell.
    var checks: [HealthCheck] { cells.all.map { .productServer($0.breaker, $0.answering) } }

    func register(_ groups: OrderGroups, in registry: MetricsRegistry) {
        registry.collector("stockgate_orders_waiting", help: "Orders that wait for a step", kind: .gauge) { [cells] in
            [
                .init(labels: [(name: "step", value: "insert")], Double(groups.insertion.queued)),
                .init(labels: [(name: "step", value: "product")], Double(cells.queued)),
                .init(labels: [(name: "step", value: "complete")], Double(groups.completion.queued)),
            ]
        }
        guard cells.all.count > 1 else { return }
        registry.collector("stockgate_orders_cell_waiting", help: "Orders that wait for the product servers of a cell", kind: .gauge) {
            [cells] in
            cells.all.map { .init(labels: [(name: "cell", value: $0.name ?? "")], Double($0.calls.queued)) }
        }
    }

    func shutdown() {
        cells.shutdown()
        breakers.shutdown()
    }
}
