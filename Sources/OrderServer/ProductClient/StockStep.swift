extension SagaStep {
    /// Takes the order's stock from the product server; gives it back as compensation.
    static func stock(_ calls: any StockCalls, soldOut: SoldOutMemory? = nil) -> SagaStep {
        SagaStep(name: "STOCK") { order, attempt in
            let answer = await calls.send(
                StockChange(
                    direction: .out,
                    productID: order.productID,
                    orderID: order.id,
                    quantity: order.quantity,
                    key: order.decreaseKey,
                    attempt: attempt
                )
            )
            switch answer {
            case .done:
                soldOut?.sawStock(product: order.productID)
                return .done
            case .refused("KEY_CLOSED") where attempt > 1:
                // The key of an order that is still undecided is closed by one thing only: an earlier attempt's final *no* for want of stock, whose
                // answer was lost.
                return .refused(reason: "INSUFFICIENT_STOCK")
            case .refused(let code):
                if code == "INSUFFICIENT_STOCK" { soldOut?.sawRefusal(product: order.productID, quantity: order.quantity) }
                return .refused(reason: code)
            case .noAnswer(let cause, let retryAfter):
                soldOut?.sawNothing(product: order.productID)
                return .noAnswer(cause: cause, retryAfter: retryAfter)
            }
        } compensate: { order, attempt in
            let answer = await calls.send(
                StockChange(
                    direction: .in,
                    productID: order.productID,
                    orderID: order.id,
                    quantity: order.quantity,
                    key: order.increaseKey,
                    attempt: attempt
                )
            )
            switch answer {
            case .done: return .done
            // The decrease was closed before it took effect: nothing is to be given back.
            case .refused("KEY_CLOSED"): return .done
            case .refused(let code): return .refused(reason: code)
            case .noAnswer(let cause, let retryAfter): return .noAnswer(cause: cause, retryAfter: retryAfter)
            }
        }
    }
}
