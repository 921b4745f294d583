public import NIOCore

/// A whole answer.
public struct HTTPAnswer: Sendable {
    /// The status code, such as 200.
    public let status: Int
    /// `Retry-After` in whole seconds, where the server sent one.
    public let retryAfter: Duration?
    /// The body, bounded by the connection's limit.
    public let body: ByteBuffer
}

/// Why there is no answer. Whether the server acted on the request is unknown in all cases but `connect`.
public enum HTTPFailure: Error, Equatable, Sendable, CustomStringConvertible {
    /// No connection could be made; nothing was sent.
    case connect(String)
    /// The deadline passed first.
    case timedOut
    /// The connection ended before the answer did.
    case closed
    /// The bytes are no HTTP.
    case malformed(String)
    /// The body is larger than the limit.
    case tooLarge

    /// The failure in words.
    public var description: String {
        switch self {
        case .connect(let why): "cannot connect: \(why)"
        case .timedOut: "no answer in time"
        case .closed: "connection closed before the answer"
        case .malformed(let why): "no HTTP answer: \(why)"
        case .tooLarge: "answer too large"
        }
    }
}
