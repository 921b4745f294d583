import APIErrors
public import Hummingbird

/// What the HTTP reader gives requests to: brings a request's target into its one spelling and lets the router have it.
public struct ServerResponder: HTTPResponder {
    /// The context of every request.
    public typealias Context = ServerRequestContext

    let router: RouterResponder<Context>
    /// Has the router's middleware and no route: a request whose target cannot be read is counted, logged and refused as any other.
    let refusal: RouterResponder<Context>

    /// Answers a request.
    public func respond(to request: Request, context: Context) async throws -> Response {
        let given = request.head.path ?? ""
        let target: String
        do throws(APIError) {
            target = try RequestTarget(given).text
        } catch {
            var context = context
            context.targetFault = error
            return try await refusal.respond(to: request, context: context)
        }
        if target == given { return try await router.respond(to: request, context: context) }
        var head = request.head
        head.path = target
        return try await router.respond(to: Request(head: head, body: request.body), context: context)
    }
}

/// Stands last where there is no route: throws what is wrong with the request's target.
struct TargetRefusal: RouterMiddleware {
    func handle(
        _ request: Request,
        context: ServerRequestContext,
        next: (Request, ServerRequestContext) async throws -> Response
    ) async throws -> Response {
        throw context.targetFault ?? APIError(.notFound)
    }
}

/// Stands directly in front of a route's handler, behind all middleware: refuses query parameters that the route does not know, and decodes what its path names.
struct RouteEntrance<Route: HTTPResponder<ServerRequestContext>>: HTTPResponder {
    let query: [String]
    let route: Route

    func respond(to request: Request, context: ServerRequestContext) async throws -> Response {
        if let query = request.uri.query { try QueryParameters(query).check(known: self.query) }
        // The target's segments are in their one spelling here, so each is decoded exactly once, and decoding does not fail.
        guard context.parameters.contains(where: { $0.value.utf8.contains(UInt8(ascii: "%")) }) else {
            return try await route.respond(to: request, context: context)
        }
        var context = context
        context.coreContext.parameters = Parameters(
            try context.parameters.map { name, value in (name, try Values.decoded(value.utf8, field: String(name), plusIsSpace: false)[...])
            }
        )
        return try await route.respond(to: request, context: context)
    }
}
