/// The names of the asynchronous path, in one place, so that the two servers cannot disagree.
public enum StockGateTopology {
    /// Commands of the order server to the product server. Direct.
    public static let commandsExchange = "stock.commands"
    /// Decrease the stock of one product for one order.
    public static let decreaseRoutingKey = "stock.decrease"
    /// Where the product server reads decreases. Quorum queue.
    public static let decreaseQueue = "stock.decrease"

    /// Results of the product server for the order server. Direct.
    public static let resultsExchange = "stock.results"
    /// The result for one order.
    public static let resultRoutingKey = "order.result"
    /// Where the order server reads results. Quorum queue.
    public static let resultsQueue = "order.results"

    /// Messages nobody could use. Fanout.
    public static let deadExchange = "stock.dead"
    /// Where they wait for a person. Quorum queue.
    public static let deadQueue = "stock.dead"
    /// Why a message is there, if one of the servers put it there itself.
    public static let deadReasonHeader = "x-stockgate-dead-reason"
    /// Deliveries that came back without acknowledgement before a message is dead.
    public static let deliveryLimit = 20

    /// What happened to orders, for whoever wants to know. Topic.
    public static let orderEventsExchange = "order.events"
    /// An order was accepted.
    public static let orderCreatedRoutingKey = "order.created"
    /// An order has its stock.
    public static let orderConfirmedRoutingKey = "order.confirmed"
    /// An order did not get its stock.
    public static let orderFailedRoutingKey = "order.failed"
    /// An order was taken back.
    public static let orderCancelledRoutingKey = "order.cancelled"
    /// All events of orders, for readers that catch up from the beginning. Stream.
    public static let orderEventsStream = "order.events.stream"
    /// Bound on the stream's size in bytes; its oldest segments go first.
    public static let orderEventsMaximumBytes = 2 << 30
    /// Size of a segment of the stream in bytes.
    public static let orderEventsSegmentBytes = 64 << 20
}

extension Topology {
    /// Commands, their results and dead letters: what a sale needs. It names nothing of the events, whose stream may be unusable after a crash of the
    /// broker (see docs/messages.md).
    public static let stock = Topology(
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

    /// The events of orders and their stream: of the order server's relay of events, and of followers.
    public static let events = Topology(
        exchanges: [Exchange(StockGateTopology.orderEventsExchange, kind: .topic)],
        queues: [
            .stream(
                StockGateTopology.orderEventsStream,
                maximumBytes: StockGateTopology.orderEventsMaximumBytes,
                segmentBytes: StockGateTopology.orderEventsSegmentBytes
            )
        ],
        bindings: [
            Binding(exchange: StockGateTopology.orderEventsExchange, queue: StockGateTopology.orderEventsStream, routingKey: "order.#")
        ]
    )
}
