// Invariant: an order is on the list until it is settled; a claim only moves its time ahead, so that what dies with a process comes up again when the lease is over.
//
// Orders that a message carries are left to the relay until they are `age` old, and, once it is SENT, to the product server for `age` from then on.
//
// Bounds: `batch` orders at a time; `Outbox.step` messages at a time, and that many pruned; one round each `interval`, or at once while full batches come. Several instances share the list.
// Stops: at shutdown, after the batch in hand.

import APIErrors
import Logging
import PostgresClient
import ServerKit
import ServerMetrics
import ServiceLifecycle
import StockContract
import Synchronization

/// Settles orders that nobody drives any more, at start and at intervals.
struct RecoveryService: Service {
    struct Configuration: Sendable {
        var interval: Duration = .seconds(1)
        /// Orders settled at the same time.
        var batch = 256
        /// Must exceed the saga's deadline in recovery and a call's timeout.
        var lease: Duration = .seconds(30)
    }

    /// What recovery does with messages.
    struct Outbox: Sendable {
        /// Commands looked at by one statement.
        static let step = 256
        /// Rows deleted by one statement.
        static let pruneStep = 1_000
        let store: OutboxStore
        /// How long a command may wait to be sent, and how long the orders of a sent one may be without a result.
        var age: Duration
        /// How long what was sent is kept.
        var retention: Duration
    }

    let settings: Configuration
    let conclusion: OrderConclusion
    let cancellation: OrderCancellation
    let store: OrderStore
    /// Nil without a broker.
    let outbox: Outbox?
    let logger: Logger
    /// Opens once the migrations are applied.
    private let prepared: PreparedLatch

    init(
        settings: Configuration,
        conclusion: OrderConclusion,
        cancellation: OrderCancellation,
        outbox: Outbox? = nil,
        prepared: PreparedLatch
    ) {
        self.settings = settings
        self.conclusion = conclusion
        self.cancellation = cancellation
        self.store = conclusion.store
        self.outbox = outbox
        self.logger = conclusion.logger
        self.prepared = prepared
    }

    func run() async throws {
        try? await cancelWhenGracefulShutdown {
            await self.prepared.wait()
            // Ends by cancellation.
            while !Task.isCancelled {
                let isFull = await self.round()
                if !isFull { try await Task.sleep(for: self.settings.interval) }
            }
        }
    }

    /// One round.
    /// - Returns: whether there may be more at once
    func round() async -> Bool {
        do throws(PostgresError) {
            let found = try await self.store.collect()
            if found > 0 { self.logger.info("pending orders found", metadata: ["orders": "\(found)"]) }
            let isMore = try await self.tidyOutbox()
            let work = try await self.store.claim(limit: self.settings.batch, lease: self.settings.lease)
            self.conclusion.metrics.backlog.orders.store(try await self.store.backlog(), ordering: .relaxed)
            guard !work.isEmpty else { return isMore }
            let settled = await withTaskGroup(of: Bool.self) { group in
                for one in work { group.addTask { await self.settle(one) } }
                return await group.reduce(into: 0) { $0 += $1 ? 1 : 0 }
            }
            self.conclusion.metrics.recovered.add(UInt64(settled))
            self.logger.info("orders recovered", metadata: ["settled": "\(settled)", "claimed": "\(work.count)"])
            return (work.count == self.settings.batch && settled > 0) || isMore
        } catch {
            if Task.isCancelled { return false }
            self.logger.warning("recovery could not work", metadata: ["error": "\(error)"])
            return false
        }
    }

    /// One step over commands without results, and one over what can go.
    /// - Returns: whether there may be more at once
    func tidyOutbox() async throws(PostgresError) -> Bool {
        guard let outbox else { return false }
        let (messages, orders) = try await outbox.store.collectUnanswered(age: outbox.age, limit: Outbox.step)
        if orders > 0 { self.logger.info("orders without a result found", metadata: ["orders": "\(orders)"]) }
        let overdue = try await outbox.store.collectOverdue(age: outbox.age, limit: Outbox.step)
        if overdue.messages > 0 {
            self.conclusion.metrics.overdue.add(UInt64(overdue.orders))
            self.logger.warning(
                "the broker has not taken these commands in time: their orders are settled over HTTP",
                metadata: ["messages": "\(overdue.messages)", "orders": "\(overdue.orders)"]
            )
        }
        let pruned = try await outbox.store.prune(age: outbox.retention, limit: Outbox.pruneStep)
        return messages == Outbox.step || overdue.messages == Outbox.step || pruned == Outbox.pruneStep
    }

    private func settle(_ work: OrderStore.Work) async -> Bool {
        if await self.recover(work) { return true }
        // Sooner than the lease says: one second more with each attempt, up to ten. Without PostgreSQL the lease it is.
        try? await self.store.postpone(id: work.order.id, attempt: work.attempt, delay: .seconds(min(work.attempt, 10)))
        return false
    }

    /// Settles one order from recovery's list, whatever state it is in now.
    /// - Returns: whether it is settled
    func recover(_ work: OrderStore.Work) async -> Bool {
        let deadline = ContinuousClock.now + self.conclusion.deadlines.recovery
        let order = work.order
        // The keys may have been sent before.
        let attempt = max(2, work.attempt)
        do throws(APIError) {
            switch order.status {
            case .pending:
                let (result, records) = await self.conclusion.orchestrator.run(order, firstAttempt: attempt, deadline: deadline)
                guard case .settled = try await self.conclusion.settle(order, result, records, deadline) else { return false }
            case .confirmed where order.cancelRequestedAt != nil:
                if case .undecided = try await self.cancellation.giveBack(order, firstAttempt: attempt, deadline) { return false }
            case .failed:
                // Somebody may have had a success that came too late, and died.
                guard try await self.conclusion.undo(order, firstAttempt: attempt, reason: "FAILED", deadline) else { return false }
            case .confirmed, .cancelled: break
            }
        } catch {
            return false
        }
        await self.conclusion.drop(order.id, attempt: work.attempt)
        return true
    }
}
