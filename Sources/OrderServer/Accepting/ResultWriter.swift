// Invariant: a result changes only an order that waits for it, in the run that the result names, and never a final state.
//
// Bounds: one statement for all results of a call, and one more for each look that the first one makes necessary.

import APIErrors
import Logging
import PostgresClient
import ServerMetrics
import StockContract
import StrictJSON
import Synchronization

/// Writes results into the orders' table, on a session that the caller chooses.
final class ResultWriter: Sendable {
    private let conclusion: OrderConclusion
    private let outbox: OutboxWriting
    private let changes: OrderWatch
    private let metrics: MessagingMetrics
    private let logger: Logger
    private let ids = Mutex(IDSequence.messages.block)

    init(conclusion: OrderConclusion, outbox: OutboxWriting, changes: OrderWatch, metrics: MessagingMetrics, logger: Logger) {
        self.conclusion = conclusion
        self.outbox = outbox
        self.changes = changes
        self.metrics = metrics
        self.logger = logger
    }

    /// Writes results in one statement.
    /// - Returns: the positions of results that are not settled yet: late successes, and orders that changed meanwhile
    func apply(_ given: [OrderStockResult], _ worker: PostgresWorker) async throws -> [Int] {
        let places = try await takeOtherKeys(given, worker)
        if places.isEmpty { return [] }
        let results = places.map { given[$0] }
        // Of two results for one order, the first one is written. The second one is judged by the state that it finds.
        var first: [Int64: Int] = [:]
        var changes: [OrderChange] = []
        changes.reserveCapacity(results.count)
        let done = ResultWriter.steps(.committed, reason: nil)
        var refused: [String: String] = [:]
        for (index, result) in results.enumerated() where first.updateValue(index, forKey: result.orderID) == nil {
            let reason = result.outcome == .committed ? nil : result.reason ?? "REFUSED"
            let steps: String
            if let reason {
                if refused[reason] == nil { refused[reason] = ResultWriter.steps(.refused, reason: reason) }
                steps = refused[reason] ?? ""
            } else {
                steps = done
            }
            let to: OrderStatus = result.outcome == .committed ? .confirmed : .failed
            changes.append(OrderChange(id: result.orderID, run: result.run, from: .pending, to: to, failReason: reason, steps: steps))
        }
        metrics.resultBatches.record(UInt64(changes.count))
        let batch = changes
        let written = try await worker.perform { session in
            try self.ids.withLock { ids throws(PostgresError) in
                try OrderCompletion.write(session, batch, &ids, self.outbox, self.changes).status
            }
        }
        let confirmed = written.values.count { $0 == OrderStatus.confirmed.rawValue }
        conclusion.metrics.confirmed.add(UInt64(confirmed))
        conclusion.metrics.failed.add(UInt64(written.count - confirmed))
        metrics.results(.committed, confirmed)
        metrics.results(.refused, written.count - confirmed)
        if written.count == results.count { return [] }
        var claimed: Set<Int64> = []
        // If an order was written, its first result is settled.
        let others = results.indices.filter {
            !(written[results[$0].orderID] != nil && claimed.insert(results[$0].orderID).inserted)
        }
        return try await judge(others.map { results[$0] }, worker).map { places[others[$0]] }
    }

    /// Handles waiting orders whose key is reported as another order's or as closed. The order itself cannot be the cause while it waits. An order that was
    /// made just now takes another key at once. For an older one, another driver may have sent the key over HTTP meanwhile. Recovery settles both over HTTP,
    /// where the ledger compares the times.
    /// - Returns: the positions of the remaining results
    private func takeOtherKeys(_ results: [OrderStockResult], _ worker: PostgresWorker) async throws -> [Int] {
        let taken = results.filter {
            $0.outcome == .refused && ($0.reason == APIErrorCode.keyReused.rawValue || $0.reason == APIErrorCode.keyClosed.rawValue)
        }
        if taken.isEmpty { return Array(results.indices) }
        let parameters: [PostgresValue] = [
            .ints(taken.map(\.orderID)), .ints(taken.map(\.run)), .int(conclusion.deadlines.freshAge.microseconds),
        ]
        let row = try await worker.perform { session in try session.query(ResultWriter.otherKeysSQL, parameters).one() }
        let (renewed, waiting) = (try row.decode(0, as: [Int64].self), Set(try row.decode(1, as: [Int64].self)))
        if !renewed.isEmpty { conclusion.noteKeyTaken(orders: renewed.count, example: nil, newKey: nil, "RESULT") }
        if !waiting.isEmpty {
            logger.info("orders whose key is taken were handed to recovery", metadata: ["orders": "\(waiting.count)"])
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

    /// The present orders for these results, in the results' order.
    func orders(of results: [OrderStockResult], _ worker: PostgresWorker) async throws -> [Order?] {
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

    /// Judges results that changed nothing, by the present state of their orders.
    /// - Returns: the positions of those that are not settled
    private func judge(_ results: [OrderStockResult], _ worker: PostgresWorker) async throws -> [Int] {
        var open: [Int] = []
        for (place, (result, order)) in zip(results, try await orders(of: results, worker)).enumerated() {
            switch ResultJudgement(result, order) {
            case .unexpected: metrics.unexpected.add()
            case .duplicate: metrics.duplicates.add()
            case .kept: metrics.kept.add()
            // `again`: the order became PENDING again after the statement, or another server holds its row.
            case .lateSuccess, .again: open.append(place)
            }
        }
        return open
    }
}
