import StockContract

/// The meaning of a result that did not change its order.
enum ResultJudgement: Sendable, Equatable {
    /// This database does not have the order.
    case unexpected
    /// The order is in that state already.
    case duplicate
    /// The order is in another state, and keeps it.
    case kept
    /// Stock was taken for a run of the order that has failed. It must be given back.
    case lateSuccess(Order)
    /// The order waits for this very result. It was not written for another reason, and should be tried again.
    case again

    init(_ result: OrderStockResult, _ order: Order?) {
        guard let order else {
            self = .unexpected
            return
        }
        guard order.run == result.run else {
            // The order's earlier runs have failed, because a run begins only after that. But if the order took another key, the key before belongs to another
            // order, which owns the units.
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
