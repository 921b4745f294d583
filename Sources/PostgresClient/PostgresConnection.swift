import BlockingThreads

/// An actor with a connection, whose executor is one thread of its own: a call blocks that thread and no other.
///
/// The connection is opened at the first call, and again at the next call after a loss. Calls wait in the actor's queue, which is bounded only by the number of
/// callers: use a ``PostgresPool`` where callers come from outside. Cancelling a task does not end a call; `callTimeout` bounds it.
public actor PostgresConnection {
    private let executor: ThreadExecutor
    private let session: PostgresSession

    /// The connection's own thread.
    public nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

    /// Starts the thread. No connection is opened yet.
    public init(configuration: PostgresConfiguration, name: String = "postgres") throws(PostgresError) {
        executor = try ThreadUnavailable.translated(by: PostgresError.init) { () throws(ThreadUnavailable) in try ThreadExecutor(name: name)
        }
        session = PostgresSession(configuration: configuration)
    }

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
