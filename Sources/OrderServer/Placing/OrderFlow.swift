// Invariant: a step is called only for an order whose row is durable, and a final state is answered only when it is durable. Whatever is left open in between is
// in the table of orders as PENDING or in saga_work, and recovery settles it. What the product server has refused for good to take back is no longer left open: it is noted with the
// order, logged and counted once, and no recovery asks again.
//
// Bounds: `buyerDeadline` for everything that a buyer waits for, whatever the databases and the product server do: an order that has no outcome by then is settled without its buyer.

import APIErrors
import CircuitBreaker
import HotPath
import Logging
import PostgresClient
import ServerKit
import StockContract
import StrictJSON

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
    /// What waits in the outbox; nil without a broker.
    let backlog: OutboxBacklog?
    /// Told of changes that no group writes.
    let changes: OrderChanges
    let logger: Logger
    private let keyTakenLog = LogThrottle()
    private let troubleLog = LogThrottle()
    private let deadlines = BuyerDeadlines()

    // MARK: Placing

    /// Makes an order and runs its saga.
    ///
    /// An order that failed is returned, for want of stock too: ``Placed/refusal(isAsynchronous:)`` says what its buyer is told.
    /// - Throws: `INSUFFICIENT_STOCK` without an order if the product is known to be sold out; `DEPENDENCY_FAILED` if the outcome is not known yet, or if the breaker
    ///   is open (no order is made then); `KEY_REUSED`, `REQUEST_IN_PROGRESS`, `OVERLOADED`, `UNAVAILABLE`
    func place(_ draft: OrderDraft) async throws(APIError) -> Placed {
        let result: Result<Placed, APIError> = await withCheckedContinuation { continuation in
            self.place(draft) { continuation.resume(returning: $0) }
        }
        return try result.get()
    }

    /// The same; `done` is called once, on whatever thread the outcome is known. What a rush consists of, an order or a refusal at the first try, needs no task.
    func place(_ draft: OrderDraft, done: @escaping @Sendable (Result<Placed, APIError>) -> Void) {
        let deadline = ContinuousClock.now + self.settings.buyerDeadline
        let wait = BuyerWait(deadline: deadline, done: done)
        self.deadlines.watch(wait)
        let done: BuyerWait.Done = { wait.answer($0) }
        self.soldOut.ask(product: draft.productID, quantity: draft.quantity) { verdict in
            switch verdict {
            case .soldOut: self.placeSoldOut(draft, deadline, done)
            case .proceed: self.placeNew(draft, wait, done)
            case .probe(let probe):
                self.placeNew(draft, wait) { result in
                    self.soldOut.endProbe(product: draft.productID, probe: probe)
                    done(result)
                }
            }
        }
    }

    /// Goes on in a task of its own, off the hot path.
    private func inTask(
        _ done: @escaping @Sendable (Result<Placed, APIError>) -> Void,
        _ body: @escaping @Sendable () async throws(APIError) -> Placed
    ) {
        Task {
            do throws(APIError) {
                done(.success(try await body()))
            } catch {
                done(.failure(error))
            }
        }
    }

    private func placeSoldOut(
        _ draft: OrderDraft,
        _ deadline: ContinuousClock.Instant,
        waits: Bool = true,
        _ done: @escaping @Sendable (Result<Placed, APIError>) -> Void
    ) {
        if draft.idempotencyKey == nil, !self.settings.persistsRejected {
            self.figures.turnedAway.add()
            return done(.failure(.soldOut(product: draft.productID)))
        }
        self.inTask(done) { () async throws(APIError) in
            if let placed = try await self.existing(draft, deadline, waits: waits) { return placed }
            guard self.settings.persistsRejected else {
                self.figures.turnedAway.add()
                throw .soldOut(product: draft.productID)
            }
            switch await self.insertion.insert(draft, failReason: APIErrorCode.insufficientStock.rawValue) {
            case .made(let order):
                self.figures.failed.add()
                return Placed(order: order, isReplay: false)
            case let other: return try await self.notMade(other, draft, deadline, waits: waits)
            }
        }
    }

    private func placeNew(
        _ draft: OrderDraft,
        _ wait: BuyerWait,
        _ done: @escaping @Sendable (Result<Placed, APIError>) -> Void
    ) {
        let deadline = wait.deadline
        // An open breaker is known before anything is written: no order is made that recovery would have to carry.
        if self.breaker.isWaiting {
            return self.inTask(done) { () async throws(APIError) in
                if let placed = try await self.existing(draft, deadline) { return placed }
                throw APIError(
                    .dependencyFailed,
                    details: ["cause": "BREAKER_OPEN"],
                    retryAfter: self.breaker.snapshot().openRemaining ?? .seconds(1)
                )
            }
        }
        self.insertion.insert(draft, deadline: deadline) { outcome in
            switch outcome {
            case .made(let order):
                wait.began(order.id, .pending)
                self.orchestrator.start(order, deadline: deadline) { result, records in
                    self.finish(order, result, records, deadline, done)
                }
            case let other:
                self.inTask(done) { () async throws(APIError) in try await self.notMade(other, draft, deadline) }
            }
        }
    }

    /// Writes what a new order's saga came to, and answers.
    private func finish(
        _ order: Order,
        _ result: SagaResult,
        _ records: [StepRecord],
        _ deadline: ContinuousClock.Instant,
        _ done: @escaping @Sendable (Result<Placed, APIError>) -> Void
    ) {
        let status: OrderStatus
        let reason: String?
        switch result {
        case .confirmed: (status, reason) = (.confirmed, nil)
        case .failed(let why): (status, reason) = (.failed, why)
        case .notUndone, .keyTaken, .undecided:
            return self.inTask(done) { () async throws(APIError) in
                Placed(order: try await self.conclude(order, result, records, deadline), isReplay: false)
            }
        }
        self.completion.complete(order, from: .pending, to: status, failReason: reason, records: records) { outcome in
            if case .written(let time) = outcome {
                done(.success(Placed(order: self.written(order, status, reason, at: time), isReplay: false)))
            } else {
                self.inTask(done) { () async throws(APIError) in
                    switch try await self.settled(order, result, outcome) {
                    case .settled(let order): return Placed(order: order, isReplay: false)
                    // Settling undecides nothing.
                    case .undecided: throw APIError(.unavailable)
                    }
                }
            }
        }
    }

    private func written(_ order: Order, _ status: OrderStatus, _ reason: String?, at time: Timestamp) -> Order {
        var order = order
        order.status = status
        order.failReason = reason
        order.updatedAt = time
        if status == .confirmed { self.figures.confirmed.add() } else { self.figures.failed.add() }
        return order
    }

    // MARK: Accepting

    /// Whether orders can go over the broker: one is configured.
    var isAccepting: Bool { self.backlog != nil }

    /// Makes an order that a message carries to the product server; the two are durable together. The order is PENDING, or in any state if it is a replay.
    ///
    /// - Throws: `INSUFFICIENT_STOCK` without an order if the product is known to be sold out; `OVERLOADED` if too many orders wait to be sent; `UNAVAILABLE`, also without
    ///   a broker; `KEY_REUSED`
    func accept(_ draft: OrderDraft) async throws(APIError) -> Placed {
        let result: Result<Placed, APIError> = await withCheckedContinuation { continuation in
            self.accept(draft) { continuation.resume(returning: $0) }
        }
        return try result.get()
    }

    /// The same; `done` is called once, at once or on the group writer's thread. Only a key that is taken, or a look for one, needs a task.
    func accept(_ draft: OrderDraft, done: @escaping @Sendable (Result<Placed, APIError>) -> Void) {
        guard let backlog else { return done(.failure(APIError(.unavailable))) }
        let deadline = ContinuousClock.now + self.settings.buyerDeadline
        let wait = BuyerWait(deadline: deadline, done: done)
        self.deadlines.watch(wait)
        let done: BuyerWait.Done = { wait.answer($0) }
        if self.soldOut.isSoldOut(product: draft.productID, quantity: draft.quantity) {
            return self.placeSoldOut(draft, deadline, waits: false, done)
        }
        guard backlog.reserve() else {
            return done(.failure(APIError(.overloaded, details: ["waitingOrders": .int(Int64(backlog.orders))])))
        }
        self.insertion.insert(draft, isAsynchronous: true, deadline: deadline) { outcome in
            if case .made(let order) = outcome {
                self.figures.accepted.add()
                return done(.success(Placed(order: order, isReplay: false)))
            }
            backlog.release(orders: 1)
            self.inTask(done) { () async throws(APIError) in
                try await self.notMade(outcome, draft, deadline, waits: false)
            }
        }
    }

    private func notMade(
        _ outcome: InsertOutcome,
        _ draft: OrderDraft,
        _ deadline: ContinuousClock.Instant,
        waits: Bool = true
    ) async throws(APIError) -> Placed {
        switch outcome {
        case .made(let order): return Placed(order: order, isReplay: false)
        case .overloaded: throw APIError(.overloaded)
        case .unavailable(let error): throw self.unavailable(error, "an order was not inserted")
        case .keyTaken:
            guard let placed = try await self.existing(draft, deadline, waits: waits) else { throw APIError(.unavailable) }
            return placed
        }
    }

    /// The order that the draft's key has made for its buyer, in its final state; nil if there is none. Waits for one that is being worked on, unless told not to.
    private func existing(
        _ draft: OrderDraft,
        _ deadline: ContinuousClock.Instant,
        waits: Bool = true
    ) async throws(APIError) -> Placed? {
        guard let key = draft.idempotencyKey else { return nil }
        return try await self.existing(key, of: draft.buyerID, draft.requestID?.description, deadline, waits: waits) {
            draft.isSame(as: $0)
        }
    }

    /// The order that a buyer's earlier request with the same key has made, as ``place(_:)`` or ``accept(_:)`` would repeat it; nil if there is none. For those who cannot make a
    /// draft any more, since what it needs to know has changed or is not to be had.
    /// - Parameter isSame: whether an order is what is asked for again; nil is returned for another
    func repeated(
        key: String,
        buyer: String?,
        requestID: String?,
        waits: Bool,
        _ isSame: (Order) -> Bool
    ) async throws(APIError) -> Placed? {
        do throws(APIError) {
            return try await self.existing(key, of: buyer, requestID, .now + self.settings.buyerDeadline, waits: waits, isSame)
        } catch  where error.code == .keyReused {
            return nil
        }
    }

    private func existing(
        _ key: String,
        of buyer: String?,
        _ requestID: String?,
        _ deadline: ContinuousClock.Instant,
        waits: Bool,
        _ isSame: (Order) -> Bool
    ) async throws(APIError) -> Placed? {
        var wait = Duration.milliseconds(5)
        // Bound: the deadline; the waits double up to 100 ms.
        while true {
            var order: Order
            switch await self.keys.order(key: key, buyer: buyer) {
            case .success(nil): return nil
            case .success(let found?): order = found
            case .failure(let error): throw self.unavailable(error, "a key was not looked up")
            }
            // Nothing of the order: whoever has not made it learns that the key is taken, and no more.
            guard isSame(order) else { throw APIError(.keyReused) }
            order.requestID = requestID
            if order.status != .pending || !waits { return Placed(order: order, isReplay: true) }
            // Its own request has given up by now, or its server has died: whoever asks goes on with it.
            if Timestamp.now.microseconds(since: order.updatedAt) > self.settings.buyerDeadline.microseconds {
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
        return try await self.conclude(order, result, records, deadline)
    }

    private func conclude(
        _ order: Order,
        _ result: SagaResult,
        _ records: [StepRecord],
        _ deadline: ContinuousClock.Instant
    ) async throws(APIError) -> Order {
        switch try await self.settle(order, result, records, deadline) {
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

    /// Writes what a saga came to; of an order that somebody else has settled meanwhile that state counts. An order whose key is another's goes on under another key, once.
    private func settle(
        _ order: Order,
        _ result: SagaResult,
        _ records: [StepRecord],
        _ deadline: ContinuousClock.Instant,
        mayTakeAnotherKey: Bool = true
    ) async throws(APIError) -> Settled {
        let outcome: CompletionOutcome
        switch result {
        case .undecided(let cause): return .undecided(cause: cause)
        case .keyTaken(let code) where mayTakeAnotherKey:
            guard let renewed = try await self.takeAnotherKey(order, code, records) else {
                guard let current = try await self.load(order.id) else { throw APIError(.unavailable) }
                // PENDING still: recovery asks as a repeat, and the ledger compares the times then.
                return current.status == .pending ? .undecided(cause: code) : .settled(current)
            }
            let (result, records) = await self.orchestrator.run(renewed, deadline: deadline)
            return try await self.settle(renewed, result, records, deadline, mayTakeAnotherKey: false)
        case .keyTaken:
            outcome = await self.completion.complete(
                order,
                from: .pending,
                to: .failed,
                failReason: APIErrorCode.keyReused.rawValue,
                records: records
            )
        case .confirmed:
            outcome = await self.completion.complete(order, from: .pending, to: .confirmed, failReason: nil, records: records)
        case .failed(let reason):
            outcome = await self.completion.complete(order, from: .pending, to: .failed, failReason: reason, records: records)
        case .notUndone(let refusal, let reason):
            // The order has failed all the same; its history has the refusal already.
            outcome = await self.completion.complete(order, from: .pending, to: .failed, failReason: reason, records: records)
            if case .written = outcome { await self.noteUndoRefused(order, refusal, [], .saga) }
        }
        return try await self.settled(order, result, outcome)
    }

    private func settled(_ order: Order, _ result: SagaResult, _ outcome: CompletionOutcome) async throws(APIError) -> Settled {
        switch outcome {
        case .written(let time):
            switch result {
            case .undecided(let cause): return .undecided(cause: cause)
            case .confirmed: return .settled(self.written(order, .confirmed, nil, at: time))
            case .failed(let reason), .notUndone(_, let reason): return .settled(self.written(order, .failed, reason, at: time))
            case .keyTaken: return .settled(self.written(order, .failed, APIErrorCode.keyReused.rawValue, at: time))
            }
        case .overtaken:
            guard let current = try await self.load(order.id) else { throw APIError(.unavailable) }
            if result == .confirmed, current.status == .failed, current.run == order.run {
                // A late success: the order was found to have failed before this answer came. What it took goes back.
                self.figures.lateSuccesses.add()
                await self.leaveToRecovery(current)
                let (undone, records) = await self.orchestrator.run(
                    current,
                    purpose: .undo(reason: current.failReason ?? "LATE_SUCCESS"),
                    deadline: .now + self.settings.buyerDeadline
                )
                if case .notUndone(let refusal, _) = undone, await self.noteUndoRefused(current, refusal, records, .lateSuccess) {
                    await self.drop(current.id, attempt: nil)
                }
            }
            return .settled(current)
        case .overloaded: throw APIError(.overloaded)
        case .unavailable(let error): throw self.unavailable(error, "an order's outcome was not written")
        }
    }

    /// How lately an order must have been changed for its driver to be the only one that has sent its key: others begin only after ``Settings/buyerDeadline``, and
    /// their clocks may differ from the database's by as much as this.
    static func freshAge(_ settings: Settings) -> Duration { settings.buyerDeadline / 2 }

    /// Lets an order whose key is another's go on under another key.
    /// - Returns: nil if the order is no longer in that run, or if somebody else may have sent its key meanwhile
    private func takeAnotherKey(_ order: Order, _ code: String, _ records: [StepRecord]) async throws(APIError) -> Order? {
        // The ledger's own word needs no more; a replay says so only of a key that nobody else can have sent.
        let age = code == APIErrorCode.keyReused.rawValue ? nil : OrderFlow.freshAge(self.settings)
        var renewed: Order?
        do throws(PostgresError) {
            renewed = try await self.store.takeAnotherKey(id: order.id, run: order.run, age: age, records: records)
        } catch {
            throw self.unavailable(error, "an order did not take another key")
        }
        renewed?.requestID = order.requestID
        if let renewed { self.noteKeyTaken(orders: 1, example: order, newKey: renewed.decreaseKey, code) }
        return renewed
    }

    /// Counts and logs orders whose keys were another's.
    func noteKeyTaken(orders: Int, example order: Order?, newKey: String?, _ code: String) {
        self.figures.keysTaken.add(UInt64(orders))
        var metadata: Logger.Metadata = ["orders": "\(orders)", "seenBy": "\(code)"]
        if let order { metadata["key"] = "\(order.decreaseKey)" }
        metadata["newKey"] = newKey.map { "\($0)" }
        self.keyTakenLog.log(
            .error,
            "order ids come round again: the ledger has sold under an order's key before it was made; it takes another key. Was the order database restored?",
            to: self.logger,
            metadata: metadata
        )
    }

    /// Gives back what was taken for a run of an order that has failed. Refused for good by the product server, that has ended as well.
    /// - Throws: if it is neither done, refused nor left to recovery
    func undoLateSuccess(_ order: Order) async throws {
        self.figures.lateSuccesses.add()
        // Recovery undoes an order's present run; an earlier one is undone here.
        guard let current = try await self.store.order(id: order.id), current.run != order.run || current.status != .failed else {
            return try await self.store.leaveToRecovery(id: order.id, after: .zero)
        }
        let (result, records) = await self.orchestrator.run(
            order,
            purpose: .undo(reason: order.failReason ?? "LATE_SUCCESS"),
            deadline: .now + self.settings.buyerDeadline
        )
        switch result {
        case .failed: break
        case .notUndone(let refusal, _):
            guard await self.noteUndoRefused(order, refusal, records, .lateSuccess) else { throw APIError(.unavailable) }
        case .confirmed, .keyTaken, .undecided: throw APIError(.dependencyFailed)
        }
    }

    /// Notes that the product server has refused for good to take an order's stock back: the units stay taken, and an operator has to settle that. Logged and counted
    /// if it is news; a cancellation that is asked for again and again fills no log.
    /// - Returns: whether it is noted
    @discardableResult
    private func noteUndoRefused(
        _ order: Order,
        _ refusal: String,
        _ records: [StepRecord],
        _ undoing: OrderFigures.Undoing
    ) async -> Bool {
        var metadata: Logger.Metadata = [
            "order": "\(order.id)", "key": "\(order.increaseKey)", "reason": "\(refusal)", "during": "\(undoing.rawValue)",
        ]
        metadata["requestId"] = order.requestID.map { "\($0)" }
        do throws(PostgresError) {
            guard try await self.store.noteUndoRefused(id: order.id, refusal: order.increaseKey + " " + refusal, records: records) else {
                return true
            }
        } catch {
            metadata["error"] = "\(error)"
            self.logger.warning("a final refusal to take stock back was not noted", metadata: metadata)
            return false
        }
        self.figures.undoRefused[undoing]?.add()
        self.logger.error("the product server has refused for good to take stock back: needs operator action", metadata: metadata)
        return true
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
        self.troubleLog.log(.warning, what, to: self.logger, metadata: ["error": "\(error)"])
        if error.code == .poolExhausted { return APIError(.overloaded) }
        if error.sqlState == "55P03" { return APIError(.lockTimeout) }
        return APIError(.unavailable, retryAfter: max(error.retryAfter ?? .zero, .seconds(1)))
    }

    // MARK: Cancelling

    /// Gives a CONFIRMED order's stock back and cancels it.
    ///
    /// Several at once give back once, because they send one key; each is answered with the cancelled order.
    /// - Throws: `ORDER_NOT_FOUND`, `INVALID_STATE`; `DEPENDENCY_FAILED` if the stock could not be given back: the order is still CONFIRMED then, and recovery goes on
    ///   with its cancellation. Unless the product server has refused it for good: then the cancellation has ended, and the error's `details.final` is true
    func cancel(id: Int64, key: String?, requestID: String? = nil) async throws(APIError) -> Placed {
        try await self.withinDeadline { (wait) async throws(APIError) in
            try await self.cancel(id: id, key: key, requestID: requestID, wait)
        }
    }

    /// Answers at the deadline at the latest; what was begun goes on.
    private func withinDeadline(
        _ body: @escaping @Sendable (BuyerWait) async throws(APIError) -> Placed
    ) async throws(APIError) -> Placed {
        let result: Result<Placed, APIError> = await withCheckedContinuation { continuation in
            let wait = BuyerWait(deadline: .now + self.settings.buyerDeadline) { continuation.resume(returning: $0) }
            self.deadlines.watch(wait)
            self.inTask({ wait.answer($0) }) { () async throws(APIError) in try await body(wait) }
        }
        return try result.get()
    }

    private func cancel(id: Int64, key: String?, requestID: String?, _ wait: BuyerWait) async throws(APIError) -> Placed {
        let marked: Order?
        do throws(PostgresError) {
            marked = try await self.store.requestCancel(id: id, key: key)
        } catch {
            throw self.unavailable(error, "a cancellation was not noted")
        }
        guard var order = marked else {
            guard let current = try await self.load(id) else { throw APIError(.orderNotFound) }
            if current.status == .cancelled, let key, current.cancelKey == key { return Placed(order: current, isReplay: true) }
            throw APIError(.invalidState, details: ["status": .string(current.status.rawValue)])
        }
        order.requestID = requestID
        wait.began(id, .confirmed)
        switch try await self.giveBack(order, firstAttempt: 1, .now + self.settings.buyerDeadline) {
        case .settled(let order):
            await self.drop(order.id, attempt: nil)
            return Placed(order: order, isReplay: false)
        case .refused(let refusal): throw .cancelRefused(order: id, cause: refusal)
        case .undecided(let cause):
            throw APIError(
                .dependencyFailed,
                details: ["orderId": .int(id), "status": .string(OrderStatus.confirmed.rawValue), "cause": .string(cause)],
                retryAfter: .seconds(1)
            )
        }
    }

    private enum GivenBack {
        /// The order is cancelled, or whatever somebody else has made of it meanwhile.
        case settled(Order)
        /// It stays CONFIRMED; the cancellation has ended.
        case refused(String)
        case undecided(cause: String)
    }

    private func giveBack(_ order: Order, firstAttempt: Int64, _ deadline: ContinuousClock.Instant) async throws(APIError) -> GivenBack {
        let (result, records) = await self.orchestrator.run(
            order,
            purpose: .undo(reason: OrderStatus.cancelled.rawValue),
            firstAttempt: firstAttempt,
            deadline: deadline
        )
        switch result {
        case .failed: break
        case .notUndone(let refusal, _):
            // First the note, then the mark: a server that dies in between leaves an order that recovery asks for once more.
            guard await self.noteUndoRefused(order, refusal, records, .cancel) else { throw APIError(.unavailable) }
            do throws(PostgresError) {
                try await self.store.withdrawCancel(id: order.id)
            } catch {
                throw self.unavailable(error, "a cancellation was not withdrawn")
            }
            return .refused(refusal)
        case .undecided(let cause): return .undecided(cause: cause)
        // Undoing confirms nothing, and takes no key.
        case .confirmed, .keyTaken: return .undecided(cause: "NO_ANSWER")
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
    func retry(id: Int64, requestID: String? = nil) async throws(APIError) -> Order {
        let begun: Order?
        do throws(PostgresError) {
            begun = try await self.store.beginRetry(id: id)
            if begun != nil { self.changes.changed([id]) }
        } catch {
            throw self.unavailable(error, "an order was not begun again")
        }
        guard var order = begun else {
            guard let current = try await self.load(id) else { throw APIError(.orderNotFound) }
            if current.status == .failed { throw APIError(.requestInProgress, details: ["orderId": .int(id)], retryAfter: .seconds(1)) }
            throw APIError(.invalidState, details: ["status": .string(current.status.rawValue)])
        }
        order.requestID = requestID
        let begunAgain = order
        return try await self.withinDeadline { (wait) async throws(APIError) in
            wait.began(id, .pending)
            let settled = try await self.drive(begunAgain, firstAttempt: 1, .now + self.settings.buyerDeadline)
            await self.drop(id, attempt: nil)
            return Placed(order: settled, isReplay: false)
        }.order
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
                guard case .settled = try await self.settle(order, result, records, deadline) else { return false }
            case .confirmed where order.cancelRequestedAt != nil:
                if case .undecided = try await self.giveBack(order, firstAttempt: max(2, work.attempt), deadline) { return false }
            case .failed:
                // Somebody may have had a success that came too late, and died. A compensation of nothing does no harm.
                let (result, records) = await self.orchestrator.run(
                    order,
                    purpose: .undo(reason: order.failReason ?? "FAILED"),
                    firstAttempt: max(2, work.attempt),
                    deadline: deadline
                )
                switch result {
                case .failed: break
                case .notUndone(let refusal, _):
                    guard await self.noteUndoRefused(order, refusal, records, .lateSuccess) else { return false }
                case .confirmed, .keyTaken, .undecided: return false
                }
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
    var isWaiting: Bool {
        switch self.state {
        case .closed, .halfOpen, .disabled, .metricsOnly: false
        case .forcedOpen: true
        case .open: (self.snapshot().openRemaining ?? .zero) > .zero
        }
    }
}
