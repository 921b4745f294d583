// Invariant: `onTrouble` is called in the order of what happened, on the session's thread, and never under the lock.
//
// Bounds: what the last statement came to; nothing is kept of those before.

import Synchronization

/// What a session's statements came to lately, for those who watch it from another thread: whether it is connected and may write is known by its own work alone.
public final class PostgresSessionMonitor: Sendable {
    private struct State {
        var lastSuccess: ContinuousClock.Instant?
        var trouble: PostgresError?
    }

    private let state = Mutex(State())
    private let onTrouble: (@Sendable (_ trouble: PostgresError?, _ isNews: Bool) -> Void)?

    /// Makes a monitor.
    ///
    /// - Parameter onTrouble: told of everything that keeps the session from working (`isNews`: it worked before, or was new), and with nil when it works again.
    public init(onTrouble: (@Sendable (_ trouble: PostgresError?, _ isNews: Bool) -> Void)? = nil) { self.onTrouble = onTrouble }

    /// When a statement last succeeded.
    public var lastSuccess: ContinuousClock.Instant? { state.withLock { $0.lastSuccess } }

    /// What keeps the session from working: it cannot connect, has lost its connection, or may only read. Nil: its last statement did what it should.
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
        // Waiting for the next attempt says nothing new, and hides what the last one said.
        guard error.isSessionTrouble, error.retryAfter == nil else { return }
        let isNews = state.withLock { state in
            defer { state.trouble = error }
            return state.trouble == nil
        }
        onTrouble?(error, isNews)
    }
}

extension PostgresError {
    /// Whether it is the session that fails, whatever the statement.
    var isSessionTrouble: Bool {
        switch code {
        case .connectFailed, .connectionLost, .timedOut: true
        case .server(let state): state == Self.readOnly || state.hasPrefix("53") || Self.serverLeaves(state)
        case .invalidConfiguration, .poolExhausted, .shutDown, .cancelled, .decoding, .misuse: false
        }
    }

    /// `read_only_sql_transaction`.
    static let readOnly = "25006"

    /// Class 57, but for a cancelled statement: shutdown, crash, still starting, database dropped, idle for too long.
    static func serverLeaves(_ state: String) -> Bool { state.hasPrefix("57P0") }
}
