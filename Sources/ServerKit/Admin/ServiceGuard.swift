public import APIErrors
public import HotPath
import HTTPTypes
public import Hummingbird
import Logging
import NIOCore

/// Lets services use the routes that are kept for them: with one of `SERVICE_TOKENS` if there are any, from this machine if there are none.
///
/// A pure decision, for the router's middleware and for a hot path in front of the router alike.
public struct ServiceGuard: Sendable {
    private let tokens: AdminTokens

    /// Makes a guard; with ``AdminTokens/none`` it lets in who is on this machine.
    public init(tokens: AdminTokens) {
        self.tokens = tokens
    }

    /// The caller's name: its token's, or `local`.
    /// - Throws: `UNAUTHORIZED` without a token where one is needed; `FORBIDDEN` with a wrong one, from elsewhere, through a proxy, or from a foreign page
    public func caller(_ claims: CallerClaims) throws(APIError) -> String {
        if tokens.isEmpty {
            guard claims.isFromThisMachine, !claims.isFromForeignPage else { throw APIError(.forbidden) }
            return "local"
        }
        return try name(claims.authorization)
    }

    /// Whether a hot path may answer a request itself. Every other request goes to the router, whose middleware refuses it with an error in the contract's
    /// shape, or looks closer at what the request says of proxies and pages.
    public func admits(_ head: RequestHead) -> Bool {
        if !tokens.isEmpty { return (try? name(head.field("authorization"))) != nil }
        return head.isFromLoopback && !head.saysWhereFrom && head.isLocalHost
    }

    /// A page of another origin has no token, and a browser adds none by itself: whoever shows one may come from anywhere.
    private func name(_ authorization: String?) throws(APIError) -> String {
        guard let name = tokens.name(of: try CallerClaims.bearer(authorization).utf8) else { throw APIError(.forbidden) }
        return name
    }
}

/// Puts a ``ServiceGuard`` in front of every route but some that are read by everybody.
///
/// A route that is added later is guarded until it is named here. Requests that no route takes go on, to be answered 404 or 405.
public struct ServiceRouteGuard: RouterMiddleware {
    /// The context that gets the caller's name.
    public typealias Context = ServerRequestContext

    private let services: ServiceGuard
    private let openReads: Set<String>

    /// - Parameter openReads: templates of which GET and HEAD are open to everybody, such as `/products/{id}`
    public init(_ services: ServiceGuard, openReads: Set<String>) {
        self.services = services
        self.openReads = openReads
    }

    /// Answers 401 or 403, or sets the context's actor and goes on.
    public func handle(_ request: Request, context: Context, next: (Request, Context) async throws -> Response) async throws -> Response {
        guard let template = context.endpointPath, !isOpen(template, request.method) else { return try await next(request, context) }
        var context = context
        let name = try services.caller(CallerClaims(request, peer: context.channel.remoteAddress))
        context.actor = name
        context.logger[metadataKey: "actor"] = .string(name)
        return try await next(request, context)
    }

    private func isOpen(_ template: String, _ method: HTTPRequest.Method) -> Bool {
        (method == .get || method == .head) && openReads.contains(template)
    }
}
