// Turns the result of a saga into the order's final state. This is written with async calls; the hot path of a rush does without it, see `OrderPlacing`.
//
// Invariant: a final state is answered only when it is durable. Unfinished work is in the table of orders as PENDING, or in saga_work, and recovery settles it.
//   If the product server has refused for good to take stock back, the matter is closed: the refusal is noted with the order, logged and counted once, and
//   recovery does not ask again.
//
// Bounds: each saga ends at the deadline that its caller gives. An order takes another key once.

import APIErrors
import Logging
import PostgresClient
import ServerKit
import ServerMetrics
import StockContract
import StrictJSON

/// Time limits for the work on one order.
struct OrderDeadlines: Sendable {
    /// How long a buyer waits for an answer.
    var buyer: Duration = .seconds(3)
    /// How long one order's saga may take in recovery.
    var recovery: Duration = .seconds(10)

    /// Within this time after an order's last change, its driver is the only one that has sent its key: others begin only after ``buyer``. The rest of that
    /// time allows for clocks that differ from the database's.
    var freshAge: Duration { buyer / 2 }
}

/// A state in which a saga leaves its order.
struct FinalState: Sendable, Equatable {
    var status: OrderStatus
    /// An error code.
    var failReason: String?

    static let confirmed = FinalState(status: .confirmed)
    static func failed(_ reason: String) -> FinalState { FinalState(status: .failed, failReason: reason) }
}

/// Concludes orders: runs their sagas if needed, and writes the results.
final class OrderConclusion: Sendable {
    enum Settled {
        case settled(Order)
        /// The outcome is unknown. `cause` is that of the last call.
        case undecided(cause: String)
    }

    let deadlines: OrderDeadlines
    let store: OrderStore
    let completion: OrderCompletion
    let orchestrator: SagaOrchestrator
    let trouble: StoreTrouble
    let metrics: OrderMetrics
    let logger: Logger
    let keyTakenLog = LogThrottle()

    init(
        deadlines: OrderDeadlines,
        store: OrderStore,
        completion: OrderCompletion,
        orchestrator: SagaOrchestrator,
        trouble: StoreTrouble,
        metrics: OrderMetrics,
        logger: Logger
    ) {
        self.deadlines = deadlines
        self.store = store
        self.completion = completion
        self.orchestrator = orchestrator
        self.trouble = trouble
        self.metrics = metrics
        self.logger = logger
    }

    // MARK: For a caller that waits

    /// Runs a PENDING order's saga and writes its result.
    /// - Throws: `DEPENDENCY_FAILED` if the result is unknown yet, `UNAVAILABLE` or `OVERLOADED` if it could not be written
    func drive(_ order: Order, firstAttempt: Int64, _ deadline: ContinuousClock.Instant) async throws(APIError) -> Order {
        let (result, records) = await orchestrator.run(order, firstAttempt: firstAttempt, deadline: deadline)
        return try await conclude(order, result, records, deadline)
    }

    /// Writes the result of a saga, and leaves an undecided order to recovery.
    /// - Throws: as ``drive(_:firstAttempt:_:)``
    func conclude(
        _ order: Order,
        _ result: SagaResult,
        _ records: [StepRecord],
        _ deadline: ContinuousClock.Instant
    ) async throws(APIError) -> Order {
        switch try await settle(order, result, records, deadline) {
        case .settled(let order): return order
        case .undecided(let cause):
            metrics.undecided.add()
            await leaveToRecovery(order)
            throw APIError(
                .dependencyFailed,
                details: ["orderId": .int(order.id), "status": .string(OrderStatus.pending.rawValue), "cause": .string(cause)],
                retryAfter: .seconds(1)
            )
        }
    }

    // MARK: Writing

    /// Writes the result of a saga. If somebody else has settled the order meanwhile, their state counts. An order whose key belongs to another order continues
    /// under another key, once.
    func settle(
        _ order: Order,
        _ result: SagaResult,
        _ records: [StepRecord],
        _ deadline: ContinuousClock.Instant,
        mayTakeAnotherKey: Bool = true
    ) async throws(APIError) -> Settled {
        let state: FinalState
        switch result {
        case .undecided(let cause): return .undecided(cause: cause)
        case .keyTaken(let code) where mayTakeAnotherKey:
            guard let renewed = try await takeAnotherKey(order, code, records) else {
                guard let current = try await load(order.id) else { throw APIError(.unavailable) }
                // The order is still PENDING. Recovery will ask as a repeat, and the ledger compares the times then.
                return current.status == .pending ? .undecided(cause: code) : .settled(current)
            }
            let (result, records) = await orchestrator.run(renewed, deadline: deadline)
            return try await self.settle(renewed, result, records, deadline, mayTakeAnotherKey: false)
        case .keyTaken: state = .failed(APIErrorCode.keyReused.rawValue)
        case .confirmed: state = .confirmed
        case .failed(let reason), .notUndone(_, let reason): state = .failed(reason)
        }
        let outcome = await completion.complete(
            order,
            from: .pending,
            to: state.status,
            failReason: state.failReason,
            records: records
        )
        // The order has failed anyway, and its history contains the refusal already.
        if case .notUndone(let refusal, _) = result, case .written = outcome { await noteUndoRefused(order, refusal, [], .saga) }
        return .settled(try await settled(order, state, outcome))
    }

    /// The order after an attempt to write its final state.
    /// - Throws: `UNAVAILABLE` or `OVERLOADED` if the state was not written
    func settled(_ order: Order, _ state: FinalState, _ outcome: CompletionOutcome) async throws(APIError) -> Order {
        switch outcome {
        case .written(let time): return written(order, state, at: time)
        case .overtaken:
            guard let current = try await load(order.id) else { throw APIError(.unavailable) }
            if state == .confirmed, current.status == .failed, current.run == order.run { await undoOvertaken(current) }
            return current
        case .overloaded: throw APIError(.overloaded)
        case .unavailable(let error): throw trouble.noted(error, "an order's outcome was not written")
        }
    }

    /// The order whose final state is durable since `time`. Counts the order.
    func written(_ order: Order, _ state: FinalState, at time: Timestamp) -> Order {
        var order = order
        order.status = state.status
        order.failReason = state.failReason
        order.updatedAt = time
        if state.status == .confirmed { metrics.confirmed.add() } else { metrics.failed.add() }
        return order
    }

    /// The order as it is stored; nil if there is none.
    func load(_ id: Int64) async throws(APIError) -> Order? {
        try await trouble.noting("an order was not read") { () throws(PostgresError) in try await store.order(id: id) }
    }

    // MARK: Recovery's list

    /// Puts an order on recovery's list. This may fail: a PENDING order that is not on the list is found by its age.
    func leaveToRecovery(_ order: Order) async {
        do throws(PostgresError) {
            try await store.leaveToRecovery(id: order.id, after: .seconds(1))
        } catch {
            trouble.note(error, "an order was not handed to recovery", ["order": "\(order.id)"])
        }
    }

    /// Takes a settled order off recovery's list.
    /// - Parameter attempt: recovery's own attempt. The order stays on the list if somebody has put it there again since.
    func drop(_ id: Int64, attempt: Int64?) async {
        do throws(PostgresError) {
            try await store.drop(id: id, attempt: attempt)
        } catch {
            // Recovery will find the order settled, and drop it then.
            logger.debug("a settled order stays on recovery's list", metadata: ["order": "\(id)", "error": "\(error)"])
        }
    }
}
