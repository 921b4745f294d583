/// The stable codes of errors, and the only place that says which HTTP status each has.
public enum APIErrorCode: String, Sendable, CaseIterable {
    /// Malformed or out-of-range input.
    case validationError = "VALIDATION_ERROR"
    /// Sold out, or fewer left than asked.
    case insufficientStock = "INSUFFICIENT_STOCK"
    /// A transition that the state does not allow.
    case invalidState = "INVALID_STATE"
    /// Admin without a token.
    case unauthorized = "UNAUTHORIZED"
    /// Admin with a wrong token, or from elsewhere.
    case forbidden = "FORBIDDEN"
    /// No such product.
    case productNotFound = "PRODUCT_NOT_FOUND"
    /// No such order.
    case orderNotFound = "ORDER_NOT_FOUND"
    /// No such route or thing.
    case notFound = "NOT_FOUND"
    /// The route has other methods.
    case methodNotAllowed = "METHOD_NOT_ALLOWED"
    /// A decrease whose key was compensated or finally refused.
    case keyClosed = "KEY_CLOSED"
    /// A request whose bytes did not come in time.
    case requestTimeout = "REQUEST_TIMEOUT"
    /// The same key is being worked on.
    case requestInProgress = "REQUEST_IN_PROGRESS"
    /// A body above the limit.
    case payloadTooLarge = "PAYLOAD_TOO_LARGE"
    /// A body that is not JSON.
    case unsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE"
    /// The same key with another payload.
    case keyReused = "KEY_REUSED"
    /// No answer from a service that this one needs.
    case dependencyFailed = "DEPENDENCY_FAILED"
    /// Too much work queued.
    case overloaded = "OVERLOADED"
    /// A row stayed locked.
    case lockTimeout = "LOCK_TIMEOUT"
    /// The service cannot work now.
    case unavailable = "UNAVAILABLE"
    /// A fault of the server itself.
    case internalError = "INTERNAL_ERROR"

    /// The HTTP status.
    public var status: Int {
        switch self {
        case .validationError, .insufficientStock, .invalidState: 400
        case .unauthorized: 401
        case .forbidden: 403
        case .productNotFound, .orderNotFound, .notFound: 404
        case .methodNotAllowed: 405
        case .requestTimeout: 408
        case .keyClosed, .requestInProgress: 409
        case .payloadTooLarge: 413
        case .unsupportedMediaType: 415
        case .keyReused: 422
        case .dependencyFailed: 424
        case .internalError: 500
        case .overloaded, .lockTimeout, .unavailable: 503
        }
    }

    /// The status' standard phrase, which is the title of a problem document.
    package var phrase: String {
        switch self.status {
        case 400: "Bad Request"
        case 401: "Unauthorized"
        case 403: "Forbidden"
        case 404: "Not Found"
        case 405: "Method Not Allowed"
        case 408: "Request Timeout"
        case 409: "Conflict"
        case 413: "Content Too Large"
        case 415: "Unsupported Media Type"
        case 422: "Unprocessable Content"
        case 424: "Failed Dependency"
        case 503: "Service Unavailable"
        default: "Internal Server Error"
        }
    }

    /// The message when the thrower has no better one.
    public var defaultMessage: ErrorMessage {
        switch self {
        case .validationError: .validation
        case .insufficientStock: .insufficientStock
        case .invalidState: .invalidState
        case .unauthorized: .unauthorized
        case .forbidden: .forbidden
        case .productNotFound: .productNotFound
        case .orderNotFound: .orderNotFound
        case .notFound: .notFound
        case .methodNotAllowed: .methodNotAllowed
        case .keyClosed: .keyClosed
        case .requestTimeout: .requestTimeout
        case .requestInProgress: .requestInProgress
        case .payloadTooLarge: .payloadTooLarge
        case .unsupportedMediaType: .unsupportedMediaType
        case .keyReused: .keyReused
        case .dependencyFailed: .dependencyFailed
        case .overloaded: .overloaded
        case .lockTimeout: .lockTimeout
        case .unavailable: .unavailable
        case .internalError: .internalError
        }
    }
}
