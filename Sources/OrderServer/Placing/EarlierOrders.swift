import APIErrors
import BlockingThreads
import HotPath
import Logging
import StockContract
import StrictJSON

/// Finds the order that an earlier request of the buyer with the same idempotency key has made.
struct EarlierOrders: Sendable {
    /// Pauses between looks at an order that is being worked on.
    private static let backoff = Backoff(minimum: .milliseconds(5), maximum: .milliseconds(100))

    let keys: KeyLookup
    let conclusion: OrderConclusion
    let trouble: StoreTrouble
    let predecessors: Predecessors

    /// The order that this buyer has made with the draft's key; nil if there is none. If `waits`, an order that is being worked on is waited for until it is in
    /// its final state.
    /// - Parameter first: the result of a look-up that the caller has just made, used in place of this function's first one; nil if there was none
    /// - Throws: `KEY_REUSED`; `REQUEST_IN_PROGRESS` if it is still being worked on at the deadline; errors of ``OrderConclusion/drive(_:firstAttempt:_:)``
    func order(
        of draft: OrderDraft,
        _ deadline: ContinuousClock.Instant,
        waits: Bool,
        first: KeyLookup.Outcome? = nil
    ) async throws(APIError) -> PlacedOrder? {
        guard let key = draft.idempotencyKey else { return nil }
        return try await self.order(key, of: draft.buyerID, draft.requestID?.description, deadline, waits: waits, first: first) {
            draft.isSame(as: $0)
        }
    }

    /// Looks once for an order that this buyer has made with the draft's key, without a task. `done` is called once.
    func look(for draft: OrderDraft, key: String, done: @escaping @Sendable (KeyLookup.Outcome) -> Void) {
        keys.order(key: key, buyer: draft.buyerID, done: done)
    }

    /// The order that an earlier request of the buyer with the same key has made, as a repeat of that request is answered; nil if there is none. This is for
    /// callers that cannot make a draft any more, because the facts that it needs have changed or cannot be had.
    /// - Parameter isSame: whether an order is the one that is asked for; nil is returned if not
    func repeated(
        key: String,
        buyer: String?,
        requestID: String?,
        waits: Bool,
        _ isSame: (Order) -> Bool
    ) async throws(APIError) -> PlacedOrder? {
        do throws(APIError) {
            return try await order(key, of: buyer, requestID, .now + conclusion.deadlines.buyer, waits: waits, isSame)
        } catch  where error.code == .keyReused {
            return nil
        }
    }

    private func order(
        _ key: String,
        of buyer: String?,
        _ requestID: String?,
        _ deadline: ContinuousClock.Instant,
        waits: Bool,
        first: KeyLookup.Outcome? = nil,
        _ isSame: (Order) -> Bool
    ) async throws(APIError) -> PlacedOrder? {
        var known = first
        var looks = 0
        // The wait ends a little before the buyer's deadline, because a busy machine wakes late. *In progress* helps the caller more than the answer at the
        // deadline, which says that nothing is known.
        let buyersDeadline = deadline
        let deadline = buyersDeadline - min(.milliseconds(250), conclusion.deadlines.buyer / 8)
        // Bound: the deadline. The pauses double up to 100 ms.
        while true {
            var order: Order
            let outcome: KeyLookup.Outcome
            if let known { outcome = known } else { outcome = await keys.order(key: key, buyer: buyer) }
            known = nil
            switch outcome {
            case .success(nil): return nil
            case .success(let found?): order = found
            case .failure(let error): throw trouble.noted(error, "a key was not looked up")
            }
            // No detail of the order is shown: a caller that has not made it learns only that the key is taken.
            guard isSame(order) else { throw APIError(.keyReused) }
            order.requestID = requestID
            if order.status != .pending || !waits { return PlacedOrder(order: order, isReplay: true) }
            // The request that made the order has given up by now, or its server is gone. This request continues its work.
            let isOld = Timestamp.now.microseconds(since: order.updatedAt) > conclusion.deadlines.buyer.microseconds
            if isOld || predecessors.areGone(since: order.updatedAt) {
                return PlacedOrder(order: try await conclusion.drive(order, firstAttempt: 2, buyersDeadline), isReplay: true)
            }
            let wait = Self.backoff.wholeWait(after: looks)
            guard ContinuousClock.now + wait < deadline, (try? await Task.sleep(for: wait)) != nil else {
                throw APIError(.requestInProgress, details: ["orderId": .int(order.id)], retryAfter: .seconds(1))
            }
            looks += 1
        }
    }
}
