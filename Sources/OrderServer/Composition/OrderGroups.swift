import Logging
import PostgresClient
import ServerMetrics

/// The sessions that work for orders in groups: they insert orders, write final states, and look up keys.
struct OrderGroups: Sendable {
    let insertion: OrderInsertion
    let completion: OrderCompletion
    let keys: KeyLookup
    private let locked: LockedRows

    /// - Parameters:
    ///   - pool: closes its idle connections when the database has no place left for a writer
    ///   - outbox: nil without a broker
    init(
        _ settings: OrderServerConfiguration,
        pool: PostgresPool,
        outbox: OutboxWriting?,
        waiting: WaitingBuyers,
        changes: OrderWatch,
        metrics: OrderMetrics,
        logger: Logger
    ) throws {
        let onTrouble = { @Sendable [weak pool] (writer: String, trouble: PostgresError?, isNews: Bool) in
            // The database may have no place left. The pool closes its idle connections, so that a session that sells can connect.
            if trouble?.code == .connectFailed { pool?.closeIdle() }
            guard isNews else { return }
            guard let trouble else { return logger.notice("orders can use their database again", metadata: ["writer": "\(writer)"]) }
            logger.warning("orders cannot use their database", metadata: ["writer": "\(writer)", "why": "\(trouble)"])
        }
        var writers = settings.groupPostgres
        writers.lockTimeout = GroupWrite.rowWait
        let locked = try LockedRows(configuration: settings.groupPostgres, table: "orders", id: "id", turn: GroupWrite.rowWait) { change in
            OrderGroups.log(change, logger)
        }
        self.locked = locked
        let turns = GroupTurns()
        insertion = try OrderInsertion(
            configuration: writers,
            maximumQueued: settings.maximumQueued,
            maximumBatch: settings.maximumBatch,
            batches: metrics.insertBatches,
            outbox: outbox,
            pace: .half { waiting.count },
            turns: turns,
            onTrouble: onTrouble,
            idsCameAgain: { sequence, raise in
                metrics.idsTaken.add()
                if let raise { return IDSequence.warn(sequence, raise, logger) }
                logger.warning("new ids had rows already: other ids were taken", metadata: ["sequence": "\(sequence.rawValue)"])
            }
        )
        completion = try OrderCompletion(
            configuration: writers,
            maximumQueued: settings.maximumQueued,
            maximumBatch: settings.maximumBatch,
            batches: metrics.completionBatches,
            locked: locked,
            outbox: outbox,
            pace: .half { waiting.count },
            turns: turns,
            changed: changes,
            onTrouble: onTrouble
        )
        keys = try KeyLookup(
            configuration: settings.groupPostgres,
            maximumQueued: settings.maximumQueued,
            maximumBatch: settings.maximumBatch,
            batches: metrics.keyBatches,
            onTrouble: onTrouble
        )
    }

    private static func log(_ change: LockedRows.Change, _ logger: Logger) {
        switch change {
        case .locked(let orders):
            logger.warning(
                "rows of orders are locked by another transaction",
                metadata: ["orders": "\(orders.prefix(8).map(String.init).joined(separator: ","))", "count": "\(orders.count)"]
            )
        case .freed(let order, let after):
            logger.notice("the row of an order is free again", metadata: ["order": "\(order)", "after": "\(after)"])
        }
    }

    /// Connects the sessions that selling needs before any other part takes the database's places.
    func connect() async {
        async let inserting: Void = insertion.connect()
        async let completing: Void = completion.connect()
        async let looking: Void = keys.connect()
        _ = await (inserting, completing, looking)
    }

    func shutdown() async {
        await insertion.shutdown()
        await locked.shutdown()
        await completion.shutdown()
        await keys.shutdown()
    }

    func register(_ metrics: OrderMetrics, in registry: MetricsRegistry) {
        metrics.register(self.locked, in: registry)
    }
}
