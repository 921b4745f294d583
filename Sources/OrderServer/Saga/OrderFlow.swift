// Invariant: a step is called only for an order whose row is durable, and a final state is answered only when it is durable. Whatever is left open in between is
// in the table of orders as PENDING or in saga_work, and recovery settles it.
//
// Bounds: `buyerDeadline` for everything that a buyer waits for, plus the timeout of a call that is out when it passes.

import CircuitBreaker
import Logging
import PostgresClient
import ServerKit

/// What buyers and admins can do with orders.
struct OrderFlow: Sendable {
    struct Settings: Sendable {
        var buyerDeadline: Duration = .seconds(3)
        /// How long one order's saga may take in recovery.
        var recoveryDeadline: Duration = .seconds(10)
        /// Whether a sold-out request leaves a FAILED order.
        var persistsRejected = false
    }

    /// An order, and whether an earlier request with the same key had made it.
    struct Placed: Sendable {
        var order: Order
        var isReplay: Bool
    }

    let settings: Settings
    let store: OrderStore
    let insertion: OrderInsertion
    let completion: OrderCompletion
    let keys: KeyLookup
    let orchestrator: SagaOrchestrator
    let soldOut: SoldOutMemory
    let breaker: CircuitBreaker
    let figures: OrderFigures
    let logger: Logger

    // MARK: Placing

    /// Makes an order and runs its saga.
    ///
    /// - Throws: `INSUFFICIENT_STOCK` without an order if the product is known to be sold out; `DEPENDENCY_FAILED` if the outcome is not known yet, or if the breaker
    ///   is open (no order is made then); `KEY_REUSED`, `REQUEST_IN_PROGRESS`, `OVERLOADED`, `UNAVAILABLE`
    func place(_ draft: OrderDraft) async throws(APIError) -> Placed {
        let deadline = ContinuousClock.now + self.settings.buyerDeadline
        let verdict = await self.soldOut.ask(product: draft.productID, quantity: draft.quantity)
        switch verdict {
        case .soldOut: return try await self.placeSoldOut(draft, deadline)
        case .proceed: return try await self.placeNew(draft, deadline)
        case .probe(let probe):
            do throws(APIError) {
                let placed = try await self.placeNew(draft, deadline)
                self.soldOut.endProbe(product: draft.productID, probe: probe)
                return placed
            } catch {
                self.soldOut.endProbe(product: draft.productID, probe: probe)
                throw error
            }
        }
    }

    private func placeSoldOut(_ draft: OrderDraft, _ deadline: ContinuousClock.Instant) async throws(APIError) -> Placed {
        if let key = draft.idempotencyKey, let placed = try await self.existing(key, draft, deadline) { return placed }
        guard self.settings.persistsRejected else {
            self.figures.turnedAway.add()
            throw APIError(.insufficientStock, details: ["productId": .int(draft.productID)])
        }
        switch await self.insertion.insert(draft, failReason: APIErrorCode.insufficientStock.rawValue) {
        case .made(let order):
            self.figures.failed.add()
            return Placed(order: order, isReplay: false)
        case let other: return try await self.notMade(other, draft, deadline)
        }
    }

    private func placeNew(_ draft: OrderDraft, _ deadline: ContinuousClock.Instant) async throws(APIError) -> Placed {
        // An open breaker is known before anything is written: no order is made that recovery would have to carry.
        if self.breaker.isWaiting {
            if let key = draft.idempotencyKey, let placed = try await self.existing(key, draft, deadline) { return placed }
            throw APIError(
                .dependencyFailed,
                details: ["cause": "BREAKER_OPEN"],
                retryAfter: self.breaker.snapshot().openRemaining ?? .seconds(1)
            )
        }
        switch await self.insertion.insert(draft) {
        case .made(let order):
            return Placed(order: try await self.drive(order, firstAttempt: 1, deadline), isReplay: false)
        case let other: return try await self.notMade(other, draft, deadline)
        }
    }

    private func notMade(
        _ outcome: InsertOutcome,
        _ draft: OrderDraft,
        _ deadline: ContinuousClock.Instant
    ) async throws(APIError) -> Placed {
        switch outcome {
        case .made(let order): return Placed(order: order, isReplay: false)
        case .overloaded: throw APIError(.overloaded)
        case .unavailable(let error): throw self.unavailable(error, "an order was not inserted")
        case .keyTaken:
            guard let key = draft.idempotencyKey, let placed = try await self.existing(key, draft, deadline) else {
                throw APIError(.unavailable)
            }
            return placed
        }
    }

    /// The order that a key has made, in its final state; nil if there is none. Waits for one that is being worked on.
    private func existing(_ key: String, _ draft: OrderDraft, _ deadline: ContinuousClock.Instant) async throws(APIError) -> Placed? {
        var wait = Duration.milliseconds(5)
        // Bound: the deadline; the waits double up to 100 ms.
        while true {
            let order: Order
            switch await self.keys.order(key: key) {
            case .success(nil): return nil
            case .success(let found?): order = found
            case .failure(let error): throw self.unavailable(error, "a key was not looked up")
            }
            guard draft.isSame(as: order) else { throw APIError(.keyReused, details: ["orderId": .int(order.id)]) }
            if order.status != .pending { return Placed(order: order, isReplay: true) }
            // Its own request has given up by now, or its server has died: whoever asks goes on with it.
            if Timestamp.now.microsecondsSinceEpoch - order.updatedAt.microsecondsSinceEpoch > self.settings.buyerDeadline.microseconds {
                return Placed(order: try await self.drive(order, firstAttempt: 2, deadline), isReplay: true)
            }
            guard ContinuousClock.now + wait < deadline, (try? await Task.sleep(for: wait)) != nil else {
                throw APIError(.requestInProgress, details: ["orderId": .int(order.id)], retryAfter: .seconds(1))
            }
            wait = min(wait * 2, .milliseconds(100))
        }
    }

    // MARK: The saga

    /// Runs a PENDING order's saga and writes what it came to.
    /// - Throws: `DEPENDENCY_FAILED` if that is not known yet, `UNAVAILABLE` or `OVERLOADED` if it could not be written
    private func drive(_ order: Order, firstAttempt: Int64, _ deadline: ContinuousClock.Instant) async throws(APIError) -> Order {
        let (result, records) = await self.orchestrator.run(order, firstAttempt: firstAttempt, deadline: deadline)
        switch try await self.settle(order, result, records) {
        case .settled(let order): return order
        case .undecided(let cause):
            self.figures.undecided.add()
            await self.leaveToRecovery(order)
            throw APIError(
                .dependencyFailed,
                details: ["orderId": .int(order.id), "status": .string(OrderStatus.pending.rawValue), "cause": .string(cause)],
                retryAfter: .seconds(1)
            )
        }
    }

    private enum Settled {
        case settled(Order)
        case undecided(cause: String)
    }

    /// Writes what a saga came to; of an order that somebody else has settled meanwhile that state counts.
    private func settle(_ order: Order, _ result: SagaResult, _ records: [StepRecord]) async throws(APIError) -> Settled {
        var order = order
        let outcome: CompletionOutcome
        switch result {
        case .undecided(let cause): return .undecided(cause: cause)
        case .confirmed:
            outcome = await self.completion.complete(order, from: .pending, to: .confirmed, failReason: nil, records: records)
            order.status = .confirmed
        case .failed(let reason):
            outcome = await self.completion.complete(order, from: .pending, to: .failed, failReason: reason, records: records)
            order.status = .failed
            order.failReason = reason
        }
        switch outcome {
        case .written(let time):
            order.updatedAt = time
            if order.status == .confirmed { self.figures.confirmed.add() } else { self.figures.failed.add() }
            return .settled(order)
        case .overtaken:
            guard let current = try await self.load(order.id) else { throw APIError(.unavailable) }
            if result == .confirmed, current.status == .failed, current.run == order.run {
                // A late success: the order was found to have failed before this answer came. What it took goes back.
                self.figures.lateSuccesses.add()
                await self.leaveToRecovery(current)
                _ = await self.orchestrator.run(
                    current,
                    purpose: .undo(reason: current.failReason ?? "LATE_SUCCESS"),
                    deadline: .now + self.settings.buyerDeadline
                )
            }
            return .settled(current)
        case .overloaded: throw APIError(.overloaded)
        case .unavailable(let error): throw self.unavailable(error, "an order's outcome was not written")
        }
    }

    private func load(_ id: Int64) async throws(APIError) -> Order? {
        do throws(PostgresError) {
            return try await self.store.order(id: id)
        } catch {
            throw self.unavailable(error, "an order was not read")
        }
    }

    /// Puts an order on recovery's list. Best effort: a PENDING order that is not on it is found by its age.
    private func leaveToRecovery(_ order: Order) async {
        do throws(PostgresError) {
            try await self.store.leaveToRecovery(id: order.id, after: .seconds(1))
        } catch {
            self.logger.warning("an order was not handed to recovery", metadata: ["order": "\(order.id)", "error": "\(error)"])
        }
    }

    private func unavailable(_ error: PostgresError, _ what: Logger.Message) -> APIError {
        self.logger.warning(what, metadata: ["error": "\(error)"])
        if error.code == .poolExhausted { return APIError(.overloaded) }
        return APIError(.unavailable, retryAfter: max(error.retryAfter ?? .zero, .seconds(1)))
    }

    // MARK: Cancelling

    /// Gives a CONFIRMED order's stock back and cancels it.
    ///
    /// Several at once give back once, because they send one key; each is answered with the cancelled order.
    /// - Throws: `ORDER_NOT_FOUND`, `INVALID_STATE`; `DEPENDENCY_FAILED` if the stock could not be given back: the order is still CONFIRMED then, and recovery goes on
    ///   with its cancellation unless the product server has refused it
    func cancel(id: Int64, key: String?) async throws(APIError) -> Placed {
        let marked: Order?
        do throws(PostgresError) {
            marked = try await self.store.requestCancel(id: id, key: key)
        } catch {
            throw self.unavailable(error, "a cancellation was not noted")
        }
        guard let order = marked else {
            guard let current = try await self.load(id) else { throw APIError(.orderNotFound) }
            if current.status == .cancelled, let key, current.cancelKey == key { return Placed(order: current, isReplay: true) }
            throw APIError(.invalidState, details: ["status": .string(current.status.rawValue)])
        }
        switch try await self.giveBack(order, firstAttempt: 1, .now + self.settings.buyerDeadline) {
        case .settled(let order):
            await self.drop(order.id, attempt: nil)
            return Placed(order: order, isReplay: false)
        case .undecided(let cause):
            throw APIError(
                .dependencyFailed,
                details: ["orderId": .int(id), "status": .string(OrderStatus.confirmed.rawValue), "cause": .string(cause)],
                retryAfter: .seconds(1)
            )
        }
    }

    private func giveBack(_ order: Order, firstAttempt: Int64, _ deadline: ContinuousClock.Instant) async throws(APIError) -> Settled {
        let (result, records) = await self.orchestrator.run(
            order,
            purpose: .undo(reason: OrderStatus.cancelled.rawValue),
            firstAttempt: firstAttempt,
            deadline: deadline
        )
        guard case .failed = result else {
            // The last record says whether it was refused, which no repetition changes, or unanswered.
            if let last = records.last, !last.outcome.hasPrefix("NO_ANSWER") {
                do throws(PostgresError) {
                    try await self.store.withdrawCancel(id: order.id)
                } catch {
                    throw self.unavailable(error, "a cancellation was not withdrawn")
                }
                return .undecided(cause: last.outcome)
            }
            if case .undecided(let cause) = result { return .undecided(cause: cause) }
            return .undecided(cause: "NO_ANSWER")
        }
        var order = order
        switch await self.completion.complete(order, from: .confirmed, to: .cancelled, failReason: nil, records: records) {
        case .written(let time):
            order.status = .cancelled
            order.updatedAt = time
            self.figures.cancelled.add()
            return .settled(order)
        case .overtaken:
            guard let current = try await self.load(order.id) else { throw APIError(.unavailable) }
            return .settled(current)
        case .overloaded: throw APIError(.overloaded)
        case .unavailable(let error): throw self.unavailable(error, "a cancellation was not written")
        }
    }

    // MARK: Running again

    /// Runs a FAILED order's saga again, under new keys.
    /// - Throws: `ORDER_NOT_FOUND`; `INVALID_STATE` if it is not FAILED; `REQUEST_IN_PROGRESS` if its last run is still being settled; as ``place(_:)``
    func retry(id: Int64) async throws(APIError) -> Order {
        let begun: Order?
        do throws(PostgresError) {
            begun = try await self.store.beginRetry(id: id)
        } catch {
            throw self.unavailable(error, "an order was not begun again")
        }
        guard let order = begun else {
            guard let current = try await self.load(id) else { throw APIError(.orderNotFound) }
            if current.status == .failed { throw APIError(.requestInProgress, details: ["orderId": .int(id)], retryAfter: .seconds(1)) }
            throw APIError(.invalidState, details: ["status": .string(current.status.rawValue)])
        }
        let settled = try await self.drive(order, firstAttempt: 1, .now + self.settings.buyerDeadline)
        await self.drop(id, attempt: nil)
        return settled
    }

    private func drop(_ id: Int64, attempt: Int64?) async {
        do throws(PostgresError) {
            try await self.store.drop(id: id, attempt: attempt)
        } catch {
            // Recovery finds a settled order and drops it then.
            self.logger.debug("a settled order stays on recovery's list", metadata: ["order": "\(id)", "error": "\(error)"])
        }
    }

    // MARK: Recovery

    /// Settles one order from recovery's list, whatever state it is in now.
    /// - Returns: whether it is settled
    func recover(_ work: OrderStore.Work) async -> Bool {
        let deadline = ContinuousClock.now + self.settings.recoveryDeadline
        let order = work.order
        do throws(APIError) {
            switch order.status {
            case .pending:
                let (result, records) = await self.orchestrator.run(order, firstAttempt: max(2, work.attempt), deadline: deadline)
                guard case .settled = try await self.settle(order, result, records) else { return false }
            case .confirmed where order.cancelRequestedAt != nil:
                guard case .settled = try await self.giveBack(order, firstAttempt: max(2, work.attempt), deadline) else { return false }
            case .failed:
                // Somebody may have had a success that came too late, and died. A compensation of nothing does no harm.
                let (result, _) = await self.orchestrator.run(
                    order,
                    purpose: .undo(reason: order.failReason ?? "FAILED"),
                    firstAttempt: max(2, work.attempt),
                    deadline: deadline
                )
                guard case .failed = result else { return false }
            case .confirmed, .cancelled: break
            }
        } catch {
            return false
        }
        await self.drop(order.id, attempt: work.attempt)
        return true
    }
}

extension CircuitBreaker {
    /// Whether a call would be turned away for a while yet.
    fileprivate var isWaiting: Bool {
        switch self.state {
        case .closed, .halfOpen, .disabled, .metricsOnly: false
        case .forcedOpen: true
        case .open: (self.snapshot().openRemaining ?? .zero) > .zero
        }
    }
}
