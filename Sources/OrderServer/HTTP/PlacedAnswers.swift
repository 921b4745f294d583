// The HTTP answers to placing or cancelling an order, for the router and for the hot path in front of it.

import APIErrors
import HotPath
import HTTPTypes
import Hummingbird
import ServerKit
import StockContract
import StrictJSON

extension APIError {
    /// The error for too little stock.
    /// - Parameter order: the FAILED order that was made for the request, if there is one
    static func soldOut(product: Int64, order: Int64? = nil) -> APIError {
        guard let order else { return APIError(.insufficientStock, details: ["productId": .int(product)]) }
        return APIError(.insufficientStock, details: ["productId": .int(product), "orderId": .int(order)])
    }

    /// The error for a cancellation whose stock the product server refuses for good to take back. It has no `Retry-After`, because asking again changes
    /// nothing.
    /// - Parameter cause: the code of the refusal
    static func cancelRefused(order: Int64, cause: String) -> APIError {
        APIError(
            .dependencyFailed,
            message: ErrorMessage(
                en: "The stock of order {orderId} cannot be taken back: {cause}. The order stays {status}.",
                ko: "주문 {orderId}의 재고를 되돌릴 수 없습니다: {cause}. 주문은 {status} 상태로 남습니다."
            ),
            details: [
                "orderId": .int(order), "status": .string(OrderStatus.confirmed.rawValue), "cause": .string(cause), "final": true,
            ]
        )
    }
}

extension PlacedOrder {
    /// The error that the caller gets instead of the order; nil if the caller gets the order. Too little stock is an error, however it was found out, and names
    /// the FAILED order.
    ///
    /// A repeat of a request that was answered 202 gets the order as it is now instead, because the caller was promised no more than that.
    func refusal(isAsynchronous: Bool = false) -> APIError? {
        guard order.status == .failed, order.failReason == APIErrorCode.insufficientStock.rawValue,
            !(isAsynchronous && order.wentOverBroker)
        else { return nil }
        return .soldOut(product: order.productID, order: order.id)
    }
}

extension Response {
    /// The answer for an order that was waited for: the order or its error, and whether it is a replay.
    static func placed(
        _ placed: PlacedOrder,
        _ status: HTTPResponse.Status = .ok,
        to request: Request,
        _ write: (Order, inout JSONWriter) -> Void = { $0.write(to: &$1) }
    ) -> Response {
        if let refusal = placed.refusal() { return .refused(refusal, placed, to: request) }
        return .json(status, headers: placed.isReplay ? [.idempotencyReplayed: "true"] : [:]) { write(placed.order, &$0) }
    }

    /// The answer for an order that goes over the broker: 202 while it is PENDING, 200 if a replay finds its final state.
    static func accepted(
        _ placed: PlacedOrder,
        to request: Request,
        _ write: (Order, inout JSONWriter) -> Void = { $0.write(to: &$1) }
    ) -> Response {
        if let refusal = placed.refusal(isAsynchronous: true) { return .refused(refusal, placed, to: request) }
        var headers: HTTPFields = placed.isReplay ? [.idempotencyReplayed: "true"] : [:]
        headers[.location] = "/orders/\(placed.order.id)"
        let isPending = placed.order.status == .pending
        if isPending { headers[.preferenceApplied] = "respond-async" }
        return .json(isPending ? .accepted : .ok, headers: headers) { write(placed.order, &$0) }
    }

    private static func refused(_ refusal: APIError, _ placed: PlacedOrder, to request: Request) -> Response {
        var response = refusal.response(to: request)
        if placed.isReplay { response.headers[.idempotencyReplayed] = "true" }
        return response
    }
}

extension HotPathAnswer {
    /// The same answers in the form of the hot path.
    init(_ result: Result<PlacedOrder, APIError>, isAsynchronous: Bool, to head: RequestHead) {
        switch result {
        case .success(let placed):
            if let refusal = placed.refusal(isAsynchronous: isAsynchronous) {
                self.init(refusal, to: head)
                if placed.isReplay { add(.idempotencyReplayed, "true") }
                return
            }
            var json = JSONWriter(capacity: 224)
            placed.order.write(to: &json)
            let isAccepted = isAsynchronous && placed.order.status == .pending
            self.init(status: isAccepted ? .accepted : .ok, json: json.bytes)
            if placed.isReplay { add(.idempotencyReplayed, "true") }
            if isAsynchronous { add(.location, "/orders/\(placed.order.id)") }
            if isAccepted { add(.preferenceApplied, "respond-async") }
        case .failure(let error): self.init(error, to: head)
        }
    }
}

extension HTTPField.Name {
    /// `Preference-Applied` (RFC 7240)
    static let preferenceApplied: HTTPField.Name = {
        guard let name = HTTPField.Name("Preference-Applied") else { preconditionFailure("no field name") }
        return name
    }()
}
