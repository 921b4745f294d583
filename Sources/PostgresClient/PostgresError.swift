import BlockingThreads

/// What went wrong at PostgreSQL, and whether the statement may have taken effect anyway.
///
/// Every caller must ask ``isOutcomeUnknown``: a statement that was sent and not answered may have been committed. Such an outcome is settled by sending the
/// same idempotent statement again, never by assuming that it failed.
public struct PostgresError: Error, Sendable, Hashable {
    /// The kind of failure.
    public enum Code: Sendable, Hashable {
        /// The connection string or a setting cannot be used.
        case invalidConfiguration
        /// No connection could be opened (refused, timed out, not authenticated, or waiting for the next attempt). Nothing was sent.
        case connectFailed
        /// The connection broke during a call. `outcomeUnknown` is false if the statement certainly did not commit.
        case connectionLost(outcomeUnknown: Bool)
        /// The client-side bound of a call passed; the connection was closed.
        case timedOut(outcomeUnknown: Bool)
        /// The statement was committed at the server, but perhaps not at its synchronous standby: the server's wait for that was cancelled. A failover may lose
        /// it, so its outcome is unknown. The connection can still be used.
        case notReplicated
        /// The server refused the statement. The connection can still be used.
        case server(sqlState: String)
        /// A bounded queue or pool is full, or a place in it did not come free in time. Nothing was sent.
        case poolExhausted
        /// The pool, worker or connection was shut down. Nothing was sent.
        case shutDown
        /// The waiting task was cancelled. Nothing was sent.
        case cancelled
        /// A cell does not have the type that was asked for, or the result has an unexpected shape.
        case decoding
        /// The call breaks a rule of this library, for example a `COMMIT` inside a transaction's body.
        case misuse
    }

    /// The kind of failure.
    public var code: Code
    /// The words of the server or of the library. They never hold the password.
    public var message: String
    /// The five-character SQLSTATE, if the server gave one.
    public var sqlState: String?
    /// The name of the violated constraint, if the server gave one.
    public var constraint: String?
    /// For `connectFailed` during a back-off: the time until the next attempt to connect.
    public var retryAfter: Duration?

    /// Makes an error.
    public init(
        code: Code,
        message: String,
        sqlState: String? = nil,
        constraint: String? = nil,
        retryAfter: Duration? = nil
    ) {
        self.code = code
        self.message = message
        self.sqlState = sqlState
        self.constraint = constraint
        self.retryAfter = retryAfter
    }

    /// Whether the statement may have been committed although no answer came.
    public var isOutcomeUnknown: Bool {
        switch code {
        case .connectionLost(let outcomeUnknown), .timedOut(let outcomeUnknown): outcomeUnknown
        case .notReplicated: true
        default: false
        }
    }

    /// Whether a lock could not be had within `lock_timeout`, so that the statement was rolled back.
    public var isLockTimeout: Bool {
        // `lock_not_available`
        if case .server("55P03") = code { true } else { false }
    }

    /// Whether the same call may succeed later, because the trouble is the server's state and not the statement.
    ///
    /// This does not say that repeating is safe; see ``isOutcomeUnknown``.
    public var isTransient: Bool {
        switch code {
        case .connectFailed, .connectionLost, .timedOut, .notReplicated, .poolExhausted: true
        case .invalidConfiguration, .shutDown, .cancelled, .decoding, .misuse: false
        case .server(let state):
            // Classes 08 (connection), 40 (rollback: serialization, deadlock), 53 (resources), 57 (operator intervention,
            // statement timeout), 58 (system), lock_not_available, idle_in_transaction_session_timeout, and read_only_sql_transaction: a server that may only read now was, or will be, one that writes.
            // PostgreSQL documentation, appendix A.
            state == "55P03" || state == "25P03" || state == Self.readOnly || ["08", "40", "53", "57", "58"].contains(state.prefix(2))
        }
    }
}

extension PostgresError {
    /// A `connectFailed` for a system that has no thread left for the connection.
    init(_ unavailable: ThreadUnavailable) { self.init(code: .connectFailed, message: unavailable.description) }
}

extension PostgresError: CustomStringConvertible {
    /// The code, the message and the constraint in one line.
    public var description: String {
        var line = "PostgreSQL \(code): \(message)"
        if let constraint { line += " [constraint \(constraint)]" }
        return line
    }
}
