// The SQL of the ledger. What each statement does is defined by the functions in `Migrations/`.

import NIOCore
public import PostgresClient

/// The ledger in PostgreSQL.
public final class PostgresLedger: Sendable {
    private let lanes: [LedgerLane<CommitRequest, CommitReply>]
    private let increaseLane: LedgerLane<IncreaseRequest, IncreaseReply>
    /// The sessions of the lanes: those for decreases in the lanes' order, then the one for increases.
    private let workers: [PostgresWorker]
    /// The products whose rows another transaction holds locked, as far as group commit has met them, and the requests that wait for them.
    public let lockedProducts: LockedRows
    /// Connections for the engine's single statements, and for changes by hand.
    public let pool: PostgresPool
    /// Connections for lists and audits. Such a read waits only for other reads of this kind, and nothing else waits for it.
    public let reads: PostgresPool
    /// Connections for reads of one row by its key.
    public let lookups: PostgresPool
    let auditRows: Int64
    let auditTime: Duration
    private let patience: Duration

    /// Opens no connection yet: each one is made when it is needed.
    ///
    /// - Parameters:
    ///   - onLane: called once for each change with the reason that a lane's session cannot work, or with nil when it works again
    ///   - onLockedProducts: called with the products whose rows stay locked
    public init(
        _ configuration: LedgerConfiguration,
        onLane: @escaping @Sendable (_ lane: String, _ trouble: PostgresError?) -> Void = { _, _ in },
        onLockedProducts: @escaping @Sendable (LockedRows.Change) -> Void = { _ in }
    ) throws(PostgresError) {
        let locked = try LockedRows(
            configuration: configuration.postgres,
            table: "product_stock",
            id: "product_id",
            turn: configuration.rowWait,
            maximumWaitingForOne: configuration.waitingForOneRow,
            maximumWaiting: configuration.waitingForRows,
            onChange: onLockedProducts
        )
        lockedProducts = locked
        let patience = configuration.postgres.lockTimeout
        var laneConfiguration = configuration.postgres
        laneConfiguration.lockTimeout = min(configuration.rowWait, patience)
        // A caller that reads gets an answer within the time that a buyer gets one.
        var pooled = configuration.postgres
        pooled.callTimeout = min(pooled.callTimeout, .seconds(3))
        pooled.statementTimeout = min(pooled.statementTimeout, pooled.callTimeout - .milliseconds(200))
        let pool = PostgresPool(configuration: pooled, maximumConnections: configuration.poolSize)
        let worker = { [laneConfiguration] (name: String) throws(PostgresError) in
            try PostgresWorker(configuration: laneConfiguration, name: name) { [weak pool] trouble, isNews in
                // PostgreSQL may have no connection left to give. The pool closes its idle ones, so that a lane, which sells, can have one.
                if trouble?.code == .connectFailed { pool?.closeIdle() }
                if isNews { onLane(name, trouble) }
            }
        }
        var workers: [PostgresWorker] = []
        var lanes: [LedgerLane<CommitRequest, CommitReply>] = []
        for number in 0..<max(1, configuration.lanes) {
            let lane = try worker("ledger-out-\(number)")
            workers.append(lane)
            lanes.append(
                LedgerLane(
                    worker: lane,
                    capacity: configuration.laneCapacity,
                    maximumBatch: configuration.maximumBatch,
                    locked: locked,
                    patience: patience,
                    key: { $0.decrease.key },
                    hasWritten: { $0.outcome == .committed },
                    send: Self.send
                )
            )
        }
        let increases = try worker("ledger-in")
        workers.append(increases)
        increaseLane = LedgerLane(
            worker: increases,
            capacity: configuration.laneCapacity,
            maximumBatch: configuration.maximumBatch,
            locked: locked,
            patience: patience,
            key: { $0.key },
            hasWritten: { $0.outcome == .added },
            send: Self.send
        )
        self.patience = patience
        self.workers = workers
        self.lanes = lanes
        self.pool = pool
        auditRows = max(2, configuration.auditRows)
        auditTime = configuration.auditTime
        var reading = configuration.postgres
        reading.applicationName += "-reads"
        reading.statementTimeout = configuration.readTimeout
        reading.callTimeout = configuration.readTimeout + .seconds(1)
        reading.plansThroughIndexes = true
        let readPool = { (connections: Int) in
            PostgresPool(
                configuration: reading,
                maximumConnections: connections,
                maximumWaiting: configuration.readWaiting,
                acquireTimeout: configuration.readAcquireTimeout
            )
        }
        reads = readPool(configuration.readConnections)
        lookups = readPool(configuration.lookupConnections)
    }

    /// Opens the lanes' connections before the pools take any. A lane that cannot connect is reported to `onLane`, and connects when it is needed.
    public func connectLanes() async {
        await withTaskGroup(of: Void.self) { group in
            for worker in workers { group.addTask { try? await worker.connect() } }
        }
    }

    /// What keeps the lanes from writing, by lane. It asks the sessions that sell and give back themselves, not others like them.
    public func laneTroubles() async -> (selling: [PostgresError?], giving: PostgresError?) {
        let troubles = await withTaskGroup(of: (Int, PostgresError?).self) { group in
            for (index, worker) in workers.enumerated() { group.addTask { (index, await worker.troubleWriting()) } }
            return await group.reduce(into: [PostgresError?](repeating: nil, count: workers.count)) { $0[$1.0] = $1.1 }
        }
        return (Array(troubles.dropLast()), troubles.last ?? nil)
    }

    /// What the lanes of decrements have done.
    public func decreaseLaneSnapshots() -> [LaneSnapshot] { lanes.map { $0.snapshot() } }
    /// What the lane of increases has done.
    public func increaseLaneSnapshot() -> LaneSnapshot { increaseLane.snapshot() }

    /// Answers waiting requests and closes every connection.
    public func shutdown() async {
        for lane in lanes { lane.shutdown() }
        increaseLane.shutdown()
        await lockedProducts.shutdown()
        for worker in workers { await worker.shutdown() }
        await pool.shutdown()
        await reads.shutdown()
        await lookups.shutdown()
    }

    // MARK: Group commit

    func commit(
        _ request: CommitRequest,
        on eventLoop: (any EventLoop)?,
        isExempt: Bool,
        isPatient: Bool = true,
        answer: @escaping @Sendable (Result<CommitReply, CommitFailure>) -> Void
    ) {
        let lane = lanes[Int(UInt64(bitPattern: request.decrease.product.rawValue) % UInt64(lanes.count))]
        let row = request.decrease.product.rawValue
        lane.enqueue(.init(request: request, row: row, eventLoop: eventLoop, isPatient: isPatient, answer: answer), isExempt: isExempt)
    }

    func increase(
        _ request: IncreaseRequest,
        on eventLoop: (any EventLoop)?,
        isExempt: Bool,
        isPatient: Bool = true,
        answer: @escaping @Sendable (Result<IncreaseReply, CommitFailure>) -> Void
    ) {
        let row = request.product.rawValue
        increaseLane.enqueue(
            .init(request: request, row: row, eventLoop: eventLoop, isPatient: isPatient, answer: answer),
            isExempt: isExempt
        )
    }

    private static let commitStatement = "select outcome, told, bumped, remaining, gated from stock_commit($1, $2, $3, $4, $5, $6, $7)"

    private static func send(_ session: PostgresSession, _ batch: [CommitRequest]) throws(PostgresError) -> [CommitReply] {
        var replies: [CommitReply] = []
        replies.reserveCapacity(batch.count)
        let parameters: [PostgresValue] = [
            .ints(batch.map(\.decrease.product.rawValue)),
            .texts(batch.map(\.decrease.key)),
            .ints(batch.map(\.decrease.quantity.rawValue)),
            .ints(batch.map(\.decrease.orderID)),
            .ints(batch.map(\.fence.rawValue)),
            .ints(batch.map(\.token.rawValue)),
            .ints(batch.map { ($0.reserveSent ? 1 : 0) | ($0.isFirm ? 2 : 0) }),
        ]
        _ = try session.query(commitStatement, parameters) { row throws(PostgresError) in
            replies.append(
                CommitReply(
                    outcome: try row.decode(0),
                    lockedFence: try row.decode(1),
                    bumped: try row.decode(2),
                    remaining: try row.decode(3),
                    isGated: try row.decode(4)
                )
            )
        }
        return replies
    }

    private static let increaseStatement =
        "select outcome, told, bumped, quantity, remaining, gated from stock_increase($1, $2, $3, $4, $5)"

    private static func send(_ session: PostgresSession, _ batch: [IncreaseRequest]) throws(PostgresError) -> [IncreaseReply] {
        var replies: [IncreaseReply] = []
        let parameters: [PostgresValue] = [
            .ints(batch.map(\.product.rawValue)), .texts(batch.map(\.key)), .texts(batch.map(\.decreaseKey)), .ints(batch.map(\.orderID)),
            .ints(batch.map(\.quantity.rawValue)),
        ]
        _ = try session.query(increaseStatement, parameters) { row throws(PostgresError) in
            replies.append(
                IncreaseReply(
                    outcome: try row.decode(0),
                    lockedFence: try row.decode(1),
                    bumped: try row.decode(2),
                    quantity: try row.decode(3),
                    remaining: try row.decode(4),
                    isGated: try row.decode(5)
                )
            )
        }
        return replies
    }

    // MARK: Single statements

    /// Returns when a product's row is not known to be locked any more, or after the ledger's `lockTimeout`. Background work that tries again and again waits
    /// here: all who wait for rows share one connection, and the pool's stay free.
    func untilFree(_ product: ProductID) async {
        guard lockedProducts.isLocked(product.rawValue) else { return }
        let until = ContinuousClock.now + patience
        await withCheckedContinuation { continuation in
            let admission = lockedProducts.wait(for: product.rawValue, until: until) { _ in continuation.resume() }
            if admission != .waiting { continuation.resume() }
        }
    }

    /// Raises the fences of these products. Those that do not exist are missing in the answer.
    public func bump(_ products: [ProductID]) async throws(PostgresError) -> [ProductID: Resync.LedgerState] {
        let rows = try await pool.query(
            "select product_id, fence, stock, is_on_sale from stock_bump($1)",
            [.ints(products.map(\.rawValue))]
        )
        return try Self.states(rows)
    }

    /// Raises the fences of these products, and waits at most `lockWait` for each row. Products that do not exist are missing in both parts of the answer.
    /// - Parameter lockWait: if zero, products whose rows are locked are named in the answer and the others are raised. Otherwise a row that stays locked for
    ///   longer fails the whole statement.
    public func bump(
        _ products: [ProductID],
        lockWait: Duration
    ) async throws(PostgresError) -> (raised: [ProductID: Resync.LedgerState], locked: Set<ProductID>) {
        let milliseconds = min(max(0, lockWait / .milliseconds(1)), Double(Int32.max))
        let rows = try await pool.query(
            "select product_id, fence, stock, is_on_sale, is_locked from stock_bump($1, $2)",
            [.ints(products.map(\.rawValue)), .int(Int64(milliseconds))]
        )
        var states: [ProductID: Resync.LedgerState] = [:]
        var locked: Set<ProductID> = []
        for row in rows {
            let id = ProductID(try row.decode(0, as: Int64.self))
            if try row.decode(4, as: Bool.self) {
                locked.insert(id)
            } else {
                states[id] = try Self.state(row)
            }
        }
        return (states, locked)
    }

    private static func states(_ rows: PostgresResult) throws(PostgresError) -> [ProductID: Resync.LedgerState] {
        var states: [ProductID: Resync.LedgerState] = [:]
        for row in rows { states[ProductID(try row.decode(0, as: Int64.self))] = try state(row) }
        return states
    }

    /// Reads the columns behind the product's id: fence, stock, and whether the product is on sale.
    private static func state(_ row: PostgresRow) throws(PostgresError) -> Resync.LedgerState {
        .init(fence: try row.decode(1), stock: try row.decode(2), isOnSale: try row.decode(3))
    }

    /// Raises the fences of these products above what Redis holds for each. Those that do not exist, or whose row is locked, are missing in the answer.
    public func raise(_ products: [(id: ProductID, above: Fence)]) async throws(PostgresError) -> [ProductID: Resync.LedgerState] {
        let rows = try await pool.query(
            "select product_id, fence, stock, is_on_sale from stock_raise($1, $2)",
            [.ints(products.map(\.id.rawValue)), .ints(products.map(\.above.rawValue))]
        )
        return try Self.states(rows)
    }

    /// The name that tells this ledger from every other one; empty where the database role may not ask for it.
    public func name() async throws(PostgresError) -> String {
        try await pool.query("select stock_ledger_name()").one().decode(0, as: String.self)
    }

    /// The products' ledger states, without raising any fence. Those that do not exist are missing in the answer.
    public func states(of products: [ProductID]) async throws(PostgresError) -> [ProductID: Resync.LedgerState] {
        let rows = try await pool.query(
            "select product_id, fence, stock, is_on_sale from product_stock where product_id = any($1)",
            [.ints(products.map(\.rawValue))]
        )
        return try Self.states(rows)
    }

    /// The ids of gated products, greater than `after`, at most `limit`, in order.
    public func gatedProducts(after: Int64, limit: Int) async throws(PostgresError) -> [ProductID] {
        let rows = try await pool.query(
            "select product_id from product_stock where is_gated and product_id > $1 order by product_id limit $2",
            [.int(after), .int(Int64(limit))]
        )
        var products: [ProductID] = []
        for row in rows { products.append(ProductID(try row.decode(0, as: Int64.self))) }
        return products
    }

    /// The ledger's row for a key. A key that is not found may be committed later, because a statement may still be running.
    /// - Parameter reader: whether a caller only wants to read; such reads have connections of their own, so that the engine's questions never wait behind them.
    ///   A row is returned only when the synchronous standby has it, if there is one.
    public func entry(forKey key: String, reader: Bool = false) async throws(PostgresError) -> LedgerEntry? {
        let rows = try await (reader ? lookups : pool).query(
            """
            select product_id, order_id, quantity, remaining, direction, fence, token, \(PostgresSession.replicatedServer) from stock_ledger
            where request_id = $1
            union all
            select product_id, order_id, quantity, remaining, direction, -1, 0, \(PostgresSession.replicatedServer) from stock_archived_keys
            where request_id = $1
            """,
            [.text(key)]
        )
        guard let row = rows.first else { return nil }
        if reader { try await lookups.awaitReplication(at: try row.decode(7)) }
        return LedgerEntry(
            product: ProductID(try row.decode(0, as: Int64.self)),
            orderID: try row.decode(1),
            quantity: try row.decode(2),
            remaining: try row.decode(3),
            direction: try row.decode(4),
            fence: try row.decode(5),
            token: try row.decode(6)
        )
    }

    /// When the ledger's row for a key was written, microseconds since the Unix epoch by the ledger's clock; nil: there is none.
    func timeOfEntry(forKey key: String) async throws(PostgresError) -> Int64? {
        let rows = try await pool.query("select created_at from stock_ledger where request_id = $1", [.text(key)])
        return try rows.first.map { row throws(PostgresError) in try row.decode(0, as: PostgresTimestamp.self).microsecondsSinceEpoch }
    }

    /// What became of a change by hand.
    public enum AdjustOutcome: Int64, PostgresDecodable, Sendable {
        /// Done, durably.
        case done = 0
        /// Done before, under the same key.
        case duplicate = 1
        /// The stock would fall below zero: nothing changed.
        case belowZero = 2
        /// The stock would exceed its maximum: nothing changed.
        case aboveMaximum = 3
        /// The key belongs to something else.
        case keyReused = 4
        case productMissing = 5
    }

    /// Changes the stock by a signed quantity, and raises the fence. The caller must ask for a resync if the product is gated.
    public func adjust(
        _ product: ProductID,
        key: String,
        by quantity: Int64,
        maximum: Int64
    ) async throws(PostgresError) -> (outcome: AdjustOutcome, remaining: Int64, isGated: Bool) {
        let row = try await pool.query(
            "select outcome, remaining, gated, \(PostgresSession.replicatedServer) from stock_adjust($1, $2, $3, $4, 'MANUAL')",
            [.int(product.rawValue), .text(key), .int(quantity), .int(maximum)]
        ).one()
        let outcome: AdjustOutcome = try row.decode(0)
        // The statement of a repeat writes nothing, and so does not wait for the standby by itself.
        if outcome == .duplicate { try await pool.awaitReplication(at: try row.decode(3)) }
        return (outcome, try row.decode(1), try row.decode(2))
    }

    /// Whether a product is gated; nil: no such product. Reads no row of the ledger.
    public func isGated(_ product: ProductID) async throws(PostgresError) -> Bool? {
        let rows = try await pool.query("select is_gated from product_stock where product_id = $1", [.int(product.rawValue)])
        return try rows.first.map { (row) throws(PostgresError) in try row.decode(0, as: Bool.self) }
    }
}

extension CommitOutcome: PostgresDecodable {}
extension IncreaseOutcome: PostgresDecodable {}
extension LedgerEntry.Direction: PostgresDecodable {}
