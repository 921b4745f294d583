// Answers to a request that gets no new order at the first try: the product is sold out, no cell has it, the breaker is open, the key is taken, or the row was not written. If
// the request's key has made an order before, the answer is that order.

import APIErrors
import Logging
import ServerMetrics
import StockContract
import StrictJSON

/// Answers requests that get no new order. Each method calls `done` once.
struct OrderTurnaway: Sendable {
    /// Whether a sold-out request leaves a FAILED order.
    let persistsRejected: Bool
    let insertion: OrderInsertion
    let earlier: EarlierOrders
    let trouble: StoreTrouble
    let metrics: OrderMetrics

    /// Whether a request for a sold-out product is answered without the database.
    func isImmediate(_ draft: OrderDraft) -> Bool { draft.idempotencyKey == nil && !persistsRejected }

    /// The product is known to be sold out. The database is needed only if the request has a key, or if a rejected order is to be kept.
    /// - Parameter waits: whether to wait for an order that is being worked on
    func soldOut(_ draft: OrderDraft, _ deadline: ContinuousClock.Instant, waits: Bool, _ done: @escaping PlacedOrder.Done) {
        if isImmediate(draft) {
            return turnAway(draft, done)
        }
        // In a rush nearly every key is new: one look says so, and no task is needed.
        if !persistsRejected, let key = draft.idempotencyKey {
            return earlier.look(for: draft, key: key) { outcome in
                if case .success(nil) = outcome { return turnAway(draft, done) }
                PlacedOrder.inTask(done) { () async throws(APIError) in
                    if let placed = try await earlier.order(of: draft, deadline, waits: waits, first: outcome) { return placed }
                    metrics.turnedAway.add()
                    throw .soldOut(product: draft.productID)
                }
            }
        }
        PlacedOrder.inTask(done) { () async throws(APIError) in
            if let placed = try await earlier.order(of: draft, deadline, waits: waits) { return placed }
            switch await insertion.insert(draft, failReason: APIErrorCode.insufficientStock.rawValue) {
            case .made(let order):
                metrics.failed.add()
                return PlacedOrder(order: order, isReplay: false)
            case let other:
                return try await PlacedOrder.awaited { notInserted(other, draft, deadline, waits: waits, $0) }
            }
        }
    }

    private func turnAway(_ draft: OrderDraft, _ done: PlacedOrder.Done) {
        metrics.turnedAway.add()
        done(.failure(.soldOut(product: draft.productID)))
    }

    /// No cell has the product. The order is made as FAILED, as one whose product is unknown to its cell comes to be.
    func noProduct(_ draft: OrderDraft, _ deadline: ContinuousClock.Instant, waits: Bool, _ done: @escaping PlacedOrder.Done) {
        insertion.insert(draft, failReason: APIErrorCode.productNotFound.rawValue, deadline: deadline) { outcome in
            if case .made = outcome { metrics.failed.add() }
            notInserted(outcome, draft, deadline, waits: waits, done)
        }
    }

    /// The breaker around the product server stays open for some time yet.
    func breakerOpen(_ draft: OrderDraft, _ deadline: ContinuousClock.Instant, retryAfter: Duration?, _ done: @escaping PlacedOrder.Done) {
        let error = APIError(
            .dependencyFailed,
            details: ["cause": .string(NoAnswerCause.breakerOpen)],
            retryAfter: retryAfter ?? .seconds(1)
        )
        if draft.idempotencyKey == nil { return done(.failure(error)) }
        PlacedOrder.inTask(done) { () async throws(APIError) in
            guard let placed = try await earlier.order(of: draft, deadline, waits: true) else { throw error }
            return placed
        }
    }

    /// The order was not inserted.
    /// - Parameter waits: whether to wait for an order that is being worked on
    func notInserted(
        _ outcome: InsertOutcome,
        _ draft: OrderDraft,
        _ deadline: ContinuousClock.Instant,
        waits: Bool,
        _ done: @escaping PlacedOrder.Done
    ) {
        switch outcome {
        case .made(let order): done(.success(PlacedOrder(order: order, isReplay: false)))
        case .overloaded: done(.failure(APIError(.overloaded)))
        case .unavailable(let error): done(.failure(trouble.noted(error, "an order was not inserted")))
        case .keyTaken:
            PlacedOrder.inTask(done) { () async throws(APIError) in
                guard let placed = try await earlier.order(of: draft, deadline, waits: waits) else { throw APIError(.unavailable) }
                return placed
            }
        }
    }
}
