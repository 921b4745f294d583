// What came of placing or cancelling an order, in HTTP: the same for the router and for the hot path in front of it.

import APIErrors
import HotPath
import HTTPTypes
import Hummingbird
import ServerKit
import StockContract
import StrictJSON

extension APIError {
    /// There was too little stock.
    /// - Parameter order: the FAILED order that was made for the request, if one was
    static func soldOut(product: Int64, order: Int64? = nil) -> APIError {
        guard let order else { return APIError(.insufficientStock, details: ["productId": .int(product)]) }
        return APIError(.insufficientStock, details: ["productId": .int(product), "orderId": .int(order)])
    }

    /// The product server has refused for good to take the order's stock back. Asking again changes nothing, so nothing says when to.
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
    /// The error that the caller gets instead of the order; nil for the order. Too little stock is an error, by whatever way it was found out, and names the FAILED order.
    ///
    /// A repeat of a request that was answered 202 is told what has become of its order instead: it was promised that and no more.
    func refusal(isAsynchronous: Bool = false) -> APIError? {
        guard self.order.status == .failed, self.order.failReason == APIErrorCode.insufficientStock.rawValue,
            !(isAsynchronous && self.order.wentOverBroker)
        else { return nil }
        return .soldOut(product: self.order.productID, order: self.order.id)
    }
}

extension Response {
    /// What came of an order that was waited for: the order, or the error that stands for it, and whether it is a replay.
    static func placed(
        _ placed: PlacedOrder,
        _ status: HTTPResponse.Status = .ok,
        to request: Request,
        _ write: (Order, inout JSONWriter) -> Void = { $0.write(to: &$1) }
    ) -> Response {
        if let refusal = placed.refusal() { return .refused(refusal, placed, to: request) }
        return .json(status, headers: placed.isReplay ? [.idempotencyReplayed: "true"] : [:]) { write(placed.order, &$0) }
    }

    /// What came of an order that goes over the broker: 202 while it is PENDING, 200 when a replay finds its final state.
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
    /// The same for the hot path.
    init(_ result: Result<PlacedOrder, APIError>, isAsynchronous: Bool, to head: HotRequestHead) {
        switch result {
        case .success(let placed):
            if let refusal = placed.refusal(isAsynchronous: isAsynchronous) {
                self.init(refusal, to: head)
                if placed.isReplay { self.add(.idempotencyReplayed, "true") }
                return
            }
            var json = JSONWriter(capacity: 224)
            placed.order.write(to: &json)
            let isAccepted = isAsynchronous && placed.order.status == .pending
            self.init(status: isAccepted ? .accepted : .ok, json: json.bytes)
            if placed.isReplay { self.add(.idempotencyReplayed, "true") }
            if isAsynchronous { self.add(.location, "/orders/\(placed.order.id)") }
            if isAccepted { self.add(.preferenceApplied, "respond-async") }
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
