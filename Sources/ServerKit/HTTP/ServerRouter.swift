public import HTTPTypes
public import Hummingbird

/// Hummingbird's router with what every route of both servers has: one spelling of a path, declared query parameters, request ids, figures, and errors in
/// the one shape.
///
/// Routes are collected and handed to Hummingbird when the responder is built, because the middleware that stands first
/// must know all of them: their templates are the metrics' labels, their methods the `Allow` of a 405. HEAD is answered
/// wherever GET is.
public final class ServerRouter: RouterMethods, HTTPResponderBuilder {
    /// The context of every request.
    public typealias Context = ServerRequestContext

    private enum Step {
        case route((Router<Context>) -> Void)
        case middleware(any MiddlewareProtocol<Request, Response, Context>)
    }

    private let metrics: HTTPMetrics
    private var steps: [Step] = []
    /// Every route in the order of its registration.
    public private(set) var routes: [ServerRoute] = []

    /// Makes a router whose requests are counted in `metrics`.
    public init(metrics: HTTPMetrics) {
        self.metrics = metrics
    }

    /// Adds a route that takes no query parameter.
    @discardableResult
    public func on<Responder: HTTPResponder>(_ path: RouterPath, method: HTTPRequest.Method, responder: Responder) -> Self
    where Responder.Context == Context {
        self.on(path, method: method, query: [], responder: responder)
    }

    /// Adds a route.
    /// - Parameter query: the query parameters that it knows; a request with another one is refused
    private func on<Responder: HTTPResponder>(_ path: RouterPath, method: HTTPRequest.Method, query: [String], responder: Responder) -> Self
    where Responder.Context == Context {
        routes.append(ServerRoute(path: path, method: method, query: query))
        let entrance = RouteEntrance(query: query, route: responder)
        steps.append(.route { $0.on(path, method: method, responder: entrance) })
        return self
    }

    /// Adds a route with the query parameters that it knows. A request with another one, or with one of them twice, is a `VALIDATION_ERROR`.
    @discardableResult
    public func on(
        _ path: RouterPath,
        method: HTTPRequest.Method,
        query: [String],
        use handler: @Sendable @escaping (Request, Context) async throws -> some ResponseGenerator
    ) -> Self {
        self.on(
            path,
            method: method,
            query: query,
            responder: CallbackResponder { request, context in
                try (try await handler(request, context)).response(from: request, context: context)
            }
        )
    }

    /// Adds a GET route with the query parameters that it knows.
    @discardableResult
    public func get(
        _ path: RouterPath,
        query: [String],
        use handler: @Sendable @escaping (Request, Context) async throws -> some ResponseGenerator
    ) -> Self {
        on(path, method: .get, query: query, use: handler)
    }

    /// Adds a route under its path and under `/v1` before it, with the query parameters that it knows.
    public func versioned(
        _ method: HTTPRequest.Method,
        _ path: String,
        query: [String] = [],
        use handler: @Sendable @escaping (Request, Context) async throws -> some ResponseGenerator
    ) {
        on(RouterPath(path), method: method, query: query, use: handler)
        on(RouterPath("/v1" + path), method: method, query: query, use: handler)
    }

    /// Adds a middleware, which works on the routes added after it and on requests that no route takes.
    @discardableResult
    public func add(middleware: any MiddlewareProtocol<Request, Response, Context>) -> Self {
        steps.append(.middleware(middleware))
        return self
    }

    /// Builds the responder.
    public func buildResponder() -> ServerResponder {
        let router = Router(context: Context.self, options: .autoGenerateHeadEndpoints)
        let refusal = Router(context: Context.self)
        let table = RouteTable(routes: routes, metrics: metrics)
        for router in [router, refusal] {
            router.add(middleware: RequestObservation(table: table))
            router.add(middleware: ErrorShaping(table: table))
        }
        for step in steps {
            switch step {
            case .route(let add): add(router)
            case .middleware(let middleware):
                router.add(middleware: middleware)
                refusal.add(middleware: middleware)
            }
        }
        refusal.add(middleware: TargetRefusal())
        return ServerResponder(router: router.buildResponder(), refusal: refusal.buildResponder())
    }
}

/// One route: what a request's path and method must look like.
public struct ServerRoute: Sendable {
    /// The template, such as `/products/{id}`.
    public let path: RouterPath
    /// The method.
    public let method: HTTPRequest.Method
    /// The query parameters that it knows.
    public let query: [String]
}

/// Every route, once all are known.
final class RouteTable: Sendable {
    struct Key: Hashable {
        var template: String
        var method: HTTPRequest.Method
    }

    private let routes: [ServerRoute]
    private let table: [Key: RouteMetrics]
    private let unmatched: RouteMetrics

    init(routes: [ServerRoute], metrics: HTTPMetrics) {
        self.routes = routes
        var table: [Key: RouteMetrics] = [:]
        for route in routes {
            table[Key(template: route.path.description, method: route.method)] =
                metrics.ofRoute(route.path.description, method: route.method.rawValue)
            if route.method == .get {
                table[Key(template: route.path.description, method: .head)] =
                    metrics.ofRoute(route.path.description, method: "HEAD")
            }
        }
        self.table = table
        // Whatever a caller makes up as a path or method counts here: labels come from the server's own routes alone.
        unmatched = metrics.ofRoute("unmatched", method: "other")
    }

    func metrics(template: String?, method: HTTPRequest.Method) -> RouteMetrics {
        guard let template else { return unmatched }
        return table[Key(template: template, method: method)] ?? unmatched
    }

    /// The methods of the template that the router would choose for a path; empty if no route has it.
    func allowedMethods(path: String) -> [String] {
        let components = path.split(separator: "/")
        var best: (rank: [Int], methods: Set<String>)?
        for route in routes {
            guard let rank = RouteTable.rank(route.path, components) else { continue }
            if let known = best {
                if known.rank == rank {
                    best?.methods.insert(route.method.rawValue)
                    continue
                }
                guard known.rank.lexicographicallyPrecedes(rank) else { continue }
            }
            best = (rank, [route.method.rawValue])
        }
        guard var methods = best?.methods else { return [] }
        if methods.contains("GET") { methods.insert("HEAD") }
        return methods.sorted()
    }

    /// How specific each component of a matching template is: 2 for a text, 1 for anything with a parameter. Nil if it does not match.
    private static func rank(_ template: RouterPath, _ path: [Substring]) -> [Int]? {
        guard template.components.count == path.count else { return nil }
        var rank: [Int] = []
        for (element, component) in zip(template.components, path) {
            if element == component {
                rank.append(2)
            } else if element ~= component {
                rank.append(1)
            } else {
                return nil
            }
        }
        return rank
    }
}
