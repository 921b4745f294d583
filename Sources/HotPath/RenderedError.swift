public import APIErrors
package import HTTPTypes
import StrictJSON

/// An error ready to be sent by any HTTP server.
public struct RenderedError: Sendable, Equatable {
    /// The HTTP status.
    public let status: Int
    /// `application/json` or `application/problem+json`.
    public let contentType: String
    /// The language of the message.
    public let language: Language
    /// The value of `Retry-After` in seconds, if the error has one.
    public let retryAfterSeconds: Int?
    /// The value of `Allow`, if the error has one.
    public let allow: String?
    /// Whether `WWW-Authenticate: Bearer` belongs to it.
    public let asksForToken: Bool
    /// The body.
    public let body: [UInt8]
}

extension APIError {
    /// The error as bytes, for a handler that has no router above it.
    /// - Parameters:
    ///   - accept: the value of the request's `Accept`
    ///   - language: the language of the message, see ``Language/negotiated(_:)``
    public func render(accept: String?, language: Language) -> RenderedError {
        self.render(format: .negotiated(accept), language: language)
    }

    /// The error as bytes in the given shape.
    public func render(format: ErrorFormat, language: Language) -> RenderedError {
        let text = message.text(language, details: details)
        var json = JSONWriter(capacity: 192)
        json.object { json in
            switch format {
            case .json:
                json.member("error", code.rawValue)
                json.member("message", text)
            case .problem:
                // RFC 9457: with about:blank the title is the status' phrase, and the code is a member of our own.
                json.member("type", "about:blank")
                json.member("title", code.phrase)
                json.member("status", code.status)
                json.member("detail", text)
                json.member("error", code.rawValue)
            }
            json.member("details", details)
        }
        return RenderedError(
            status: code.status,
            contentType: format == .json ? "application/json" : "application/problem+json",
            language: language,
            retryAfterSeconds: retryAfter.map(APIError.wholeSeconds),
            allow: allow.isEmpty ? nil : allow.joined(separator: ", "),
            asksForToken: code == .unauthorized,
            body: json.bytes
        )
    }

    /// At least one second, part seconds rounded up: the header has whole seconds, and 0 would invite a busy loop.
    private static func wholeSeconds(_ duration: Duration) -> Int {
        let (seconds, attoseconds) = duration.components
        return max(1, Int(clamping: seconds) + (attoseconds > 0 ? 1 : 0))
    }
}

extension RenderedError {
    /// The headers that go with the body.
    package var headerFields: HTTPFields {
        var headers = HTTPFields()
        headers[.contentType] = contentType
        headers[.contentLanguage] = language.rawValue
        headers[.vary] = "Accept, Accept-Language"
        headers[.cacheControl] = "no-store"
        if let retryAfterSeconds { headers[.retryAfter] = String(retryAfterSeconds) }
        if let allow { headers[.allow] = allow }
        if asksForToken { headers[.wwwAuthenticate] = "Bearer" }
        return headers
    }
}

extension RenderedError {
    /// ``headerFields`` as lines with their ends. Most errors have the same ones: those are made once.
    package var headerLines: String {
        guard retryAfterSeconds == nil, allow == nil, !asksForToken else { return RenderedError.lines(headerFields) }
        let isJSON = contentType == "application/json"
        return switch language {
        case .english: isJSON ? RenderedError.english : RenderedError.englishProblem
        case .korean: isJSON ? RenderedError.korean : RenderedError.koreanProblem
        }
    }

    private static let english = plainLines(.json, .english)
    private static let englishProblem = plainLines(.problem, .english)
    private static let korean = plainLines(.json, .korean)
    private static let koreanProblem = plainLines(.problem, .korean)

    private static func plainLines(_ format: ErrorFormat, _ language: Language) -> String {
        lines(APIError(.notFound).render(format: format, language: language).headerFields)
    }

    private static func lines(_ fields: HTTPFields) -> String {
        var lines = ""
        for field in fields { lines.addLine(field.name, field.value) }
        return lines
    }
}

extension String {
    /// Adds a header field. Line ends in a value are dropped, because each would begin a line of its own.
    mutating func addLine(_ name: HTTPField.Name, _ value: String) {
        self += name.rawName
        self += ": "
        self += value.utf8.contains(where: { $0 < 0x20 }) ? value.filter { $0.isASCII && !$0.isNewline } : value
        self += "\r\n"
    }
}
