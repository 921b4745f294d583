package import MessageBroker

/// The names of the asynchronous path. No other source file has one of them as a text, so that the two servers cannot disagree.
package enum StockGateTopology {
    /// Commands of the order server to the product server. Direct.
    package static let commandsExchange = "stock.commands"
    /// Decrease the stock of one product for one order.
    package static let decreaseRoutingKey = StockCommand.type
    /// Where the product server reads decreases. Quorum queue.
    package static let decreaseQueue = "stock.decrease"

    /// Where decreases of a product wait while the product's row is locked. After ``asideMilliseconds`` the broker puts them back into ``decreaseQueue``. Quorum queue.
    package static let asideQueue = "stock.decrease.aside"
    /// Of ``commandsExchange``.
    package static let asideRoutingKey = asideQueue
    /// How long they wait.
    package static let asideMilliseconds: Int64 = 2_000
    /// How many of them there may be; beyond it commands wait in the product server's hand.
    package static let asideLimit = 10_000

    // Each cell of product servers has a queue and an aside queue of its own, so that commands of a cell that is down wait without those of others. Their names
    // end with the cell's name. Where the settings name no cells they are the names above.

    /// Where the product servers of a cell read decreases, and the routing key of those.
    package static func decreaseQueue(ofCell cell: String?) -> String { named(decreaseQueue, cell) }
    /// Where decreases of that cell's locked products wait, and the routing key of those.
    package static func asideQueue(ofCell cell: String?) -> String { named(asideQueue, cell) }
    /// The routing key of decreases whose product no cell has. No queue is bound with it, so that the broker gives them back.
    package static let noCellRoutingKey = named(decreaseQueue, "")

    private static func named(_ name: String, _ cell: String?) -> String { cell.map { name + "@" + $0 } ?? name }

    /// Results of the product server for the order server. Direct.
    package static let resultsExchange = "stock.results"
    /// The result for one order.
    package static let resultRoutingKey = "order.result"
    /// Where the order server reads results. Quorum queue.
    package static let resultsQueue = "order.results"

    /// Messages nobody could use. Fanout.
    package static let deadExchange = "stock.dead"
    /// Where they wait for a person. Quorum queue.
    package static let deadQueue = "stock.dead"
    /// Why a message is there, if one of the servers put it there itself.
    package static let deadReasonHeader = "x-stockgate-dead-reason"
    /// Deliveries that came back without acknowledgement before a message is dead.
    package static let deliveryLimit = 20

    /// What happened to orders, for whoever wants to know. Topic; each message has its type, an ``OrderEvent/Kind``, as its routing key.
    package static let orderEventsExchange = "order.events"
    /// Every routing key of ``orderEventsExchange``.
    package static let anyOrderRoutingKey = "order.#"
    /// All events of orders, for readers that catch up from the beginning. Stream.
    package static let orderEventsStream = "order.events.stream"
    /// Bound on the stream's size in bytes; its oldest segments go first.
    package static let orderEventsMaximumBytes = 2 << 30
    /// Size of a segment of the stream in bytes.
    package static let orderEventsSegmentBytes = 64 << 20
}

extension Topology {
    /// Commands, their results and dead letters: what a sale needs. It names nothing of the events, whose stream may be unusable after a crash of the
    /// broker (see docs/messages.md).
    package static let stock: Topology = Topology.stock(cells: [nil])

    /// The same with a queue for the commands of each cell.
    package static func stock(cells: [String?]) -> Topology {
        let decreases = cells.map { StockGateTopology.decreaseQueue(ofCell: $0) }
        let queue = { (name: String) in
            Queue.quorum(name, deliveryLimit: StockGateTopology.deliveryLimit, deadLetterExchange: StockGateTopology.deadExchange)
        }
        return Topology(
            exchanges: [
                Exchange(StockGateTopology.commandsExchange, kind: .direct),
                Exchange(StockGateTopology.resultsExchange, kind: .direct),
                Exchange(StockGateTopology.deadExchange, kind: .fanout),
            ],
            queues: decreases.map(queue) + [queue(StockGateTopology.resultsQueue), Queue.quorum(StockGateTopology.deadQueue)],
            bindings: decreases.map { Binding(exchange: StockGateTopology.commandsExchange, queue: $0, routingKey: $0) } + [
                Binding(
                    exchange: StockGateTopology.resultsExchange,
                    queue: StockGateTopology.resultsQueue,
                    routingKey: StockGateTopology.resultRoutingKey
                ),
                Binding(exchange: StockGateTopology.deadExchange, queue: StockGateTopology.deadQueue, routingKey: ""),
            ]
        )
    }

    /// ``stock``, and the queue where the product server sets commands of locked products aside. The order server does not know it.
    package static let productServer: Topology = Topology.productServer(ofCell: nil)

    /// The same for the product servers of a cell.
    package static func productServer(ofCell cell: String?) -> Topology {
        var aside = Topology.Queue.quorum(
            StockGateTopology.asideQueue(ofCell: cell),
            deadLetterExchange: StockGateTopology.commandsExchange,
            maximumLength: StockGateTopology.asideLimit
        )
        aside.arguments["x-message-ttl"] = .integer(StockGateTopology.asideMilliseconds)
        aside.arguments["x-dead-letter-routing-key"] = .string(StockGateTopology.decreaseQueue(ofCell: cell))
        var topology = Topology.stock(cells: [cell])
        topology.queues.append(aside)
        topology.bindings.append(
            Binding(
                exchange: StockGateTopology.commandsExchange,
                queue: StockGateTopology.asideQueue(ofCell: cell),
                routingKey: StockGateTopology.asideQueue(ofCell: cell)
            )
        )
        return topology
    }

    /// The events of orders and their stream: of the order server's relay of events, and of followers.
    package static let events = Topology(
        exchanges: [Exchange(StockGateTopology.orderEventsExchange, kind: .topic)],
        queues: [
            .stream(
                StockGateTopology.orderEventsStream,
                maximumBytes: StockGateTopology.orderEventsMaximumBytes,
                segmentBytes: StockGateTopology.orderEventsSegmentBytes
            )
        ],
        bindings: [
            Binding(
                exchange: StockGateTopology.orderEventsExchange,
                queue: StockGateTopology.orderEventsStream,
                routingKey: StockGateTopology.anyOrderRoutingKey
            )
        ]
    )
}
