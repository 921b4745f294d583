// Invariant: an order stays on the list until it is settled. A claim only moves its time ahead, so that an order whose server died comes up again when the
//   lease is over.
//
// Orders that a message carries are left to the relay until they are `age` old. Once the message is SENT, they are left to the product server for another
// `age`.
//
// Bounds: `batch` orders at a time; `Outbox.step` messages at a time, and `Outbox.pruneStep` deleted; one round each `interval`, or at once while full batches
//   come. Several instances share the list.
// Stops: at shutdown, after the present batch.

import APIErrors
import Logging
import PostgresClient
import ServerKit
import ServerMetrics
import ServiceLifecycle
import StockContract
import Synchronization

/// Settles orders that nobody else works on, at the start and at intervals.
struct RecoveryService: Service {
    struct Configuration: Sendable {
        var interval: Duration = .seconds(1)
        /// How many orders are settled at the same time.
        var batch = 256
        /// Must be longer than a saga's deadline in recovery plus the timeout of a call.
        var lease: Duration = .seconds(30)
    }

    /// Settings for recovery's work on messages.
    struct Outbox: Sendable {
        /// How many commands one statement looks at.
        static let step = 256
        /// How many rows one statement deletes.
        static let pruneStep = 1_000
        let store: OutboxStore
        /// Learns of orders without a result, for the health check.
        let backlog: OutboxBacklog?
        /// How long a command may wait to be sent, and how long the orders of a sent one may wait for their result.
        var age: Duration
        /// How long rows of sent messages are kept.
        var retention: Duration
    }

    let settings: Configuration
    let conclusion: OrderConclusion
    let cancellation: OrderCancellation
    let store: OrderStore
    /// Nil without a broker.
    let outbox: Outbox?
    let logger: Logger
    /// Products whose orders are settled apart from all others, so that a cell that gives no answers delays its own alone. Nil: all products.
    let partitions: [[ClosedRange<Int64>]?]
    /// Opens once the migrations are applied.
    private let prepared: PreparedLatch

    init(
        settings: Configuration,
        conclusion: OrderConclusion,
        cancellation: OrderCancellation,
        outbox: Outbox? = nil,
        partitions: [[ClosedRange<Int64>]?] = [nil],
        prepared: PreparedLatch
    ) {
        self.settings = settings
        self.conclusion = conclusion
        self.cancellation = cancellation
        store = conclusion.store
        self.outbox = outbox
        self.partitions = partitions
        logger = conclusion.logger
        self.prepared = prepared
    }

    func run() async throws {
        await cancelWhenGracefulShutdown {
            await prepared.wait()
            guard partitions.count > 1 else { return await loop { await round() } }
            await withTaskGroup(of: Void.self) { group in
                group.addTask { await loop { await attempt { () throws(PostgresError) in try await find() } } }
                for products in partitions {
                    group.addTask { await loop { await attempt { () throws(PostgresError) in try await settleDue(products) } } }
                }
            }
        }
    }

    /// Repeats rounds until it is cancelled.
    /// - Parameter round: returns whether there may be more work at once
    private func loop(_ round: () async -> Bool) async {
        while !Task.isCancelled {
            let isFull = await round()
            if !isFull { try? await Task.sleep(for: settings.interval) }
        }
    }

    /// Runs one round over all products.
    /// - Returns: whether there may be more work at once
    func round() async -> Bool {
        await attempt { () throws(PostgresError) in
            let isMore = try await find()
            return try await settleDue(nil) || isMore
        }
    }

    private func attempt(_ step: () async throws(PostgresError) -> Bool) async -> Bool {
        do throws(PostgresError) {
            return try await step()
        } catch {
            if Task.isCancelled { return false }
            conclusion.trouble.note(error, "a round of recovery failed: the orders' database did not do what it was asked")
            return false
        }
    }

    /// Puts orders on the list.
    /// - Returns: whether there may be more work at once
    private func find() async throws(PostgresError) -> Bool {
        let found = try await store.collect()
        if found > 0 { logger.info("pending orders were found by their age", metadata: ["orders": "\(found)"]) }
        return try await tidyOutbox()
    }

    /// Settles due orders of these products.
    /// - Returns: whether there may be more work at once
    private func settleDue(_ products: [ClosedRange<Int64>]?) async throws(PostgresError) -> Bool {
        let work = try await store.claim(limit: settings.batch, lease: settings.lease, products: products)
        conclusion.metrics.backlog.orders.store(try await store.backlog(), ordering: .relaxed)
        guard !work.isEmpty else { return false }
        let settled = await withTaskGroup(of: Bool.self) { group in
            for one in work { group.addTask { await settle(one) } }
            return await group.reduce(into: 0) { $0 += $1 ? 1 : 0 }
        }
        conclusion.metrics.recovered.add(UInt64(settled))
        logger.info("recovery has settled orders", metadata: ["settled": "\(settled)", "claimed": "\(work.count)"])
        return work.count == settings.batch && settled > 0
    }

    /// Takes one step over commands without results, and one over rows that may be deleted.
    /// - Returns: whether there may be more work at once
    func tidyOutbox() async throws(PostgresError) -> Bool {
        guard let outbox else { return false }
        let (messages, orders) = try await outbox.store.collectUnanswered(age: outbox.age, limit: Outbox.step)
        if orders > 0 {
            conclusion.metrics.unanswered.add(UInt64(orders))
            outbox.backlog?.found(unanswered: orders)
            logger.warning(
                "commands that the broker took brought no result in time: it has lost them or thrown them away, or they wait for product servers; their orders are settled over HTTP",
                metadata: ["orders": "\(orders)"]
            )
        }
        let overdue = try await outbox.store.collectOverdue(age: outbox.age, limit: Outbox.step)
        if overdue.messages > 0 {
            conclusion.metrics.overdue.add(UInt64(overdue.orders))
            logger.warning(
                "the broker has not taken these commands in time: their orders are settled over HTTP",
                metadata: ["messages": "\(overdue.messages)", "orders": "\(overdue.orders)"]
            )
        }
        let pruned = try await outbox.store.prune(age: outbox.retention, limit: Outbox.pruneStep)
        return messages == Outbox.step || overdue.messages == Outbox.step || pruned == Outbox.pruneStep
    }

    private func settle(_ work: OrderStore.Work) async -> Bool {
        if await recover(work) { return true }
        // The order comes up again earlier than after the lease: after one second more with each attempt, up to ten. If PostgreSQL is away, the lease decides.
        try? await store.postpone(id: work.order.id, attempt: work.attempt, delay: .seconds(min(work.attempt, 10)))
        return false
    }

    /// Settles one order from recovery's list, whatever its present state is.
    /// - Returns: whether the order is settled
    func recover(_ work: OrderStore.Work) async -> Bool {
        let deadline = ContinuousClock.now + conclusion.deadlines.recovery
        let order = work.order
        // The order's keys may have been sent before, so every attempt counts as a repeat.
        let attempt = max(2, work.attempt)
        do throws(APIError) {
            switch order.status {
            case .pending:
                let (result, records) = await conclusion.orchestrator.run(order, firstAttempt: attempt, deadline: deadline)
                guard case .settled = try await conclusion.settle(order, result, records, deadline) else { return false }
            case .confirmed where order.cancelRequestedAt != nil:
                if case .undecided = try await cancellation.giveBack(order, firstAttempt: attempt, deadline) { return false }
            case .failed:
                // A server may have received a success that came too late, and died before it gave the stock back.
                guard try await conclusion.undo(order, firstAttempt: attempt, reason: "FAILED", deadline) else { return false }
            case .confirmed, .cancelled: break
            }
        } catch {
            return false
        }
        await conclusion.drop(order.id, attempt: work.attempt)
        return true
    }
}
