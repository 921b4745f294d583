import StockContract

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
