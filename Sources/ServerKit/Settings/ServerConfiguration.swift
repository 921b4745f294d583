public import Logging
public import NIOTransportSecurity

/// The settings that both servers have.
public struct ServerConfiguration: Sendable, Equatable {
    /// The address that both ports are bound to.
    public var bindAddress: String
    /// The public port; 0 takes a free one.
    public var publicPort: Int
    /// The admin port; 0 takes a free one.
    public var adminPort: Int
    /// What both ports show of themselves; nil: they speak no TLS.
    public var tls: TLSServerContexts?
    /// Who may use the admin port.
    public var adminTokens: AdminTokens
    /// How long a stop may take, requests in progress included.
    public var shutdownTimeout: Duration
    /// How long a start waits for a database that is not there yet.
    public var startTimeout: Duration
    /// Event loops; 0 takes one for each core.
    public var eventLoops: Int
    /// How long an idle connection is kept.
    public var idleTimeout: Duration
    /// How long a request may take to come, head and body.
    public var requestTimeout: Duration
    /// How long an answer waits for a client that takes nothing of it.
    public var answerTimeout: Duration
    /// How long a server that was told to stop still serves, asking its clients to go elsewhere.
    public var lameDuck: Duration
    /// Connections of the public port at most; further ones get health checks only, or are closed at once.
    public var maximumConnections: Int
    /// Connections of the public port of one client address (an IPv4 address or an IPv6 /64) at most; further ones get health checks only, or are closed at
    /// once.
    public var maximumConnectionsPerAddress: Int
    /// The least level that is logged.
    public var logLevel: Logger.Level
    /// How lines of the log look.
    public var logFormat: LogFormat
    /// Whether breakers show resilience4j's metric names too.
    public var showsResilience4jMetrics: Bool

    /// Reads the settings.
    /// - Parameters:
    ///   - publicPort: the variable of the public port and its default
    ///   - adminPort: the variable of the admin port and its default
    public init(from reader: inout SettingsReader, publicPort: (name: String, port: Int), adminPort: (name: String, port: Int)) {
        self.publicPort = reader.int(publicPort.name, default: publicPort.port, in: 0...65535, "public port, 0 for any free one")
        self.adminPort = reader.int(adminPort.name, default: adminPort.port, in: 0...65535, "admin port, 0 for any free one")
        bindAddress = reader.string("BIND_ADDRESS", default: "127.0.0.1", "address that both ports are bound to")
        tls = reader.serverTLS()
        adminTokens = reader.adminTokens()
        shutdownTimeout = reader.duration(
            "SHUTDOWN_TIMEOUT",
            default: .seconds(10),
            in: .milliseconds(100)...(.seconds(600)),
            "how long a stop may take, requests in progress included"
        )
        startTimeout = reader.duration(
            "START_TIMEOUT",
            default: .seconds(60),
            in: .zero...(.seconds(3600)),
            "how long a start waits for a database that is not there yet; no port is bound meanwhile"
        )
        eventLoops = reader.int("EVENT_LOOPS", default: 0, in: 0...256, "event loops, 0 for one each core")
        idleTimeout = reader.duration(
            "IDLE_TIMEOUT",
            default: .seconds(75),
            in: .seconds(1)...(.seconds(3600)),
            "how long an idle connection is kept"
        )
        maximumConnections = reader.int(
            "MAX_CONNECTIONS",
            default: 10_000,
            in: 1...1_000_000,
            "connections of the public port at most; further ones get health checks only, or are closed at once"
        )
        maximumConnectionsPerAddress = reader.int(
            "MAX_CONNECTIONS_PER_ADDRESS",
            default: 5_000,
            in: 1...1_000_000,
            "connections from one client address (IPv4 address or IPv6 /64) to the public port at most; further ones get health checks only, or are closed at once"
        )
        requestTimeout = reader.duration(
            "REQUEST_TIMEOUT",
            default: .seconds(30),
            in: .milliseconds(100)...(.seconds(3600)),
            "how long a client may take to send a request, head and body"
        )
        answerTimeout = reader.duration(
            "ANSWER_TIMEOUT",
            default: .seconds(30),
            in: .milliseconds(100)...(.seconds(3600)),
            "how long an answer waits while its client reads nothing"
        )
        lameDuck = reader.duration(
            "LAME_DUCK",
            default: .milliseconds(300),
            in: .zero...(.seconds(300)),
            "how long a server that was told to stop still serves; meanwhile it is not ready, and closes each connection after an answer"
        )
        logLevel = reader.choice("LOG_LEVEL", default: Logger.Level.info, "the lowest level that is logged")
        logFormat = reader.choice("LOG_FORMAT", default: LogFormat.text, "the format of log lines")
        showsResilience4jMetrics = reader.bool(
            "METRICS_RESILIENCE4J",
            default: false,
            "show the breakers' metrics under resilience4j's Micrometer names too"
        )
    }
}
