import BlockingThreads

/// An actor whose executor is one thread, on which its connection lives: a call blocks that thread and no other.
///
/// Opens at the first call, opens again at the next call after a loss. Calls wait for one another in the actor's own queue, which has no bound
/// but the number of its callers: put a ``PostgresPool`` before it where callers come from outside. Cancelling a task does not cut a call short;
/// `callTimeout` bounds it.
public actor PostgresConnection {
    private let executor: ThreadExecutor
    private let session: PostgresSession

    /// The connection's own thread.
    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    /// Starts the thread; opens nothing yet.
    public init(configuration: PostgresConfiguration, name: String = "postgres") throws(PostgresError) {
        executor = try ThreadUnavailable.translated(by: PostgresError.init) { () throws(ThreadUnavailable) in try ThreadExecutor(name: name)
        }
        session = PostgresSession(configuration: configuration)
    }

    /// Whether a connection is open.
    public var isConnected: Bool { session.isConnected }

    /// How often a connection was opened.
    public var connectionsOpened: Int { session.connectionsOpened }

    /// Runs one statement and copies its rows out.
    public func query(
        _ sql: String,
        _ parameters: [PostgresValue] = [],
        timeout: Duration? = nil
    ) throws(PostgresError) -> PostgresResult {
        try session.query(sql, parameters, timeout: timeout)
    }

    /// Runs a script of several statements without parameters.
    public func execute(script: String, timeout: Duration? = nil) throws(PostgresError) {
        try session.execute(script: script, timeout: timeout)
    }

    /// Runs `body` on the connection's thread between `BEGIN` and `COMMIT`, see ``PostgresSession/transaction(timeout:_:)``.
    public func transaction<T: Sendable>(
        timeout: Duration? = nil,
        _ body: @Sendable (PostgresTransaction) throws -> T
    ) throws -> T {
        try session.transaction(timeout: timeout, body)
    }

    /// Runs `body` on the connection's thread with the session.
    public func withSession<T: Sendable>(_ body: @Sendable (PostgresSession) throws -> T) throws -> T {
        try body(session)
    }

    /// Opens the connection if it is not open.
    public func connect() throws(PostgresError) { try session.connect() }

    /// Closes the connection; the next call opens another.
    public func close() { session.close() }
}
