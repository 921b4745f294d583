// Invariant: a delivery is acknowledged only after what it says is durable: written, found written, or left to recovery. Results may come again and in any order; a final
// state is never changed by one. A success for an order that has failed is given back.
//
// Bounds: `maximumMessages` messages are taken at a time, `maximumResults` results go into one statement. Trouble with the database is waited out with the deliveries in hand, up to a
// second between attempts; a message that cannot be read goes to the dead letters, and back to the queue if that fails.
// Stops: when its task is cancelled, after the statement in hand. What is not acknowledged then is delivered again.

import Logging
import MessageBroker
import PostgresClient
import ServerKit
import Synchronization

/// Writes what the product server decided about orders that went over the broker.
final class ResultConsumer: Sendable {
    struct Settings: Sendable {
        var maximumMessages = 64
        var maximumResults = 2048
    }

    private let settings: Settings
    private let worker: PostgresWorker
    private let endpoints: MessageEndpoints
    private let flow: OrderFlow
    private let outbox: OutboxWriting
    private let changes: OrderChanges
    private let figures: MessagingFigures
    private let logger: Logger
    private let ids = Mutex(IDSequence.messages.block)

    init(
        configuration: PostgresConfiguration,
        settings: Settings,
        endpoints: MessageEndpoints,
        flow: OrderFlow,
        outbox: OutboxWriting,
        changes: OrderChanges,
        figures: MessagingFigures,
        logger: Logger
    ) throws(PostgresError) {
        self.settings = settings
        self.worker = try PostgresWorker(configuration: configuration, name: "order-results", maximumQueued: 16)
        self.endpoints = endpoints
        self.flow = flow
        self.outbox = outbox
        self.changes = changes
        self.figures = figures
        self.logger = logger
    }

    /// Runs until its task is cancelled or the consumer is closed.
    func run() async {
        while !Task.isCancelled {
            let deliveries: [Delivery]
            do throws(BrokerError) {
                deliveries = try await self.endpoints.results.nextBatch(max: self.settings.maximumMessages, wait: .seconds(1))
            } catch {
                return
            }
            if !deliveries.isEmpty { await self.take(deliveries) }
        }
    }

    /// Lets the statement in hand end.
    func shutdown() async { await self.worker.shutdown() }

    // MARK: A batch

    private func take(_ deliveries: [Delivery]) async {
        var messages: [StockResultMessage] = []
        var readable: [Delivery] = []
        for delivery in deliveries {
            if delivery.isRedelivered || delivery.deliveryCount > 0 { self.figures.redelivered.add() }
            do throws(StockResultMessage.Poison) {
                messages.append(try StockResultMessage(delivery.body))
                readable.append(delivery)
            } catch {
                await self.bury(delivery, error)
            }
        }
        var wait = Duration.milliseconds(20)
        // Until it is written; the deliveries stay unacknowledged meanwhile.
        while !messages.isEmpty, !Task.isCancelled {
            do {
                try await self.apply(messages)
                self.endpoints.results.acknowledge(readable)
                return
            } catch {
                self.logger.warning("results were not written", metadata: ["messages": "\(messages.count)", "error": "\(error)"])
                try? await Task.sleep(for: wait)
                wait = min(wait * 2, .seconds(1))
            }
        }
    }

    /// Puts a message that nobody can read to the dead letters.
    private func bury(_ delivery: Delivery, _ poison: StockResultMessage.Poison) async {
        var letter = OutgoingMessage.deadLetter(delivery, reason: poison.code)
        letter.headers["reason"] = .string(poison.code)
        letter.headers["detail"] = .string(String(poison.detail.prefix(200)))
        let outcomes = (try? await self.endpoints.publisher.publish([letter])) ?? []
        guard outcomes == [.confirmed] else {
            // Delivered again; the queue's own delivery limit ends it at last.
            try? await Task.sleep(for: .milliseconds(100))
            self.endpoints.results.reject(delivery, requeue: true)
            return
        }
        self.figures.poison.add()
        self.logger.error("a result could not be read", metadata: ["reason": "\(poison.code)", "detail": "\(poison.detail)"])
        self.endpoints.results.acknowledge([delivery])
    }

    // MARK: Writing

    private func apply(_ messages: [StockResultMessage]) async throws {
        var pending: [StockResult] = []
        for message in messages {
            pending += message.results
            if pending.count >= self.settings.maximumResults {
                try await self.apply(pending)
                pending = []
            }
        }
        if !pending.isEmpty { try await self.apply(pending) }
        for message in messages { self.remember(message) }
    }

    private func apply(_ given: [StockResult]) async throws {
        let results = try await self.takeOtherKeys(given)
        if results.isEmpty { return }
        // Of two results for one order the first is written, the other is judged by the state that it finds.
        var first: [Int64: Int] = [:]
        var changes: [OrderChange] = []
        changes.reserveCapacity(results.count)
        let done = ResultConsumer.steps(.committed, reason: nil)
        var refused: [String: String] = [:]
        for (index, result) in results.enumerated() where first.updateValue(index, forKey: result.orderID) == nil {
            let reason = result.outcome == .committed ? nil : result.reason ?? "REFUSED"
            let steps: String
            if let reason {
                if refused[reason] == nil { refused[reason] = ResultConsumer.steps(.refused, reason: reason) }
                steps = refused[reason] ?? ""
            } else {
                steps = done
            }
            let to: OrderStatus = result.outcome == .committed ? .confirmed : .failed
            changes.append(OrderChange(id: result.orderID, run: result.run, from: .pending, to: to, failReason: reason, steps: steps))
        }
        self.figures.resultBatches.record(UInt64(changes.count))
        let batch = changes
        let written = try await self.worker.perform { session in
            try self.ids.withLock { ids throws(PostgresError) in
                try OrderCompletion.write(session, batch, &ids, self.outbox, self.changes).status
            }
        }
        let confirmed = written.values.count { $0 == OrderStatus.confirmed.rawValue }
        self.flow.figures.confirmed.add(UInt64(confirmed))
        self.flow.figures.failed.add(UInt64(written.count - confirmed))
        self.figures.results(.committed, confirmed)
        self.figures.results(.refused, written.count - confirmed)
        if written.count == results.count { return }
        var claimed: Set<Int64> = []
        // The first result of an order that was written is done with.
        let others = results.filter { !(written[$0.orderID] != nil && claimed.insert($0.orderID).inserted) }
        try await self.judge(others)
    }

    /// Orders that wait, and whose key is said to be another order's, or to be closed: no order that waits can have done that itself. Those made just now take another
    /// key at once; of the others somebody may have sent the key over HTTP meanwhile. Recovery settles both over HTTP, where the ledger compares the times.
    /// - Returns: the results that are left
    private func takeOtherKeys(_ results: [StockResult]) async throws -> [StockResult] {
        let taken = results.filter { $0.outcome == .refused && ($0.reason == "KEY_REUSED" || $0.reason == "KEY_CLOSED") }
        if taken.isEmpty { return results }
        let parameters: [PostgresValue] = [
            .ints(taken.map(\.orderID)), .ints(taken.map(\.run)), .int(OrderFlow.freshAge(self.flow.settings).microseconds),
        ]
        let row = try await self.worker.perform { session in try session.query(ResultConsumer.otherKeysSQL, parameters).one() }
        let (renewed, waiting) = (try row.ints(0), Set(try row.ints(1)))
        if !renewed.isEmpty { self.flow.noteKeyTaken(orders: renewed.count, example: nil, newKey: nil, "RESULT") }
        if !waiting.isEmpty {
            self.logger.info("orders whose key is taken were handed to recovery", metadata: ["orders": "\(waiting.count)"])
        }
        return results.filter { !waiting.contains($0.orderID) }
    }

    private static let otherKeysSQL = """
        with t as (
          select o.id, o.updated_at > now() - $3 * interval '1 microsecond' as is_new
          from unnest($1, $2) as r(i, n) join orders o on o.id = r.i and o.run = r.n where o.status = 'PENDING'
        ), renewed as (
          update orders o set run = \(OrderStore.otherRun), updated_at = now() from t
          where o.id = t.id and t.is_new and o.status = 'PENDING' returning o.id
        ), work as (
          insert into saga_work (order_id, due_at) select id, now() from t on conflict do nothing
        )
        select (select coalesce(array_agg(id), '{}') from renewed), (select coalesce(array_agg(id), '{}') from t)
        """

    private static func steps(_ outcome: StockResult.Outcome, reason: String?) -> String {
        StepRecord.json([StepRecord(step: "STOCK", run: 1, action: .execute, outcome: reason ?? "DONE", attempts: 1, at: .now)])
    }

    /// Results that changed nothing: what they mean for the orders as they are.
    private func judge(_ results: [StockResult]) async throws {
        let ids = results.map(\.orderID)
        let rows = try await self.worker.perform { session in
            try session.query("select \(Order.columns) from orders o where o.id = any($1)", [.ints(ids)])
        }
        var orders: [Int64: Order] = [:]
        for row in rows {
            let order = try Order(row: row)
            orders[order.id] = order
        }
        for result in results {
            switch ResultJudgement(result, orders[result.orderID]) {
            case .unexpected: self.figures.unexpected.add()
            case .duplicate: self.figures.duplicates.add()
            case .kept: self.figures.kept.add()
            case .lateSuccess(let order): try await self.flow.undoLateSuccess(order)
            case .again:
                // It became PENDING again between the statement and the look, or another server holds it: the batch comes round again.
                throw PostgresError(code: .misuse, message: "order \(result.orderID) changed meanwhile")
            }
        }
    }

    /// What the results say of the product, for buyers that come now.
    private func remember(_ message: StockResultMessage) {
        // A result that waited in the queue says nothing about now.
        guard let product = message.productID, let time = message.time, self.flow.soldOut.isFresh(time) else { return }
        if message.results.contains(where: { $0.outcome == .committed }) { self.flow.soldOut.sawStock(product: product) }
        // Whoever is refused has wanted more than there is.
        if let last = message.results.last(where: { $0.reason == APIErrorCode.insufficientStock.rawValue }), last.outcome == .refused,
            let left = last.remainingStock, left < .max
        {
            self.flow.soldOut.sawRefusal(product: product, quantity: left + 1)
        }
    }
}

/// What a result means that did not change its order.
enum ResultJudgement: Sendable, Equatable {
    /// This database does not have the order.
    case unexpected
    /// The order has that state already.
    case duplicate
    /// The order has another state, and keeps it.
    case kept
    /// The stock was taken for a run of the order that has failed: it goes back.
    case lateSuccess(Order)
    /// The order waits for this very result: it was not written for another reason.
    case again

    init(_ result: StockResult, _ order: Order?) {
        guard let order else {
            self = .unexpected
            return
        }
        guard order.run == result.run else {
            // A run begins only after the one before it has failed.
            // Of an order that took another key, the key before it was another order's, and so are its units.
            let isOwn = order.run < Order.firstOtherRun || result.run >= Order.firstOtherRun
            guard result.outcome == .committed, result.run < order.run, isOwn else {
                self = .kept
                return
            }
            var earlier = order
            earlier.run = result.run
            earlier.status = .failed
            self = .lateSuccess(earlier)
            return
        }
        switch (result.outcome, order.status) {
        case (_, .pending): self = .again
        case (.committed, .confirmed), (.committed, .cancelled), (.refused, .failed): self = .duplicate
        case (.refused, .confirmed), (.refused, .cancelled): self = .kept
        case (.committed, .failed): self = .lateSuccess(order)
        }
    }
}
