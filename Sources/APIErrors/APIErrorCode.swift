/// A stable code of errors, with the HTTP status that it has and the message for a thrower who has no better one.
///
/// The codes that every server answers with are below; a shop adds its own in an extension.
public struct APIErrorCode: Sendable, Hashable {
    /// The code as callers see it, such as `NOT_FOUND`.
    public let rawValue: String
    /// The HTTP status.
    public let status: Int
    /// The message when the thrower has no better one.
    public let defaultMessage: ErrorMessage

    /// Makes a code. Each one is made in one place.
    public init(_ rawValue: String, status: Int, message: ErrorMessage) {
        self.rawValue = rawValue
        self.status = status
        defaultMessage = message
    }

    /// Two codes are the same if callers see the same one.
    public static func == (one: APIErrorCode, other: APIErrorCode) -> Bool { one.rawValue == other.rawValue }

    /// Hashes what callers see.
    public func hash(into hasher: inout Hasher) { hasher.combine(rawValue) }
}

extension APIErrorCode {
    /// Malformed or out-of-range input.
    public static let validationError = APIErrorCode("VALIDATION_ERROR", status: 400, message: .validation)
    /// Admin without a token.
    public static let unauthorized = APIErrorCode("UNAUTHORIZED", status: 401, message: .unauthorized)
    /// Admin with a wrong token, or from elsewhere.
    public static let forbidden = APIErrorCode("FORBIDDEN", status: 403, message: .forbidden)
    /// No such route or thing.
    public static let notFound = APIErrorCode("NOT_FOUND", status: 404, message: .notFound)
    /// The route has other methods.
    public static let methodNotAllowed = APIErrorCode("METHOD_NOT_ALLOWED", status: 405, message: .methodNotAllowed)
    /// A request whose bytes did not come in time.
    public static let requestTimeout = APIErrorCode("REQUEST_TIMEOUT", status: 408, message: .requestTimeout)
    /// A body above the limit.
    public static let payloadTooLarge = APIErrorCode("PAYLOAD_TOO_LARGE", status: 413, message: .payloadTooLarge)
    /// A body that is not JSON.
    public static let unsupportedMediaType = APIErrorCode("UNSUPPORTED_MEDIA_TYPE", status: 415, message: .unsupportedMediaType)
    /// A fault of the server itself.
    public static let internalError = APIErrorCode("INTERNAL_ERROR", status: 500, message: .internalError)
    /// Too much work queued.
    public static let overloaded = APIErrorCode("OVERLOADED", status: 503, message: .overloaded)
    /// The service cannot work now.
    public static let unavailable = APIErrorCode("UNAVAILABLE", status: 503, message: .unavailable)

    /// All of the above.
    public static let general: [APIErrorCode] = [
        .validationError, .unauthorized, .forbidden, .notFound, .methodNotAllowed, .requestTimeout, .payloadTooLarge, .unsupportedMediaType,
        .internalError, .overloaded, .unavailable,
    ]

    /// The status' standard phrase, which is the title of a problem document.
    package var phrase: String {
        switch status {
        case 400: "Bad Request"
        case 401: "Unauthorized"
        case 403: "Forbidden"
        case 404: "Not Found"
        case 405: "Method Not Allowed"
        case 408: "Request Timeout"
        case 409: "Conflict"
        case 413: "Content Too Large"
        case 415: "Unsupported Media Type"
        case 421: "Misdirected Request"
        case 422: "Unprocessable Content"
        case 424: "Failed Dependency"
        case 501: "Not Implemented"
        case 503: "Service Unavailable"
        default: "Internal Server Error"
        }
    }
}
