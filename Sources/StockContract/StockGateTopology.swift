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

    /// What happened to orders, for whoever wants to know. Topic.
    package static let orderEventsExchange = "order.events"
    /// An order was accepted.
    package static let orderCreatedRoutingKey = OrderEvent.Kind.created.rawValue
    /// An order has its stock.
    package static let orderConfirmedRoutingKey = OrderEvent.Kind.confirmed.rawValue
    /// An order did not get its stock.
    package static let orderFailedRoutingKey = OrderEvent.Kind.failed.rawValue
    /// An order was taken back.
    package static let orderCancelledRoutingKey = OrderEvent.Kind.cancelled.rawValue
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
    package static let stock = Topology(
        exchanges: [
            Exchange(StockGateTopology.commandsExchange, kind: .direct),
            Exchange(StockGateTopology.resultsExchange, kind: .direct),
            Exchange(StockGateTopology.deadExchange, kind: .fanout),
        ],
        queues: [
            .quorum(
                StockGateTopology.decreaseQueue,
                deliveryLimit: StockGateTopology.deliveryLimit,
                deadLetterExchange: StockGateTopology.deadExchange
            ),
            .quorum(
                StockGateTopology.resultsQueue,
                deliveryLimit: StockGateTopology.deliveryLimit,
                deadLetterExchange: StockGateTopology.deadExchange
            ),
            .quorum(StockGateTopology.deadQueue),
        ],
        bindings: [
            Binding(
                exchange: StockGateTopology.commandsExchange,
                queue: StockGateTopology.decreaseQueue,
                routingKey: StockGateTopology.decreaseRoutingKey
            ),
            Binding(
                exchange: StockGateTopology.resultsExchange,
                queue: StockGateTopology.resultsQueue,
                routingKey: StockGateTopology.resultRoutingKey
            ),
            Binding(exchange: StockGateTopology.deadExchange, queue: StockGateTopology.deadQueue, routingKey: ""),
        ]
    )

    /// ``stock``, and the queue where the product server sets commands of locked products aside. The order server does not know it.
    package static let productServer: Topology = {
        var aside = Topology.Queue.quorum(
            StockGateTopology.asideQueue,
            deadLetterExchange: StockGateTopology.commandsExchange,
            maximumLength: StockGateTopology.asideLimit
        )
        aside.arguments["x-message-ttl"] = .integer(StockGateTopology.asideMilliseconds)
        aside.arguments["x-dead-letter-routing-key"] = .string(StockGateTopology.decreaseRoutingKey)
        var topology = Topology.stock
        topology.queues.append(aside)
        topology.bindings.append(
            Binding(
                exchange: StockGateTopology.commandsExchange,
                queue: StockGateTopology.asideQueue,
                routingKey: StockGateTopology.asideRoutingKey
            )
        )
        return topology
    }()

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
