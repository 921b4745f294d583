import HTTPTypes
import Hummingbird
import NIOCore

/// Lets admins in: with a token if there are tokens, from this machine if there are none.
///
/// Without tokens a browser on this machine must not become somebody else's hand. So a request that came through a proxy, or
/// names another host than this machine, or a page of another origin sent, is refused too.
public struct AdminGuard: RouterMiddleware {
    /// The context that gets the actor's name.
    public typealias Context = ServerRequestContext

    private let tokens: AdminTokens

    /// Makes a guard.
    public init(tokens: AdminTokens) {
        self.tokens = tokens
    }

    /// Answers 401 or 403, or sets the context's actor and goes on.
    public func handle(_ request: Request, context: Context, next: (Request, Context) async throws -> Response) async throws -> Response {
        var context = context
        let actor = try self.actor(of: request, peer: context.channel.remoteAddress)
        context.actor = actor
        context.logger[metadataKey: "actor"] = .string(actor)
        return try await next(request, context)
    }

    func actor(of request: Request, peer: SocketAddress?) throws(APIError) -> String {
        if self.tokens.isEmpty {
            guard let peer, peer.isLoopback, AdminGuard.isLocal(request) else { throw APIError(.forbidden) }
            return "local"
        }
        guard let authorization = request.headers[.authorization] else { throw APIError(.unauthorized) }
        let parts = authorization.utf8.split(separator: UInt8(ascii: " "), maxSplits: 1)
        guard parts.count == 2, String(parts[0])?.lowercased() == "bearer" else { throw APIError(.unauthorized) }
        guard let name = self.tokens.name(of: parts[1]) else { throw APIError(.forbidden) }
        return name
    }

    private static func isLocal(_ request: Request) -> Bool {
        for name in ["x-forwarded-for", "forwarded"] {
            if let name = HTTPField.Name(name), request.headers[name] != nil { return false }
        }
        if let authority = request.head.authority, !self.isLocal(host: authority[...]) { return false }
        if let origin = request.headers[.origin], let scheme = origin.firstRange(of: "://"),
            origin[scheme.upperBound...] != (request.head.authority ?? "")[...]
        {
            return false
        }
        // A page whose origin is hidden sends the word null.
        return request.headers[.origin] != "null"
    }

    /// `localhost`, `127.….….…` or `[::1]`, with or without a port.
    private static func isLocal(host: Substring) -> Bool {
        if host.hasPrefix("[::1]") { return true }
        let name = host.prefix { $0 != ":" }
        if name.lowercased() == "localhost" { return true }
        return name.hasPrefix("127.") && name.utf8.allSatisfy { (0x30...0x39).contains($0) || $0 == UInt8(ascii: ".") }
    }
}

extension SocketAddress {
    /// Whether the peer is on this machine: 127.0.0.0/8, ::1, its IPv4-mapped form, or a unix socket.
    var isLoopback: Bool {
        switch self {
        case .unixDomainSocket: return true
        case .v4: return self.ipAddress?.hasPrefix("127.") ?? false
        case .v6: return self.ipAddress == "::1" || (self.ipAddress?.lowercased().hasPrefix("::ffff:127.") ?? false)
        }
    }
}
