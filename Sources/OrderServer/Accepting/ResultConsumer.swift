// Invariant: a delivery is acknowledged only after what it says is durable: written, found written, or left to recovery. Results may come again and in any order; a final
// state is never changed by one. A success for an order that has failed is given back.
//
// Who shares whose fate: the results of a batch are written by one statement. What does not go with it is put aside, alone, and the others are acknowledged: a message that
// cannot be read, one that the database refuses for what it says, one whose order's row is locked, a late success whose stock is still to be given back. Trouble of the whole
// database is waited out with the batch in hand, up to a second between attempts. A message that came back before may be what ended the process that had it: it is read and
// written alone, after those that come for the first time.
//
// Bounds: `maximumMessages` messages are taken at a time, `maximumResults` results go into one statement, `maximumAside` messages are aside, each tried again up to two seconds
// after the last attempt; with so many aside nothing more is taken. A dead letter that the broker does not take for `buryWithin` goes back to the queue, whose own limit ends it.
// Stops: when its task is cancelled, after the statement in hand. What is not acknowledged then is delivered again.

import APIErrors
import Logging
import MessageBroker
import PostgresClient
import ServerKit
import ServerMetrics
import StockContract
import StrictJSON
import Synchronization

/// Writes what the product server decided about orders that went over the broker.
final class ResultConsumer: Sendable {
    struct Configuration: Sendable {
        var maximumMessages = 64
        var maximumResults = 2048
        /// Twice the prefetch: deliveries of a lost connection come again while their first copy is still aside.
        var maximumAside = 1024
        var buryWithin = Duration.seconds(60)
    }

    /// A message that was put out of its batch.
    private struct Aside: Sendable {
        enum Task: Sendable {
            /// Results to write or to give back.
            case settle([OrderStockResult])
            /// To the dead letters.
            case bury(StockResultMessage.Poison)
        }

        let delivery: Delivery
        var task: Task
    }

    private let settings: Configuration
    private let worker: PostgresWorker
    /// For what is aside: a row that is locked holds up nobody else. Connects when there is something.
    private let asideWorker: PostgresWorker
    private let aside = AsyncStream.makeStream(of: Aside.self)
    private let endpoints: MessageEndpoints
    private let conclusion: OrderConclusion
    private let soldOut: SoldOutProducts
    private let outbox: OutboxWriting
    private let changes: OrderWatch
    private let metrics: MessagingMetrics
    private let logger: Logger
    private let ids = Mutex(IDSequence.messages.block)

    init(
        configuration: PostgresConfiguration,
        settings: Configuration,
        endpoints: MessageEndpoints,
        conclusion: OrderConclusion,
        soldOut: SoldOutProducts,
        outbox: OutboxWriting,
        changes: OrderWatch,
        metrics: MessagingMetrics,
        logger: Logger
    ) throws(PostgresError) {
        self.settings = settings
        // A row that somebody else's transaction holds is waited for briefly, and then tried again.
        var configuration = configuration
        configuration.lockTimeout = GroupWrite.rowWait
        self.worker = try PostgresWorker(configuration: configuration, name: "order-results", maximumQueued: 16)
        self.asideWorker = try PostgresWorker(
            configuration: configuration,
            name: "results-aside",
            maximumQueued: settings.maximumAside + settings.maximumMessages
        )
        self.endpoints = endpoints
        self.conclusion = conclusion
        self.soldOut = soldOut
        self.outbox = outbox
        self.changes = changes
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
            guard self.metrics.aside.count < self.settings.maximumAside else {
                try? await Task.sleep(for: .milliseconds(20))
                continue
            }
            let deliveries: [Delivery]
            do throws(BrokerError) {
                deliveries = try await self.endpoints.results.nextBatch(max: self.settings.maximumMessages, wait: .seconds(1))
            } catch {
                return
            }
            let fresh = deliveries.filter { !$0.isSuspect }
            if !fresh.isEmpty { await self.take(fresh) }
            for suspect in deliveries where suspect.isSuspect && !Task.isCancelled { await self.take([suspect]) }
        }
    }

    /// Lets the statement in hand end.
    func shutdown() async {
        await self.worker.shutdown()
        await self.asideWorker.shutdown()
    }

    // MARK: A batch

    private func take(_ deliveries: [Delivery]) async {
        var messages: [StockResultMessage] = []
        var readable: [Delivery] = []
        for delivery in deliveries {
            if delivery.isRedelivered || delivery.deliveryCount > 0 { self.metrics.redelivered.add() }
            do throws(StockResultMessage.Poison) {
                messages.append(try StockResultMessage(delivery.body))
                readable.append(delivery)
            } catch {
                self.putAside(Aside(delivery: delivery, task: .bury(error)))
            }
        }
        var wait = Duration.milliseconds(20)
        // Until it is written; the deliveries stay unacknowledged meanwhile.
        while !messages.isEmpty, !Task.isCancelled {
            do {
                try await self.write(messages, readable)
                return
            } catch let error as PostgresError where error.mayBeOneMembers && messages.count > 1 {
                self.logger.warning(
                    "results were not written together; each message is tried alone",
                    metadata: ["messages": "\(messages.count)", "error": "\(error)"]
                )
                for (message, delivery) in zip(messages, readable) {
                    do {
                        try await self.write([message], [delivery])
                    } catch {
                        self.putAside(Aside(delivery: delivery, task: .settle(message.results)))
                    }
                }
                return
            } catch let error as PostgresError where error.mayBeOneMembers {
                self.putAside(Aside(delivery: readable[0], task: .settle(messages[0].results)))
                return
            } catch {
                self.logger.warning("results were not written", metadata: ["messages": "\(messages.count)", "error": "\(error)"])
                try? await Task.sleep(for: wait)
                wait = min(wait * 2, .seconds(1))
            }
        }
    }

    /// Writes messages together. Those with nothing left to do are acknowledged, the others are put aside.
    private func write(_ messages: [StockResultMessage], _ deliveries: [Delivery]) async throws {
        var left: [Int: [OrderStockResult]] = [:]
        var together: [(message: Int, result: OrderStockResult)] = []
        for (index, message) in messages.enumerated() {
            together += message.results.map { (index, $0) }
            guard together.count >= self.settings.maximumResults || index == messages.count - 1 else { continue }
            let undone = try await self.apply(together.map(\.result), self.worker)
            for place in undone { left[together[place].message, default: []].append(together[place].result) }
            together = []
        }
        for message in messages { self.remember(message) }
        self.endpoints.results.acknowledge(deliveries.enumerated().filter { left[$0.offset] == nil }.map(\.element))
        for (index, results) in left { self.putAside(Aside(delivery: deliveries[index], task: .settle(results))) }
    }

    // MARK: Aside

    private func putAside(_ aside: Aside) {
        self.metrics.aside.add(1)
        self.aside.continuation.yield(aside)
    }

    private func settleAside() async {
        await withDiscardingTaskGroup { group in
            for await aside in self.aside.stream { group.addTask { await self.settle(aside) } }
            group.cancelAll()
        }
    }

    /// Tries until it is done or the task is cancelled.
    private func settle(_ first: Aside) async {
        defer { self.metrics.aside.add(-1) }
        var aside = first
        var wait = Duration.milliseconds(20)
        let began = ContinuousClock.now
        var isNews = true
        while !Task.isCancelled {
            switch aside.task {
            case .settle(let results):
                do {
                    let left = try await self.apply(results, self.asideWorker)
                    let open = left.map { results[$0] }
                    aside.task = .settle(try await self.giveBack(open))
                } catch let error as PostgresError where error.mayBeOneMembers && results.count > 1 {
                    // Of the orders of one message, too, one alone may be locked or refused.
                    var open: [OrderStockResult] = []
                    for result in results where (try? await self.apply([result], self.asideWorker))?.isEmpty != true { open.append(result) }
                    aside.task = .settle(open)
                } catch let error as PostgresError where error.isRefusalOfValues {
                    aside.task = .bury(StockResultMessage.Poison(code: "NOT_WRITTEN", detail: "\(error)"))
                    continue
                } catch {
                    if isNews {
                        isNews = false
                        self.logger.warning(
                            "a result was not settled, it is tried again alone",
                            metadata: ["orders": "\(results.prefix(8).map(\.orderID))", "error": "\(error)"]
                        )
                    }
                }
                if case .settle([]) = aside.task {
                    self.endpoints.results.acknowledge([aside.delivery])
                    return
                }
            case .bury(let poison):
                if await self.bury(aside.delivery, poison) { return }
                if ContinuousClock.now - began > self.settings.buryWithin {
                    self.endpoints.results.reject(aside.delivery, requeue: true)
                    return
                }
            }
            try? await Task.sleep(for: wait)
            wait = min(wait * 2, .seconds(2))
        }
    }

    /// Gives back what was taken for orders that have failed.
    /// - Returns: those that are not judged to the end
    private func giveBack(_ results: [OrderStockResult]) async throws -> [OrderStockResult] {
        var open = results
        for (place, (result, order)) in zip(results, try await self.orders(of: results, self.asideWorker)).enumerated().reversed() {
            guard case .lateSuccess(let order) = ResultJudgement(result, order) else { continue }
            try await self.conclusion.undoLateSuccess(order)
            open.remove(at: place)
        }
        return open
    }

    /// Puts a message that nobody can act on to the dead letters.
    /// - Returns: whether the broker has it
    private func bury(_ delivery: Delivery, _ poison: StockResultMessage.Poison) async -> Bool {
        let letter = OutgoingMessage.deadLetter(delivery, reason: poison.code, detail: poison.detail, maximumDetail: 200)
        let outcomes = (try? await self.endpoints.publisher.publish([letter])) ?? []
        guard outcomes == [.confirmed] else { return false }
        self.metrics.poison.add()
        self.logger.error("a result could not be used", metadata: ["reason": "\(poison.code)", "detail": "\(poison.detail)"])
        self.endpoints.results.acknowledge([delivery])
        return true
    }

    // MARK: Writing

    /// Writes results by one statement.
    /// - Returns: the places of those that are not settled by it: late successes, and orders that changed meanwhile
    private func apply(_ given: [OrderStockResult], _ worker: PostgresWorker) async throws -> [Int] {
        let places = try await self.takeOtherKeys(given, worker)
        if places.isEmpty { return [] }
        let results = places.map { given[$0] }
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
        self.metrics.resultBatches.record(UInt64(changes.count))
        let batch = changes
        let written = try await worker.perform { session in
            try self.ids.withLock { ids throws(PostgresError) in
                try OrderCompletion.write(session, batch, &ids, self.outbox, self.changes).status
            }
        }
        let confirmed = written.values.count { $0 == OrderStatus.confirmed.rawValue }
        self.conclusion.metrics.confirmed.add(UInt64(confirmed))
        self.conclusion.metrics.failed.add(UInt64(written.count - confirmed))
        self.metrics.results(.committed, confirmed)
        self.metrics.results(.refused, written.count - confirmed)
        if written.count == results.count { return [] }
        var claimed: Set<Int64> = []
        // The first result of an order that was written is done with.
        let others = results.indices.filter {
            !(written[results[$0].orderID] != nil && claimed.insert(results[$0].orderID).inserted)
        }
        return try await self.judge(others.map { results[$0] }, worker).map { places[others[$0]] }
    }

    /// Orders that wait, and whose key is said to be another order's, or to be closed: no order that waits can have done that itself. Those made just now take another
    /// key at once; of the others somebody may have sent the key over HTTP meanwhile. Recovery settles both over HTTP, where the ledger compares the times.
    /// - Returns: the places of the results that are left
    private func takeOtherKeys(_ results: [OrderStockResult], _ worker: PostgresWorker) async throws -> [Int] {
        let taken = results.filter {
            $0.outcome == .refused && ($0.reason == APIErrorCode.keyReused.rawValue || $0.reason == APIErrorCode.keyClosed.rawValue)
        }
        if taken.isEmpty { return Array(results.indices) }
        let parameters: [PostgresValue] = [
            .ints(taken.map(\.orderID)), .ints(taken.map(\.run)), .int(self.conclusion.deadlines.freshAge.microseconds),
        ]
        let row = try await worker.perform { session in try session.query(ResultConsumer.otherKeysSQL, parameters).one() }
        let (renewed, waiting) = (try row.decode(0, as: [Int64].self), Set(try row.decode(1, as: [Int64].self)))
        if !renewed.isEmpty { self.conclusion.noteKeyTaken(orders: renewed.count, example: nil, newKey: nil, "RESULT") }
        if !waiting.isEmpty {
            self.logger.info("orders whose key is taken were handed to recovery", metadata: ["orders": "\(waiting.count)"])
        }
        return results.indices.filter { !waiting.contains(results[$0].orderID) }
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

    private static func steps(_ outcome: OrderStockResult.Outcome, reason: String?) -> String {
        StepRecord.json([StepRecord(step: "STOCK", run: 1, action: .execute, outcome: reason ?? "DONE", attempts: 1, at: .now)])
    }

    /// The orders of results as they are, in the results' order.
    private func orders(of results: [OrderStockResult], _ worker: PostgresWorker) async throws -> [Order?] {
        let ids = results.map(\.orderID)
        if ids.isEmpty { return [] }
        let rows = try await worker.perform { session in
            try session.query("select \(Order.columns) from orders o where o.id = any($1)", [.ints(ids)])
        }
        var orders: [Int64: Order] = [:]
        for row in rows {
            let order = try Order(row: row)
            orders[order.id] = order
        }
        return ids.map { orders[$0] }
    }

    /// Results that changed nothing: what they mean for the orders as they are.
    /// - Returns: the places of those that are not settled
    private func judge(_ results: [OrderStockResult], _ worker: PostgresWorker) async throws -> [Int] {
        var open: [Int] = []
        for (place, (result, order)) in zip(results, try await self.orders(of: results, worker)).enumerated() {
            switch ResultJudgement(result, order) {
            case .unexpected: self.metrics.unexpected.add()
            case .duplicate: self.metrics.duplicates.add()
            case .kept: self.metrics.kept.add()
            // `again`: it became PENDING again between the statement and the look, or another server holds it.
            case .lateSuccess, .again: open.append(place)
            }
        }
        return open
    }

    /// What the results say of the product, for buyers that come now.
    private func remember(_ message: StockResultMessage) {
        // A result that waited in the queue says nothing about now.
        guard let product = message.productID, let time = message.time, self.soldOut.isFresh(time) else { return }
        if message.results.contains(where: { $0.outcome == .committed }) { self.soldOut.sawStock(product: product) }
        // Whoever is refused has wanted more than there is.
        if let last = message.results.last(where: { $0.reason == APIErrorCode.insufficientStock.rawValue }), last.outcome == .refused,
            let left = last.remainingStock, left < .max
        {
            self.soldOut.sawRefusal(product: product, quantity: left + 1)
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

    init(_ result: OrderStockResult, _ order: Order?) {
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

extension PostgresError {
    /// The database refuses what one of the values says: it will refuse it again. Data exceptions, constraints, checks of views, and what a trigger raises; see
    /// PostgreSQL's documentation, appendix A. Missing rights or a read-only database are no such thing.
    fileprivate var isRefusalOfValues: Bool {
        guard case .server(let state) = self.code else { return false }
        return ["22", "23", "44", "P0"].contains(state.prefix(2))
    }

    /// Without one of its members the statement may well pass: a value is refused, or a row is locked.
    fileprivate var mayBeOneMembers: Bool {
        guard case .server(let state) = self.code else { return false }
        return self.isRefusalOfValues || state == "55P03" || state == "57014" || state.hasPrefix("40")
    }
}
