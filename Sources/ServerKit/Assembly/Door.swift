import HotPath
import NIOCore
import ServerMetrics

/// The front door of one port.
struct Door {
    let configuration: FrontDoorConfiguration
    let connections: ConnectionLimits
    let metrics: FrontDoorMetrics

    init(
        _ port: String,
        _ settings: ServerConfiguration,
        _ rules: ServerAssembly.PortRules,
        _ bounds: ConnectionLimits.Bounds,
        _ drain: ServerDrain,
        _ registry: MetricsRegistry
    ) {
        let metrics = FrontDoorMetrics(registry, port: port)
        var bounds = bounds
        bounds.reservedPaths = rules.reservedPaths
        let connections = ConnectionLimits(bounds, metrics: metrics)
        registry.gauge("stockgate_http_connections", help: "Open connections.", labels: [("port", port)]) { Double(connections.count) }
        self.connections = connections
        self.metrics = metrics
        var configuration = FrontDoorConfiguration()
        configuration.limits.largerBodies = rules.largerBodies
        configuration.times.request = TimeAmount(settings.requestTimeout)
        configuration.times.answer = TimeAmount(settings.answerTimeout)
        configuration.times.idle = TimeAmount(settings.idleTimeout)
        // Shorter than the stop's bound, so that the services that stop after HTTP have a part of it.
        // With a lame-duck time of zero a stop closes idle connections at once.
        configuration.times.stopIdle = settings.lameDuck > .zero ? .milliseconds(250) : .zero
        configuration.times.stopWorking = TimeAmount(settings.shutdownTimeout * 3 / 4)
        configuration.drain = drain
        configuration.metrics = metrics
        configuration.tls = settings.tls
        self.configuration = configuration
    }
}
