import APIErrors
public import HotPath
import HTTPTypes
public import Hummingbird
import Logging
import NIOCore

/// Lets admins in: with a token if there are tokens, from this machine if there are none.
///
/// What a page of another origin sends is refused either way, reads and streams included. See ``CallerClaims``.
public struct AdminGuard: RouterMiddleware {
    /// The context that gets the actor's name.
    public typealias Context = ServerRequestContext

    /// Routes of the admin port that services use, and the tokens that open these routes beside the admins' own.
    ///
    /// A service then needs no token that opens the whole port.
    public struct Services: Sendable {
        let tokens: AdminTokens
        let templates: Set<String>

        /// - Parameter templates: the routes' templates, such as `/internal/stock/batch`
        public init(tokens: AdminTokens, templates: Set<String>) {
            self.tokens = tokens
            self.templates = templates
        }
    }

    private let tokens: AdminTokens
    private let services: Services?

    /// Makes a guard.
    public init(tokens: AdminTokens, services: Services? = nil) {
        self.tokens = tokens
        self.services = services
    }

    /// Answers 401 or 403, or sets the context's actor and goes on.
    public func handle(_ request: Request, context: Context, next: (Request, Context) async throws -> Response) async throws -> Response {
        var context = context
        let claims = CallerClaims(request, peer: context.channel.remoteAddress)
        let actor = try self.actor(of: claims, template: context.endpointPath)
        context.actor = actor
        context.logger[metadataKey: "actor"] = .string(actor)
        return try await next(request, context)
    }

    func actor(of claims: CallerClaims, template: String? = nil) throws(APIError) -> String {
        if claims.isFromForeignPage { throw APIError(.forbidden) }
        if let services, let template, services.templates.contains(template), claims.authorization != nil,
            let name = services.tokens.name(of: try CallerClaims.bearer(claims.authorization).utf8)
        {
            return name
        }
        if tokens.isEmpty {
            guard claims.isFromThisMachine else { throw APIError(.forbidden) }
            return "local"
        }
        guard let name = tokens.name(of: try CallerClaims.bearer(claims.authorization).utf8) else { throw APIError(.forbidden) }
        return name
    }

    /// Whether a hot path may answer a request of a route itself. Every other request goes to the router, where this guard's middleware refuses it with an
    /// error in the contract's shape, or looks closer at what the request says of proxies and pages.
    /// - Parameter template: the route's template
    public func admits(_ head: RequestHead, template: String) -> Bool {
        guard !head.saysWhereFrom else { return false }
        if let authorization = head.field("authorization") {
            guard let secret = try? CallerClaims.bearer(authorization) else { return false }
            if let services, services.templates.contains(template), services.tokens.name(of: secret.utf8) != nil { return true }
            if tokens.name(of: secret.utf8) != nil { return true }
        }
        return tokens.isEmpty && head.isFromLoopback && head.isLocalHost
    }
}

extension RequestHead {
    /// Whether the host is one of this machine's own names. The address that nearly all callers on this machine use is told without making a text of it.
    var isLocalHost: Bool { isHost("127.0.0.1") || CallerClaims.isLocal(host: host) }
}
