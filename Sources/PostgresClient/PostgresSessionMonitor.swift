// Invariant: `onTrouble` is called on the session's thread, in the order of the events, and never under the lock.
//
// Bounds: only the result of the last statement is kept.

import Synchronization

/// The recent results of a session's statements, for observers on other threads. Whether a session is connected and may write is learnt only from its own
/// statements.
public final class PostgresSessionMonitor: Sendable {
    private struct State {
        var lastSuccess: ContinuousClock.Instant?
        var trouble: PostgresError?
    }

    private let state = Mutex(State())
    private let onTrouble: (@Sendable (_ trouble: PostgresError?, _ isNews: Bool) -> Void)?

    /// Makes a monitor.
    ///
    /// - Parameter onTrouble: called with every trouble that keeps the session from working (`isNews`: the session worked before, or is new), and with nil when
    ///   it works again
    public init(onTrouble: (@Sendable (_ trouble: PostgresError?, _ isNews: Bool) -> Void)? = nil) { self.onTrouble = onTrouble }

    /// When a statement last succeeded.
    public var lastSuccess: ContinuousClock.Instant? { state.withLock { $0.lastSuccess } }

    /// What keeps the session from working: it cannot connect, has lost its connection, or may only read. Nil if its last statement worked.
    public var trouble: PostgresError? { state.withLock { $0.trouble } }

    func succeeded() {
        let isNews = state.withLock { state in
            state.lastSuccess = .now
            defer { state.trouble = nil }
            return state.trouble != nil
        }
        if isNews { onTrouble?(nil, true) }
    }

    func failed(_ error: PostgresError) {
        // A call that failed before the next attempt to connect was due repeats what is known. Recording it would hide what the last attempt said.
        guard error.isSessionTrouble, error.retryAfter == nil else { return }
        let isNews = state.withLock { state in
            defer { state.trouble = error }
            return state.trouble == nil
        }
        onTrouble?(error, isNews)
    }
}

extension PostgresError {
    /// Whether the session is at fault, whatever the statement was.
    var isSessionTrouble: Bool {
        switch code {
        case .connectFailed, .connectionLost, .timedOut: true
        case .server(let state): state == Self.readOnly || state.hasPrefix("53") || Self.serverLeaves(state)
        case .notReplicated, .invalidConfiguration, .poolExhausted, .shutDown, .cancelled, .decoding, .misuse: false
        }
    }

    /// `read_only_sql_transaction`.
    static let readOnly = "25006"

    /// SQLSTATE class 57 without cancelled statements: shutdown, crash, still starting, database dropped, session idle for too long.
    static func serverLeaves(_ state: String) -> Bool { state.hasPrefix("57P0") }
}
