package import APIErrors

/// The shop's own error codes, each with the HTTP status that it has over HTTP. `APIErrors` has those that any server answers with.
extension APIErrorCode {
    /// Sold out, or fewer left than asked.
    package static let insufficientStock = APIErrorCode("INSUFFICIENT_STOCK", status: 400, message: .insufficientStock)
    /// A transition that the state does not allow.
    package static let invalidState = APIErrorCode("INVALID_STATE", status: 400, message: .invalidState)
    /// No such product.
    package static let productNotFound = APIErrorCode("PRODUCT_NOT_FOUND", status: 404, message: .productNotFound)
    /// No such order.
    package static let orderNotFound = APIErrorCode("ORDER_NOT_FOUND", status: 404, message: .orderNotFound)
    /// A decrease whose key was compensated or finally refused.
    package static let keyClosed = APIErrorCode("KEY_CLOSED", status: 409, message: .keyClosed)
    /// The same key is being worked on.
    package static let requestInProgress = APIErrorCode("REQUEST_IN_PROGRESS", status: 409, message: .requestInProgress)
    /// Another cell has the product. Nothing was decided.
    package static let misdirected = APIErrorCode("MISDIRECTED", status: 421, message: .misdirected)
    /// The same key with another payload.
    package static let keyReused = APIErrorCode("KEY_REUSED", status: 422, message: .keyReused)
    /// No answer from a service that this one needs.
    package static let dependencyFailed = APIErrorCode("DEPENDENCY_FAILED", status: 424, message: .dependencyFailed)
    /// Orders over the broker where there is no broker.
    package static let notImplemented = APIErrorCode("NOT_IMPLEMENTED", status: 501, message: .notImplemented)
    /// A row stayed locked.
    package static let lockTimeout = APIErrorCode("LOCK_TIMEOUT", status: 503, message: .lockTimeout)

    package static let shop: [APIErrorCode] = [
        .insufficientStock, .invalidState, .productNotFound, .orderNotFound, .keyClosed, .requestInProgress, .misdirected, .keyReused,
        .dependencyFailed,
        .notImplemented, .lockTimeout,
    ]

    /// Whether a code that came with a status of 400 to 499 decides about a change of stock. Any other, such as that of a proxy's 404, decides nothing.
    package static func isDecision(_ code: String) -> Bool { decisions.contains(code) }

    private static let decisions: Set<String> = Set(
        [
            APIErrorCode.insufficientStock, .productNotFound, .invalidState, .validationError, .keyClosed, .keyReused,
        ].map(\.rawValue)
    )
}

extension ErrorMessage {
    static let insufficientStock = ErrorMessage(en: "There is not enough stock.", ko: "재고가 부족합니다.")
    static let invalidState = ErrorMessage(
        en: "The current state does not allow this.",
        ko: "현재 상태에서는 처리할 수 없습니다."
    )
    static let productNotFound = ErrorMessage(en: "There is no such product.", ko: "상품을 찾을 수 없습니다.")
    static let orderNotFound = ErrorMessage(en: "There is no such order.", ko: "주문을 찾을 수 없습니다.")
    static let keyClosed = ErrorMessage(
        en: "This key was compensated or finally refused before and can never be committed.",
        ko: "이미 보상되었거나 최종 거절된 키이므로 다시 처리할 수 없습니다."
    )
    static let requestInProgress = ErrorMessage(
        en: "A request with the same key is still being worked on.",
        ko: "같은 키의 요청을 아직 처리하고 있습니다."
    )
    static let misdirected = ErrorMessage(
        en: "Other servers have this product. Nothing was decided.",
        ko: "다른 서버가 담당하는 상품입니다. 처리된 것은 없습니다."
    )
    static let keyReused = ErrorMessage(
        en: "The key was used before with another payload.",
        ko: "같은 키가 다른 내용으로 이미 사용되었습니다."
    )
    static let dependencyFailed = ErrorMessage(
        en: "A service that this one needs gave no answer.",
        ko: "필요한 서비스가 응답하지 않았습니다."
    )
    static let lockTimeout = ErrorMessage(
        en: "The stock is busy. Try again with the same key.",
        ko: "재고가 사용 중입니다. 같은 키로 다시 시도해 주세요."
    )
    static let notImplemented = ErrorMessage(
        en: "Orders over the broker are not available. Send the request without Prefer: respond-async to /orders.",
        ko: "브로커를 통한 주문은 아직 제공되지 않습니다. Prefer: respond-async 없이 /orders로 요청해 주세요."
    )
}
