import NIOCore
import NIOHTTP1

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

/// A server's address with the path in front of every request to it.
public struct HTTPEndpoint: Sendable {
    /// Host and port as the `Host` header has them.
    public let authority: String
    /// Where to connect, resolved once.
    public let address: SocketAddress
    /// What precedes every path, without a closing slash.
    public let prefix: String

    /// Reads `http://host:port` with an optional path.
    /// - Throws: `PlanError` for anything but plain HTTP, and for a name that does not resolve.
    public init(_ url: String) throws(PlanError) {
        guard url.hasPrefix("http://") else { throw PlanError("'\(url)' is no http:// address") }
        let rest = url.dropFirst("http://".count)
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        let authority = rest[..<slash]
        let parts = authority.split(separator: ":", omittingEmptySubsequences: false)
        let number = parts.count == 2 ? Int(parts[1]) : 80
        guard let host = parts.first, !host.isEmpty, parts.count <= 2, let port = number, (1...65535).contains(port) else {
            throw PlanError("'\(url)' has no host and port")
        }
        do {
            address = try SocketAddress.makeAddressResolvingHost(String(host), port: port)
        } catch {
            throw PlanError("'\(url)' does not resolve: \(error)")
        }
        self.authority = String(authority)
        var prefix = String(rest[slash...])
        while prefix.hasSuffix("/") { prefix.removeLast() }
        self.prefix = prefix
    }
}
