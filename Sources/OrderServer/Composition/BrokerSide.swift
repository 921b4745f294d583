import Logging
import MessageBroker
import PostgresClient
import ServerKit
import ServerMetrics

/// The parts that exist only if there is a broker.
struct BrokerSide {
    private let settings: MessagingConfiguration
    let endpoints: MessageEndpoints
    let backlog: OutboxBacklog
    let outbox: OutboxWriting
    let metrics: MessagingMetrics
    let commands: OutboxRelay
    let events: OutboxRelay
    let logger: Logger

    init(
        _ messaging: MessagingConfiguration,
        _ settings: OrderServerConfiguration,
        _ given: MessageEndpoints?,
        registry: MetricsRegistry,
        logger: Logger
    ) throws {
        let routes = CommandRoutes(settings.cells, settings.cellMap)
        let endpoints = try given ?? MessageEndpoints(messaging.broker, cells: routes.cells, prefetch: messaging.prefetch, logger: logger)
        let backlog = OutboxBacklog(
            maximumOrders: messaging.maximumOrders,
            maximumEvents: messaging.maximumEvents,
            unansweredTime: messaging.recoveryAge
        )
        let metrics = MessagingMetrics(registry)
        MessagingMetrics.register(endpoints, backlog, in: registry)
        let relay = { (kind: OutboxSQL.Kind, publisher: any MessagePublishing) throws(PostgresError) in
            try OutboxRelay(
                kind,
                configuration: settings.relayPostgres,
                settings: messaging.relay,
                routes: routes,
                publishTimeout: messaging.broker.confirmTimeout + .seconds(2),
                publisher: publisher,
                backlog: backlog,
                metrics: metrics,
                logger: logger
            )
        }
        let commands = try relay(.commands, endpoints.publisher)
        let events = try relay(.events, endpoints.events)
        self.settings = messaging
        self.endpoints = endpoints
        self.backlog = backlog
        self.metrics = metrics
        self.commands = commands
        self.events = events
        self.logger = logger
        outbox = OutboxWriting(
            backlog: backlog,
            droppedEvents: metrics.droppedEvents,
            wakeCommands: { commands.wake() },
            wakeEvents: { events.wake() },
            mustNotify: { !endpoints.publisher.snapshot().isConnected }
        )
    }

    func service(
        _ conclusion: OrderConclusion,
        _ cells: ProductCells,
        _ changes: OrderWatch,
        _ settings: OrderServerConfiguration,
        _ prepared: PreparedLatch
    ) throws -> MessagingService {
        MessagingService(
            endpoints: self.endpoints,
            relays: [commands, events],
            consumer: try ResultConsumer(
                configuration: settings.groupPostgres,
                settings: self.settings.results,
                endpoints: self.endpoints,
                conclusion: conclusion,
                cells: cells,
                outbox: self.outbox,
                changes: changes,
                metrics: self.metrics,
                logger: self.logger
            ),
            postgres: settings.postgres,
            metrics: metrics,
            prepared: prepared,
            logger: self.logger
        )
    }
}
