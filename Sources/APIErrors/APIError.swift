public import StrictJSON

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

    /// `VALIDATION_ERROR`: a PATCH that names nothing it could change, with what it could.
    public static func nothingToChange(known: [String]) -> APIError {
        .invalid(field: "body", .nothingToChange, JSONMember("known", .array(known.map { .string($0) })))
    }

    /// `VALIDATION_ERROR`: the body is not JSON, with where it stops being so, and the name if it is one that an object has twice.
    public static func malformed(_ error: JSONSyntaxError) -> APIError {
        .invalid(
            field: error.name.map(shortened) ?? "body",
            .malformedJSON,
            JSONMember("reason", .string(error.reason.rawValue)),
            JSONMember("offset", .int(Int64(error.offset)))
        )
    }

    /// `VALIDATION_ERROR`: names that a route does not know, the first of them as the field. At most 8 are told.
    package static func unknown(_ names: [String], known: [String], _ message: ErrorMessage) -> APIError {
        let told = names.prefix(8).map(shortened)
        return .invalid(
            field: told.first ?? "",
            message,
            JSONMember("unknown", .array(told.map { .string($0) })),
            JSONMember("known", .array(known.map { .string($0) }))
        )
    }

    /// A name that a caller made up, short enough for an answer: at most 64 characters of it.
    package static func shortened(_ name: String) -> String {
        let scalars = name.unicodeScalars
        guard let end = scalars.index(scalars.startIndex, offsetBy: 65, limitedBy: scalars.endIndex) else { return name }
        return String(scalars[..<scalars.index(before: end)]) + "…"
    }

    /// `PAYLOAD_TOO_LARGE`: the body has more bytes than it may have.
    package static func payloadTooLarge(_ maximumBytes: Int) -> APIError {
        APIError(.payloadTooLarge, details: ["maximumBytes": .int(Int64(maximumBytes))])
    }
}
