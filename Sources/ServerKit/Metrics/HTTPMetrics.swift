public import ServerMetrics
import Synchronization

/// Requests counted by route template, method and status, and timed by route template and method.
///
/// The labels are the server's own routes and a fixed list of statuses, so a caller cannot make new ones.
public final class HTTPMetrics: Sendable {
    private let registry: MetricsRegistry
    private let routes = Routes()
    private let active = Active()

    /// Every route's figures. The registry holds this object instead of `HTTPMetrics`, which holds the registry: two that held each other would never be
    /// freed.
    private final class Routes: Sendable {
        let metrics = Mutex<[RouteMetrics]>([])
    }

    /// Requests that are being worked on, over all routes.
    final class Active: Sendable {
        let count = Atomic<Int>(0)
    }

    /// Makes the metrics and shows them in a registry.
    public init(registry: MetricsRegistry) {
        self.registry = registry
        registry.collector("stockgate_http_requests_total", help: "Requests answered, by route, method and status.", kind: .counter) {
            [routes] in
            routes.metrics.withLock { $0 }.flatMap(\.samples)
        }
        registry.gauge("stockgate_http_requests_active", help: "Requests being worked on.") { [active] in
            Double(active.count.load(ordering: .relaxed))
        }
    }

    /// The figures of a route; the same ones for the same template and method. A handler in front of the router that answers
    /// a route records in them too.
    public func ofRoute(_ route: String, method: String) -> RouteMetrics {
        self.routes.metrics.withLock { routes in
            if let known = routes.first(where: { $0.route == route && $0.method == method }) { return known }
            let metrics = RouteMetrics(
                route: route,
                method: method,
                durations: registry.histogram(
                    "stockgate_http_request_duration_seconds",
                    help: "Time from a request's head to its answer, by route and method.",
                    labels: [("route", route), ("method", method)]
                ),
                active: active
            )
            routes.append(metrics)
            return metrics
        }
    }
}

/// The figures of one route and method. Recording takes no lock.
public final class RouteMetrics: Sendable {
    /// The statuses that the servers answer with; anything else counts as `other`.
    private static let statuses = [200, 201, 202, 204, 304, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 424, 500, 503]

    /// The route's template.
    public let route: String
    /// The method.
    public let method: String
    private let durations: Histogram
    private let active: HTTPMetrics.Active
    private let counts: InlineArray<19, Atomic<UInt64>> = InlineArray { _ in Atomic<UInt64>(0) }

    init(route: String, method: String, durations: Histogram, active: HTTPMetrics.Active) {
        self.route = route
        self.method = method
        self.durations = durations
        self.active = active
    }

    /// A request has begun.
    public func started() {
        active.count.wrappingAdd(1, ordering: .relaxed)
    }

    /// A request that ``started()`` was told of has been answered.
    public func finished(status: Int, after duration: Duration) {
        active.count.wrappingSubtract(1, ordering: .relaxed)
        counts[RouteMetrics.statuses.firstIndex(of: status) ?? RouteMetrics.statuses.count].wrappingAdd(1, ordering: .relaxed)
        durations.record(duration)
    }

    var samples: [MetricsRegistry.Sample] {
        (0...RouteMetrics.statuses.count).compactMap { index in
            let count = counts[index].load(ordering: .relaxed)
            guard count > 0 else { return nil }
            let status = index < RouteMetrics.statuses.count ? String(RouteMetrics.statuses[index]) : "other"
            return MetricsRegistry.Sample(
                labels: [("route", route), ("method", method), ("status", status)],
                Double(count)
            )
        }
    }
}
