import APIErrors
import HotPath
import Logging
import ServerKit
import StockContract
import StrictJSON

/// Finds the order that a buyer's earlier request with the same idempotency key has made.
struct EarlierOrders: Sendable {
    let keys: KeyLookup
    let conclusion: OrderConclusion
    let trouble: StoreTrouble

    /// The order that the draft's key has made for its buyer, in its final state; nil if there is none. Waits for one that is being worked on, unless told not to.
    /// - Throws: `KEY_REUSED`; `REQUEST_IN_PROGRESS` if it is still being worked on at the deadline; ``OrderConclusion/drive(_:firstAttempt:_:)``'s
    func order(of draft: OrderDraft, _ deadline: ContinuousClock.Instant, waits: Bool) async throws(APIError) -> PlacedOrder? {
        guard let key = draft.idempotencyKey else { return nil }
        return try await self.order(key, of: draft.buyerID, draft.requestID?.description, deadline, waits: waits) {
            draft.isSame(as: $0)
        }
    }

    /// The order that a buyer's earlier request with the same key has made, as a repeat of that request would be answered; nil if there is none. For those who cannot make a
    /// draft any more, since what it needs to know has changed or is not to be had.
    /// - Parameter isSame: whether an order is what is asked for again; nil is returned for another
    func repeated(
        key: String,
        buyer: String?,
        requestID: String?,
        waits: Bool,
        _ isSame: (Order) -> Bool
    ) async throws(APIError) -> PlacedOrder? {
        do throws(APIError) {
            return try await self.order(key, of: buyer, requestID, .now + self.conclusion.deadlines.buyer, waits: waits, isSame)
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
        _ isSame: (Order) -> Bool
    ) async throws(APIError) -> PlacedOrder? {
        var wait = Duration.milliseconds(5)
        // Whoever waits is told that the order is under way, which he can use, before his own deadline tells him that nothing is known: a busy machine wakes late.
        let buyersDeadline = deadline
        let deadline = buyersDeadline - min(.milliseconds(250), self.conclusion.deadlines.buyer / 8)
        // Bound: the deadline; the waits double up to 100 ms.
        while true {
            var order: Order
            switch await self.keys.order(key: key, buyer: buyer) {
            case .success(nil): return nil
            case .success(let found?): order = found
            case .failure(let error): throw self.trouble.noted(error, "a key was not looked up")
            }
            // Nothing of the order: whoever has not made it learns that the key is taken, and no more.
            guard isSame(order) else { throw APIError(.keyReused) }
            order.requestID = requestID
            if order.status != .pending || !waits { return PlacedOrder(order: order, isReplay: true) }
            // The order's own request has given up by now, or its server has died: whoever asks goes on with it.
            if Timestamp.now.microseconds(since: order.updatedAt) > self.conclusion.deadlines.buyer.microseconds {
                return PlacedOrder(order: try await self.conclusion.drive(order, firstAttempt: 2, buyersDeadline), isReplay: true)
            }
            guard ContinuousClock.now + wait < deadline, (try? await Task.sleep(for: wait)) != nil else {
                throw APIError(.requestInProgress, details: ["orderId": .int(order.id)], retryAfter: .seconds(1))
            }
            wait = min(wait * 2, .milliseconds(100))
        }
    }
}
