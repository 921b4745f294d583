// Invariant: a row is published only while this relay's transaction holds the row's lane, and only after the row's count of attempts was raised. So if this
//   process dies, the next attempt is marked as a repeat. A row becomes SENT only after the broker's confirm.
//
// The relay keeps its lanes from batch to batch while there are rows to publish, so that a batch costs the database two statements: one takes rows and raises
// their counts, one marks them. After `laneTime` it releases the lanes for other servers' relays. If the connection that holds the lanes is lost, the relay
// notices at that point. Until then another relay may have taken the lanes, and both may publish the same rows, as after a crash.
//
// Commands and events have a relay each, so that trouble with the stream of events delays no command.
//
// Who suffers: the rows of one batch are taken and marked together. A row that another transaction has locked is waited for only briefly
//   (`GroupWrite.rowWait`). Then the statement is sent again in a form that skips locked rows. A row that was skipped when rows were taken is taken later,
//   behind younger rows of its product. A row that was skipped when rows were marked is published once more, as a repeat.
//
// Bounds: one batch at a time (RelayMachine). A batch is waited for `publishTimeout` at most, and begins within `laneTime` of taking the lanes. Two connections
//   and one thread. The relay's commits are not flushed (synchronous_commit is off): what a crash of the database loses of them is published again, as a
//   repeat.
// Stops: when told to, after the present batch.

import BlockingThreads
import Logging
import MessageBroker
import PostgresClient
import ServerMetrics
import StockContract
import StrictJSON
import Synchronization

/// Publishes the outbox's rows of one kind. This is the shell around ``RelayMachine``.
final class OutboxRelay: Sendable {
    private let kind: OutboxSQL.Kind
    private let worker: PostgresWorker
    private let configuration: PostgresConfiguration
    private let machine: RelayMachine
    private let routes: CommandRoutes
    private let publishTimeout: Duration
    private let publisher: any MessagePublishing
    private let backlog: OutboxBacklog
    private let metrics: MessagingMetrics
    private let logger: Logger
    private let signal = WakeSignal()
    private let isStopping = Atomic(false)
    private let takeSQL: String
    private let takeFreeSQL: String
    private static let warningInterval = Duration.seconds(30)
    /// The last warning that messages failed.
    private let warned = Mutex<(error: String, at: ContinuousClock.Instant)?>(nil)

    init(
        _ kind: OutboxSQL.Kind,
        configuration: PostgresConfiguration,
        settings: RelayMachine.Configuration,
        routes: CommandRoutes,
        publishTimeout: Duration,
        publisher: any MessagePublishing,
        backlog: OutboxBacklog,
        metrics: MessagingMetrics,
        logger: Logger
    ) throws(PostgresError) {
        self.kind = kind
        let name = kind == .commands ? "relay-commands" : "relay-events"
        worker = try PostgresWorker(configuration: configuration, name: name, maximumQueued: 1)
        takeSQL = RelaySQL.take(kind)
        takeFreeSQL = RelaySQL.take(kind, locking: "for update of o skip locked")
        self.configuration = configuration
        machine = RelayMachine(settings: settings)
        self.routes = routes
        self.publishTimeout = publishTimeout
        self.publisher = publisher
        self.backlog = backlog
        self.metrics = metrics
        self.logger = logger
    }

    /// Tells the relay that there may be rows to publish.
    func wake() { signal.signal() }

    /// Begins to publish, once the tables exist.
    func start() {
        // The worker refuses the job only if it was shut down.
        try? worker.submit { [self] session in self.run(session) }
    }

    /// Ends the relay after its present batch.
    func shutdown() async {
        isStopping.store(true, ordering: .releasing)
        signal.signal()
        await worker.shutdown()
    }

    // MARK: The loop

    /// How long the relay keeps lanes.
    private static let laneTime = Duration.milliseconds(100)

    private func run(_ lanes: PostgresSession) {
        var configuration = self.configuration
        configuration.lockTimeout = GroupWrite.rowWait
        let rows = PostgresSession(configuration: configuration)
        defer { rows.close() }
        var machine = self.machine
        var nextCount = ContinuousClock.now
        var action = machine.handle(.woke(isConnected: publisher.snapshot().isConnected))
        // The loop ends with `stop`, which the machine sees when it sleeps.
        while true {
            if kind == .commands, ContinuousClock.now >= nextCount {
                count(rows)
                nextCount = .now + machine.settings.pollInterval
            }
            switch action {
            case .look: action = rounds(&machine, lanes, rows)
            case .sleep(let duration):
                if !isStopping.load(ordering: .acquiring) { _ = signal.wait(for: duration) }
                action = wake(&machine)
            case .pause(let duration):
                pause(duration)
                action = wake(&machine)
            case .publish, .mark, .ignore: action = machine.handle(.databaseFailed)
            case .end: return
            }
        }
    }

    /// Sleeps for the whole time. A wake in between takes effect afterwards.
    private func pause(_ duration: Duration) {
        let end = ContinuousClock.now + duration
        while !isStopping.load(ordering: .acquiring), ContinuousClock.now < end { _ = signal.wait(for: end - .now) }
    }

    private func wake(_ machine: inout RelayMachine) -> RelayMachine.Action {
        machine.handle(isStopping.load(ordering: .acquiring) ? .stop : .woke(isConnected: publisher.snapshot().isConnected))
    }

    /// Takes lanes, then publishes and marks batch after batch, until no row is left or the lanes must go to other relays.
    private func rounds(_ machine: inout RelayMachine, _ lanes: PostgresSession, _ rows: PostgresSession) -> RelayMachine.Action {
        if isStopping.load(ordering: .acquiring) {
            _ = machine.handle(.found([], isBusy: false))
            return machine.handle(.stop)
        }
        let end = ContinuousClock.now + OutboxRelay.laneTime
        var present = machine
        do {
            let action = try lanes.transaction { transaction in
                let held = try transaction.query(
                    RelaySQL.lanes,
                    [.int(self.kind.lanes.lowerBound), .int(self.kind.lanes.upperBound)]
                ).one().decode(0, as: [Int64].self)
                let isBusy = held.count < self.kind.lanes.count
                var action = RelayMachine.Action.look
                // The loop ends when the time is over or no row is found.
                while true {
                    switch action {
                    case .look:
                        let taken = held.isEmpty ? [] : try self.take(rows, held, present.settings.maximumRows)
                        action = present.handle(.found(taken, isBusy: isBusy))
                        // No row is left. The lanes are released, and lanes that other relays hold are tried again.
                        guard case .publish(let batch) = action else { return action }
                        try self.giveBack(rows, taken, butNot: batch)
                    case .publish(let batch): action = present.handle(self.publish(batch))
                    case .mark(let marks):
                        try self.mark(rows, marks)
                        action = present.handle(.marked)
                    case .pause(let duration):
                        guard ContinuousClock.now + duration < end, !self.isStopping.load(ordering: .acquiring) else { return action }
                        self.pause(duration)
                        action = self.wake(&present)
                    case .sleep, .end, .ignore: return action
                    }
                }
            }
            machine = present
            return action
        } catch {
            logger.warning("the relay could not read or mark the outbox", metadata: ["error": "\(error)"])
            // The machine goes back to its state before the look. Rows that were not marked will be found again.
            return machine.handle(.databaseFailed)
        }
    }

    private func take(_ session: PostgresSession, _ lanes: [Int64], _ limit: Int) throws(PostgresError) -> [RelayRow] {
        var found: [RelayRow] = []
        let parameters: [PostgresValue] = [.ints(lanes), .int(Int64(limit))]
        let rows: PostgresResult
        do throws(PostgresError) {
            rows = try session.query(takeSQL, parameters)
        } catch  where error.isLockTimeout {
            rows = try session.query(takeFreeSQL, parameters)
        }
        var unreadable: [Int64] = []
        for row in rows {
            let id = try row.decode(0, as: Int64.self)
            guard let payload = try OutboxRelay.payload(row) else {
                unreadable.append(id)
                continue
            }
            found.append(
                RelayRow(
                    id: id,
                    topic: try row.decode(1),
                    productID: try row.decode(2),
                    orders: try row.decode(3),
                    payload: payload,
                    traceparent: try row.decode(5),
                    attempts: try row.decode(6),
                    error: try row.decode(7)
                )
            )
        }
        if !unreadable.isEmpty { try giveUp(session, unreadable.map { ($0, "UNREADABLE") }, orders: 0) }
        return found
    }

    /// The message's text; nil if the row is a draft that cannot be read, which no server has written.
    private static func payload(_ row: PostgresRow) throws(PostgresError) -> String? {
        let payload = try row.decode(4, as: String.self)
        guard let moment = try row.decode(8, as: PostgresTimestamp?.self) else { return payload }
        return EventDraft.message(
            payload,
            EventDraft.Outcome(
                id: try row.decode(0),
                topic: try row.decode(1),
                moment: Timestamp(moment),
                orders: try row.decode(9),
                versions: try row.decode(10)
            )
        )
    }

    /// Lowers the count of attempts of rows that were taken, but are not in this batch.
    private func giveBack(_ session: PostgresSession, _ taken: [RelayRow], butNot batch: [RelayRow]) throws(PostgresError) {
        guard batch.count < taken.count else { return }
        let going = Set(batch.map(\.id))
        _ = try OutboxRelay.marked(
            session,
            RelaySQL.untouched,
            [.ints(taken.map(\.id).filter { !going.contains($0) })],
            isRepeatable: false
        )
    }

    private func publish(_ batch: [RelayRow]) -> RelayMachine.Event {
        let messages = batch.map(message)
        let done = WakeSignal()
        let result = PublishResult()
        let publisher = self.publisher
        Task {
            let event: RelayMachine.Event
            do throws(BrokerError) {
                event = .published(try await publisher.publish(messages))
            } catch {
                event = .notPublished(error.code)
            }
            result.event.withLock { $0 = event }
            done.signal()
        }
        // The publisher has its own bound. This one is for a publisher that exceeds it.
        _ = done.wait(for: publishTimeout)
        let event = result.event.withLock { $0 } ?? .published([])
        if case .published(let outcomes) = event { metrics.published(outcomes, of: batch.count) }
        return event
    }

    private final class PublishResult: Sendable {
        let event = Mutex<RelayMachine.Event?>(nil)
    }

    private func message(_ row: RelayRow) -> OutgoingMessage {
        let isCommand = row.topic == OutboxSQL.decreaseTopic
        var headers: [String: HeaderValue] = ["attempt": .integer(row.attempts + 1)]
        if let trace = row.traceparent { headers["traceparent"] = .string(trace) }
        return OutgoingMessage(
            exchange: isCommand ? StockGateTopology.commandsExchange : StockGateTopology.orderEventsExchange,
            routingKey: isCommand ? routes.routingKey(product: row.productID) : row.topic,
            body: Array(row.payload.utf8),
            messageID: String(row.id),
            type: row.topic,
            timestamp: UInt64(clamping: Timestamp.now.microsecondsSinceEpoch / 1_000_000),
            headers: headers
        )
    }

    // MARK: Marks

    /// Marks rows, and skips those that are locked. $1 has the rows' ids.
    ///
    /// - Parameters:
    ///   - sql: makes the statement from a table of rows that are free and a condition that uses it; both may be empty
    ///   - isRepeatable: whether the statement may be sent again after it may have run
    private static func marked(
        _ session: PostgresSession,
        _ sql: (_ free: String, _ condition: String) -> String,
        _ parameters: [PostgresValue],
        isRepeatable: Bool = true
    ) throws(PostgresError) -> PostgresResult {
        func send(_ sql: String) throws(PostgresError) -> PostgresResult {
            isRepeatable ? try session.repeatable(sql, parameters) : try session.query(sql, parameters)
        }
        do throws(PostgresError) {
            return try send(sql("", ""))
        } catch  where error.isLockTimeout {
            // The statement that timed out has not run.
            let free = "free as materialized (select id from outbox where id = any($1::bigint[]) for update skip locked)"
            return try send(sql(free, " and o.id in (select id from free)"))
        }
    }

    private func mark(_ session: PostgresSession, _ marks: [RelayMark]) throws(PostgresError) {
        var sent: [Int64] = []
        var sentOrders = 0
        var failed: [(id: Int64, after: Int64, error: String)] = []
        var dead: [(id: Int64, error: String)] = []
        var deadOrders = 0
        var untouched: [Int64] = []
        for mark in marks {
            switch mark {
            case .sent(let id, let orders):
                sent.append(id)
                sentOrders += orders
            case .failed(let id, let after, let error): failed.append((id, after.microseconds, error))
            case .dead(let id, let orders, let error):
                dead.append((id, error))
                deadOrders += orders
            case .untouched(let id): untouched.append(id)
            }
        }
        // Each statement except that for untouched rows may be repeated, because it changes only rows that wait.
        if !sent.isEmpty {
            let row = try OutboxRelay.marked(session, RelaySQL.sent, [.ints(sent)]).one()
            for delay in try row.decode(0, as: [Int64].self) { metrics.relaySeconds(kind).record(.microseconds(delay)) }
            let events = try row.decode(1, as: Int.self)
            backlog.release(events: events)
            backlog.release(orders: sentOrders)
        }
        if !failed.isEmpty {
            _ = try OutboxRelay.marked(
                session,
                RelaySQL.failed,
                [.ints(failed.map(\.id)), .ints(failed.map(\.after)), .texts(failed.map(\.error))]
            )
            warn(failed.count, failed[0].error)
        }
        if !untouched.isEmpty { _ = try OutboxRelay.marked(session, RelaySQL.untouched, [.ints(untouched)], isRepeatable: false) }
        if !dead.isEmpty { try giveUp(session, dead, orders: deadOrders) }
    }

    /// Says that messages failed: once for each error, and again where it goes on after half a minute.
    private func warn(_ messages: Int, _ error: String) {
        let now = ContinuousClock.now
        let isNews = self.warned.withLock { warned in
            if let warned, warned.error == error, now - warned.at < OutboxRelay.warningInterval { return false }
            warned = (error, now)
            return true
        }
        guard isNews else { return }
        logger.warning(
            "the broker did not take messages: they are tried again",
            metadata: ["messages": "\(messages)", "error": "\(error)"]
        )
    }

    private func giveUp(_ session: PostgresSession, _ dead: [(id: Int64, error: String)], orders: Int) throws(PostgresError) {
        let row = try OutboxRelay.marked(session, RelaySQL.dead, [.ints(dead.map(\.id)), .texts(dead.map(\.error))]).one()
        backlog.release(events: try row.decode(1))
        backlog.release(orders: orders)
        metrics.dead.add(UInt64(dead.count))
        let left = try row.decode(0, as: Int64.self)
        logger.error(
            "messages were given up; their orders are left to recovery",
            metadata: ["messages": "\(dead.count)", "orders": "\(left)", "error": "\(dead.first?.error ?? "")"]
        )
    }

    // MARK: The count, of both kinds; the relay of commands makes it

    private func count(_ session: PostgresSession) {
        backlog.beginCount()
        do throws(PostgresError) {
            let row = try session.query(RelaySQL.count, []).one()
            backlog.endCount(
                orders: try row.decode(0),
                events: try row.decode(1),
                oldestAge: .microseconds(max(0, try row.decode(4, as: Int64.self))),
                rows: [.new: try row.decode(2), .failed: try row.decode(3), .dead: try row.decode(5, as: Int.self)]
            )
        } catch {
            logger.debug("the rows of the outbox could not be counted", metadata: ["error": "\(error)"])
        }
    }
}
