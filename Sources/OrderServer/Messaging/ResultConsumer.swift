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
    private let ids = Mutex(IDBlock(sequence: "outbox_ids"))

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

    private func apply(_ results: [StockResult]) async throws {
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
            guard result.outcome == .committed, result.run < order.run else {
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
