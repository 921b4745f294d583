import APIErrors
import Hummingbird
import ServerKit
import StockContract

extension Response {
    /// The answer to a request for a 202 when no broker could carry the order.
    static func asynchronousNotImplemented(_ request: Request) -> Response { APIError(.notImplemented).response(to: request) }
}
