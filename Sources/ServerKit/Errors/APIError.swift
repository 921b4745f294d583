/// An error as a caller sees it: a stable code, a message in the caller's language, and details for programs.
public struct APIError: Error, Sendable, Equatable {
    /// The stable code, which also decides the HTTP status.
    public var code: APIErrorCode
    /// The message, before the language is chosen.
    public var message: ErrorMessage
    /// Which field or which state; `null` when there is nothing to add. Fills the message's `{name}`s.
    public var details: JSONValue
    /// When to try again. Sent as `Retry-After`, rounded up to whole seconds; every 503 has one.
    public var retryAfter: Duration?
    /// The methods that are allowed, with ``APIErrorCode/methodNotAllowed``.
    public var allow: [String]

    /// Makes an error. Without a message it has the code's own; a 503 without `retryAfter` says one second.
    public init(
        _ code: APIErrorCode,
        message: ErrorMessage? = nil,
        details: JSONValue = .null,
        retryAfter: Duration? = nil,
        allow: [String] = []
    ) {
        self.code = code
        self.message = message ?? code.defaultMessage
        self.details = details
        self.retryAfter = retryAfter ?? (code.status == 503 ? .seconds(1) : nil)
        self.allow = allow
    }

    // MARK: Invalid input

    /// `VALIDATION_ERROR` naming a field, with whatever else its message mentions.
    public static func invalid(field: String, _ message: ErrorMessage? = nil, _ more: JSONMember...) -> APIError {
        APIError(.validationError, message: message ?? .fieldInvalid, details: .object([JSONMember("field", .string(field))] + more))
    }

    /// `VALIDATION_ERROR`: the field, or header, is missing.
    public static func missing(field: String) -> APIError {
        .invalid(field: field, .fieldMissing)
    }

    /// `VALIDATION_ERROR`: a PATCH that names nothing it could change.
    public static var nothingToChange: APIError { APIError(.validationError, message: .nothingToChange) }

    /// `VALIDATION_ERROR`: the body is not JSON, with where it stops being so.
    public static func malformed(_ error: JSONSyntaxError) -> APIError {
        APIError(
            .validationError,
            message: .malformedJSON,
            details: ["reason": .string(error.reason.rawValue), "offset": .int(Int64(error.offset))]
        )
    }
}
