package import APIErrors
import StrictJSON

/// Why a server refuses a request before any route has seen it. The connection ends after every refusal, because the place where the next request begins is
/// unsure.
package enum RequestRefusal: String, Sendable, CaseIterable, Error {
    /// The request line is not `METHOD SP target SP HTTP/1.x CRLF`.
    case requestLine
    /// A version other than HTTP/1.0 and HTTP/1.1.
    case version
    /// A request target that is neither a path, an absolute http address nor the `*` of OPTIONS.
    case target
    /// `CONNECT`, which asks for a tunnel.
    case connect
    /// A field line that RFC 9112, 5 does not allow: no colon, a space before it, a folded line, a bare line end, a control character.
    case field
    /// More fields, or longer ones, than the limits.
    case headTooLarge
    /// `Host` is missing, given twice or malformed (RFC 9112, 3.2).
    case host
    /// A `Content-Length` that is no number, or is given twice.
    case contentLength
    /// A transfer coding other than `chunked` alone.
    case transferEncoding
    /// `Content-Length` beside `Transfer-Encoding` (RFC 9112, 6.1).
    case twoLengths
    /// A chunk that is not as RFC 9112, 7.1 says.
    case chunk
    /// The body is larger than the port's limit.
    case bodyTooLarge
    /// The client ended its half of the connection in the middle of a request.
    case truncated
    /// The request did not come within its time.
    case timeout
    /// The server has as many connections as it may, and keeps this one only for what must always be answered.
    case full

    /// The error that the client is told.
    /// - Parameter maximumBodyBytes: the route's limit
    package func error(maximumBodyBytes: Int) -> APIError {
        switch self {
        case .bodyTooLarge: .payloadTooLarge(maximumBodyBytes)
        case .connect: APIError(.methodNotAllowed, allow: ["GET", "HEAD", "POST", "PATCH", "DELETE"])
        case .timeout: APIError(.requestTimeout)
        case .full: APIError(.overloaded)
        case .host: .invalid(field: "Host")
        case .contentLength: .invalid(field: "Content-Length")
        case .transferEncoding: .invalid(field: "Transfer-Encoding")
        case .requestLine, .version, .target, .field, .headTooLarge, .twoLengths, .chunk, .truncated:
            APIError(.validationError, message: .malformedRequest, details: ["reason": .string(rawValue)])
        }
    }
}
