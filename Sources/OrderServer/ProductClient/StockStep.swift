import APIErrors
import StockContract

extension SagaStep {
    /// Takes the order's stock from the product server. The compensation gives it back.
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
                // This order has not sent the key before, but the key has taken units. So the key belongs to another order, which had the same id.
                case .replayed where attempt == 1: done(.keyTaken(code: "REPLAYED"))
                case .refused(APIErrorCode.keyClosed.rawValue) where attempt == 1: done(.keyTaken(code: APIErrorCode.keyClosed.rawValue))
                // This order sends the same content in every attempt. A key that was used with other content, or long before, belongs to another order.
                case .refused(APIErrorCode.keyReused.rawValue): done(.keyTaken(code: APIErrorCode.keyReused.rawValue))
                case .done, .replayed:
                    soldOut?.sawStock(product: order.productID)
                    done(.done)
                case .refused(APIErrorCode.keyClosed.rawValue):
                    // Only one thing closes the key of an undecided order: an earlier attempt was finally refused for want of stock, and that answer was lost.
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
                // The decrease was closed before it took effect, so there is nothing to give back.
                case .refused(APIErrorCode.keyClosed.rawValue): done(.done)
                case .refused(let code): done(.refused(reason: code))
                case .noAnswer(let cause, let retryAfter): done(.noAnswer(cause: cause, retryAfter: retryAfter))
                }
            }
        }
    }
}
