// Invariant: a delivery is acknowledged only after its content is durable: written, found written, or handed to recovery. Results may come repeatedly and in
//   any order, and never change a final state. The stock of a success that comes for a failed order is given back.
//
// Who suffers: one statement writes the results of a batch. A message that cannot go with the batch is put aside, alone, and the others are
// acknowledged: a message that cannot be read, one whose values the database refuses, one whose order's row is locked, a late success whose stock must still be
// given back. While the whole database is in trouble, the batch waits, with up to a second between attempts. A message that came back before may be what ended
// the process that had it. It is read and written alone, after the messages that come for the first time.
//
// Bounds: `maximumMessages` messages are taken at a time, `maximumResults` results go into one statement, and `maximumAside` messages are aside, each tried
//   again within two seconds of its last attempt. While that many are aside, no more messages are taken. A dead letter that the broker does not take for
//   `buryWithin` goes back to the queue, whose own limit ends it.
// Stops: when its task is cancelled, after the present statement. Unacknowledged messages are delivered again.

import APIErrors
import BlockingThreads
import Logging
import MessageBroker
import PostgresClient
import ServerMetrics
import StockContract
import StrictJSON
import Synchronization

/// Writes what the product server decided about orders that went over the broker.
final class ResultConsumer: Sendable {
    struct Configuration: Sendable {
        var maximumMessages = 64
        var maximumResults = 2048
        /// Twice the prefetch: after a lost connection, messages may be delivered again while their first copies are still aside.
        var maximumAside = 1024
        var buryWithin = Duration.seconds(60)
    }

    /// A message that was put out of its batch.
    private struct Aside: Sendable {
        enum Task: Sendable {
            /// Write these results, or give their stock back.
            case settle([OrderStockResult])
            /// Move the message to the dead letters.
            case bury(StockResultMessage.Poison)
        }

        let delivery: Delivery
        var task: Task
    }

    /// Pauses between attempts to write a batch that the database did not take.
    private static let batchBackoff = Backoff(minimum: .milliseconds(20), maximum: .seconds(1))
    /// Pauses between attempts to settle a message that was put aside.
    private static let asideBackoff = Backoff(minimum: .milliseconds(20), maximum: .seconds(2))

    private let settings: Configuration
    private let worker: PostgresWorker
    /// The worker for messages aside, so that a locked row delays no batch. It connects when it is first needed.
    private let asideWorker: PostgresWorker
    private let aside = AsyncStream.makeStream(of: Aside.self)
    private let endpoints: MessageEndpoints
    private let conclusion: OrderConclusion
    private let cells: ProductCells
    private let writer: ResultWriter
    private let metrics: MessagingMetrics
    private let logger: Logger

    init(
        configuration: PostgresConfiguration,
        settings: Configuration,
        endpoints: MessageEndpoints,
        conclusion: OrderConclusion,
        cells: ProductCells,
        outbox: OutboxWriting,
        changes: OrderWatch,
        metrics: MessagingMetrics,
        logger: Logger
    ) throws(PostgresError) {
        self.settings = settings
        // The session waits for a locked row only briefly, and the message is tried again later.
        var configuration = configuration
        configuration.lockTimeout = GroupWrite.rowWait
        worker = try PostgresWorker(configuration: configuration, name: "order-results", maximumQueued: 16)
        asideWorker = try PostgresWorker(
            configuration: configuration,
            name: "results-aside",
            maximumQueued: settings.maximumAside + settings.maximumMessages
        )
        self.endpoints = endpoints
        self.conclusion = conclusion
        self.cells = cells
        writer = ResultWriter(conclusion: conclusion, outbox: outbox, changes: changes, metrics: metrics, logger: logger)
        self.metrics = metrics
        self.logger = logger
    }

    /// Runs until its task is cancelled or the consumer is closed.
    func run() async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.settleAside() }
            await self.consume()
            group.cancelAll()
        }
    }

    private func consume() async {
        while !Task.isCancelled {
            guard metrics.aside.count < settings.maximumAside else {
                try? await Task.sleep(for: .milliseconds(20))
                continue
            }
            let deliveries: [Delivery]
            do throws(BrokerError) {
                deliveries = try await endpoints.results.nextBatch(max: settings.maximumMessages, wait: .seconds(1))
            } catch {
                return
            }
            let fresh = deliveries.filter { !$0.isSuspect }
            if !fresh.isEmpty { await take(fresh) }
            for suspect in deliveries where suspect.isSuspect && !Task.isCancelled { await take([suspect]) }
        }
    }

    /// Lets the present statement end.
    func shutdown() async {
        await worker.shutdown()
        await asideWorker.shutdown()
    }

    // MARK: A batch

    private func take(_ deliveries: [Delivery]) async {
        var messages: [StockResultMessage] = []
        var readable: [Delivery] = []
        for delivery in deliveries {
            if delivery.isRedelivered || delivery.deliveryCount > 0 { metrics.redelivered.add() }
            do throws(StockResultMessage.Poison) {
                messages.append(try StockResultMessage(delivery.body))
                readable.append(delivery)
            } catch {
                putAside(Aside(delivery: delivery, task: .bury(error)))
            }
        }
        var failures = 0
        // The loop ends when the messages are written. Until then their deliveries stay unacknowledged.
        while !messages.isEmpty, !Task.isCancelled {
            do {
                try await write(messages, readable)
                return
            } catch let error as PostgresError where error.mayBeOneMembers && messages.count > 1 {
                logger.warning(
                    "results were not written together; each message is tried alone",
                    metadata: ["messages": "\(messages.count)", "error": "\(error)"]
                )
                for (message, delivery) in zip(messages, readable) {
                    do {
                        try await write([message], [delivery])
                    } catch {
                        putAside(Aside(delivery: delivery, task: .settle(message.results)))
                    }
                }
                return
            } catch let error as PostgresError where error.mayBeOneMembers {
                putAside(Aside(delivery: readable[0], task: .settle(messages[0].results)))
                return
            } catch {
                logger.warning(
                    "results could not be written and are tried again",
                    metadata: ["messages": "\(messages.count)", "error": "\(error)"]
                )
                try? await Task.sleep(for: Self.batchBackoff.wholeWait(after: failures))
                failures += 1
            }
        }
    }

    /// Writes messages together. Messages that are settled are acknowledged, the others are put aside.
    private func write(_ messages: [StockResultMessage], _ deliveries: [Delivery]) async throws {
        var left: [Int: [OrderStockResult]] = [:]
        var together: [(message: Int, result: OrderStockResult)] = []
        for (index, message) in messages.enumerated() {
            together += message.results.map { (index, $0) }
            guard together.count >= settings.maximumResults || index == messages.count - 1 else { continue }
            let undone = try await writer.apply(together.map(\.result), worker)
            for place in undone { left[together[place].message, default: []].append(together[place].result) }
            together = []
        }
        for message in messages { remember(message) }
        endpoints.results.acknowledge(deliveries.enumerated().filter { left[$0.offset] == nil }.map(\.element))
        for (index, results) in left { putAside(Aside(delivery: deliveries[index], task: .settle(results))) }
    }

    // MARK: Aside

    private func putAside(_ aside: Aside) {
        metrics.aside.add(1)
        self.aside.continuation.yield(aside)
    }

    private func settleAside() async {
        await withDiscardingTaskGroup { group in
            for await aside in self.aside.stream { group.addTask { await self.settle(aside) } }
            group.cancelAll()
        }
    }

    /// Tries a message until it is settled or the task is cancelled.
    private func settle(_ first: Aside) async {
        defer { metrics.aside.add(-1) }
        var aside = first
        var attempts = 0
        let began = ContinuousClock.now
        var isNews = true
        while !Task.isCancelled {
            switch aside.task {
            case .settle(let results):
                do {
                    let left = try await writer.apply(results, asideWorker)
                    let open = left.map { results[$0] }
                    aside.task = .settle(try await giveBack(open))
                } catch let error as PostgresError where error.mayBeOneMembers && results.count > 1 {
                    // One of the message's own orders may be the locked or refused one, so each is tried alone.
                    var open: [OrderStockResult] = []
                    for result in results where (try? await writer.apply([result], asideWorker))?.isEmpty != true {
                        open.append(result)
                    }
                    aside.task = .settle(open)
                } catch let error as PostgresError where error.isRefusalOfValues {
                    aside.task = .bury(StockResultMessage.Poison(code: StockResultMessage.Poison.notWritten, detail: "\(error)"))
                    continue
                } catch {
                    if isNews {
                        isNews = false
                        logger.warning(
                            "a result was not settled: its message is tried again alone",
                            metadata: ["orders": "\(results.prefix(8).map(\.orderID))", "error": "\(error)"]
                        )
                    }
                }
                if case .settle([]) = aside.task {
                    endpoints.results.acknowledge([aside.delivery])
                    return
                }
            case .bury(let poison):
                if await bury(aside.delivery, poison) { return }
                if ContinuousClock.now - began > settings.buryWithin {
                    endpoints.results.reject(aside.delivery, requeue: true)
                    return
                }
            }
            try? await Task.sleep(for: Self.asideBackoff.wholeWait(after: attempts))
            attempts += 1
        }
    }

    /// Gives stock back that was taken for failed orders.
    /// - Returns: the results that are not settled yet
    private func giveBack(_ results: [OrderStockResult]) async throws -> [OrderStockResult] {
        var open = results
        for (place, (result, order)) in zip(results, try await writer.orders(of: results, asideWorker)).enumerated().reversed() {
            guard case .lateSuccess(let order) = ResultJudgement(result, order) else { continue }
            try await conclusion.undoLateSuccess(order)
            open.remove(at: place)
        }
        return open
    }

    /// Moves a message that cannot be processed to the dead letters.
    /// - Returns: whether the broker has stored it
    private func bury(_ delivery: Delivery, _ poison: StockResultMessage.Poison) async -> Bool {
        let letter = OutgoingMessage.deadLetter(delivery, reason: poison.code, detail: poison.detail, maximumDetail: 200)
        let outcomes = (try? await endpoints.publisher.publish([letter])) ?? []
        guard outcomes == [.confirmed] else { return false }
        metrics.poison.add()
        logger.error("a result could not be used", metadata: ["reason": "\(poison.code)", "detail": "\(poison.detail)"])
        endpoints.results.acknowledge([delivery])
        return true
    }

    /// Updates the memory of sold-out products with what the results say about the present stock.
    private func remember(_ message: StockResultMessage) {
        // A result that waited in the queue for long says nothing about the present.
        guard let product = message.productID, let soldOut = cells.cell(of: product)?.soldOut, let time = message.time,
            soldOut.isFresh(time)
        else { return }
        if message.results.contains(where: { $0.outcome == .committed }) { soldOut.sawStock(product: product) }
        // A refused order wanted more units than there are.
        if let last = message.results.last(where: { $0.reason == APIErrorCode.insufficientStock.rawValue }), last.outcome == .refused,
            let left = last.remainingStock, left < .max
        {
            soldOut.sawRefusal(product: product, quantity: left + 1)
        }
    }
}

extension PostgresError {
    /// Whether the database refuses a value of the statement, which it would do again: data exceptions, constraints, checks of views, and exceptions raised by
    /// triggers (PostgreSQL documentation, appendix A). Missing rights and a read-only database are not such refusals.
    fileprivate var isRefusalOfValues: Bool {
        guard case .server(let state) = code else { return false }
        return ["22", "23", "44", "P0"].contains(state.prefix(2))
    }

    /// Whether the statement may succeed without one of its members: a value is refused, or a row is locked.
    fileprivate var mayBeOneMembers: Bool {
        guard case .server(let state) = code else { return false }
        return isRefusalOfValues || state == "55P03" || state == "57014" || state.hasPrefix("40")
    }
}
