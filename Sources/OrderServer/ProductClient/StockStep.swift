import APIErrors
import StockContract

extension SagaStep {
    /// Takes the order's stock from the product server; gives it back as compensation.
    static func stock(_ calls: any StockCalls, soldOut: SoldOutProducts? = nil) -> SagaStep {
        SagaStep(name: "STOCK") { order, attempt, done in
            let change = StockChange(
                direction: .out,
                productID: order.productID,
                orderID: order.id,
                quantity: order.quantity,
                key: order.decreaseKey,
                attempt: attempt,
                requestID: order.requestID,
                since: order.createdAt
            )
            calls.send(change) { answer in
                switch answer {
                // This key has not been sent before, and has taken units: another order's, whose id came round again.
                case .replayed where attempt == 1: done(.keyTaken(code: "REPLAYED"))
                case .refused(APIErrorCode.keyClosed.rawValue) where attempt == 1: done(.keyTaken(code: APIErrorCode.keyClosed.rawValue))
                // What a repeat of this order sends is what its first attempt has sent: whoever sent something else, or long before, was another order.
                case .refused(APIErrorCode.keyReused.rawValue): done(.keyTaken(code: APIErrorCode.keyReused.rawValue))
                case .done, .replayed:
                    soldOut?.sawStock(product: order.productID)
                    done(.done)
                case .refused(APIErrorCode.keyClosed.rawValue):
                    // The key of an order that is still undecided is closed by one thing only: an earlier attempt's final *no* for want of stock, whose
                    // answer was lost.
                    done(.refused(reason: APIErrorCode.insufficientStock.rawValue))
                case .refused(let code):
                    if code == APIErrorCode.insufficientStock.rawValue {
                        soldOut?.sawRefusal(product: order.productID, quantity: order.quantity)
                    }
                    done(.refused(reason: code))
                case .noAnswer(let cause, let retryAfter):
                    soldOut?.sawNothing(product: order.productID)
                    done(.noAnswer(cause: cause, retryAfter: retryAfter))
                }
            }
        } startCompensating: { order, attempt, done in
            let change = StockChange(
                direction: .in,
                productID: order.productID,
                orderID: order.id,
                quantity: order.quantity,
                key: order.increaseKey,
                attempt: attempt,
                requestID: order.requestID
            )
            calls.send(change) { answer in
                switch answer {
                case .done, .replayed: done(.done)
                // The decrease was closed before it took effect: nothing is to be given back.
                case .refused(APIErrorCode.keyClosed.rawValue): done(.done)
                case .refused(let code): done(.refused(reason: code))
                case .noAnswer(let cause, let retryAfter): done(.noAnswer(cause: cause, retryAfter: retryAfter))
                }
            }
        }
    }
}
