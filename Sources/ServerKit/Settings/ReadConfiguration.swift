/// How reads of a server's database are kept apart from its writes, its recovery and its readiness, and how they are bounded.
public struct ReadConfiguration: Sendable, Equatable {
    /// Connections for lists, audits and what watches the database.
    public var connections: Int
    /// Connections for reads of one row by its key.
    public var lookupConnections: Int
    /// Bound on one statement over either kind of connection.
    public var timeout: Duration
    /// Rows that one statement of a list walks at most.
    public var listBound: Int64

    /// Callers that may wait for one of these connections at a time; a further one gets `OVERLOADED`.
    public static let maximumWaiting = 64
    /// How long a caller waits for one of these connections before it gets `OVERLOADED`.
    public static let acquireTimeout: Duration = .seconds(1)

    /// Reads the settings.
    public init(from reader: inout SettingsReader) {
        connections = reader.int(
            "READ_CONNECTIONS",
            default: 2,
            in: 1...64,
            "database connections for lists and audits, which nothing else uses"
        )
        lookupConnections = reader.int(
            "LOOKUP_CONNECTIONS",
            default: 2,
            in: 1...64,
            "database connections for reads of one row or key, which nothing else uses"
        )
        timeout = reader.duration(
            "READ_TIMEOUT",
            default: .seconds(2),
            in: .milliseconds(10)...(.seconds(60)),
            "how long a statement of such a read may take; a longer one is UNAVAILABLE"
        )
        listBound = Int64(
            reader.int("LIST_BOUND", default: 100_000, in: 1...10_000_000, "rows that one statement of a list walks at most")
        )
    }
}
