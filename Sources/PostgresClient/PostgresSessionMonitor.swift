// Invariant: `onTrouble` is called on the session's thread, in the order of the events, and never under the lock.
//
// A session may answer questions while its work fails: a right was revoked, the disk is full, a trigger refuses. Work is what the session is there for, such as
//   writing. So trouble of work ends only when work succeeds.
//
// Bounds: only the results of the last statement and of the last work are kept. Work in trouble works again a second after its last failure at the earliest, so
//   that a database which does part of the work is told at most once a second.

import Synchronization

/// The recent results of a session's statements, for observers on other threads. Whether a session is connected and may write is learnt only from its own
/// statements.
public final class PostgresSessionMonitor: Sendable {
    /// Work that the database does not do.
    private struct FailingWork {
        var error: PostgresError
        var since: ContinuousClock.Instant
        var last: ContinuousClock.Instant
        /// Whether it is trouble, and not perhaps the fault of one statement.
        var isTrouble: Bool
    }

    private struct State {
        var lastSuccess: ContinuousClock.Instant?
        /// What is wrong with the session.
        var session: PostgresError?
        var work: FailingWork?

        var trouble: PostgresError? { session ?? work.flatMap { $0.isTrouble ? $0.error : nil } }
    }

    private let state = Mutex(State())
    private let onTrouble: (@Sendable (_ trouble: PostgresError?, _ isNews: Bool) -> Void)?

    /// For how long a failure that may be one statement's own must be the only result before it counts as the database's; and how long after its last failure work
    /// counts as working again.
    static let workRest: Duration = .seconds(1)
    /// How long callers are kept away, and how long they are let in after that, while a failure that may be one statement's own repeats itself.
    static let trialRest: Duration = .seconds(10)

    /// Makes a monitor.
    ///
    /// - Parameter onTrouble: called with every trouble that keeps the session from working (`isNews`: the session worked before, or is new), and with nil when
    ///   it works again
    public init(onTrouble: (@Sendable (_ trouble: PostgresError?, _ isNews: Bool) -> Void)? = nil) { self.onTrouble = onTrouble }

    /// When a statement last succeeded.
    public var lastSuccess: ContinuousClock.Instant? { state.withLock { $0.lastSuccess } }

    /// What keeps the session from working: it cannot connect, has lost its connection, may only read, or the database does not do its work. Nil if its last
    /// statement worked, and so did its work.
    public var trouble: PostgresError? { state.withLock { $0.trouble } }

    /// Whether the failing work's error may be one statement's own, and it is time that others try: in every second ``trialRest`` of the trouble, however often the
    /// statement comes again.
    var isWorthTrying: Bool {
        state.withLock { state in
            guard state.session == nil, let work = state.work, work.error.mayBeOneStatements else { return false }
            return Int((ContinuousClock.now - work.since) / Self.trialRest) % 2 == 1
        }
    }

    func succeeded() {
        change { state in
            state.lastSuccess = .now
            state.session = nil
        }
    }

    func failed(_ error: PostgresError) {
        // A call that failed before the next attempt to connect was due repeats what is known. Recording it would hide what the last attempt said.
        guard error.isSessionTrouble, error.retryAfter == nil else { return }
        change(error) { $0.session = error }
    }

    /// - Returns: whether no work is in trouble now
    func worked() -> Bool {
        change { state in
            state.session = nil
            guard let work = state.work else { return }
            if !work.isTrouble || work.error.mayBeOneStatements || ContinuousClock.now - work.last >= Self.workRest { state.work = nil }
        }
        return state.withLock { $0.work == nil }
    }

    /// - Parameter isTrial: the session tried it by itself
    func workFailed(_ error: PostgresError, isTrial: Bool = false) {
        let now = ContinuousClock.now
        change(error) { state in
            var work = state.work ?? FailingWork(error: error, since: now, last: now, isTrouble: false)
            // What failed once, and a while later again, with nobody between them, has not failed all the time.
            if !work.isTrouble, now - work.last > Self.trialRest { work.since = now }
            work.error = error
            // A statement that fails again because of itself proves nothing.
            if !isTrial { work.last = now }
            work.isTrouble = work.isTrouble || !error.mayBeOneStatements || (!isTrial && now - work.since >= Self.workRest)
            state.work = work
        }
    }

    private func change(_ error: PostgresError? = nil, _ body: (inout State) -> Void) {
        let (before, after) = state.withLock { state in
            let before = state.trouble
            body(&state)
            return (before, state.trouble)
        }
        if let after {
            if error != nil || before == nil { onTrouble?(after, before == nil) }
        } else if before != nil {
            onTrouble?(nil, true)
        }
    }
}

extension PostgresSession {
    typealias Statement = (sql: String, values: [PostgresValue])

    /// To be called when the database has done this session's work: trouble of it ends.
    public func worked() {
        if monitor?.worked() ?? true { failedWork = nil }
    }

    /// To be called when the database has not done this session's work. If the database is at fault, whichever statement asks it, the session is in trouble until
    /// ``worked()``. The statement that failed last is kept, so that ``tryWork()`` can try it.
    public func workFailed(_ error: PostgresError) {
        guard error.isDatabaseTrouble else { return }
        failedWork = failedStatement
        failedStatement = nil
        monitor?.workFailed(error)
    }

    /// Finds out whether the database does this session's work again: sends the statement that failed once more, in a transaction that is rolled back. It meets
    /// what a caller would meet, and changes nothing. Without such a statement the trouble ends, and the next caller meets what there is.
    func tryWork() throws(PostgresError) {
        // Where no statement is known, the next caller's work has to show it.
        guard let (sql, values) = failedWork else { return worked() }
        struct RolledBack: Error {}
        do {
            try transaction { transaction in
                _ = try transaction.query(sql, values)
                throw RolledBack()
            }
        } catch let error as PostgresError {
            // A row that somebody else has locked was found, and that is not the database's fault.
            if error.sqlState == "55P03" || error.sqlState?.hasPrefix("40") == true { return worked() }
            // An error that is the statement's own, such as a violated constraint, shows that the database works.
            guard error.isTransient || error.isDatabaseTrouble || error.sqlState == nil else { return worked() }
            if error.isDatabaseTrouble { monitor?.workFailed(error, isTrial: true) }
            throw error
        } catch {
            worked()
        }
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

    /// Whether the database cannot do what a sound statement asks of it: a right, a table or a function is missing (class 42), resources or a limit are exhausted
    /// (53, 54), its system fails (58), or its data does (XX). An operator must help. A syntax error (42601) is the program's own fault.
    public var isDatabaseTrouble: Bool {
        guard case .server(let state) = code, state != "42601" else { return false }
        return ["42", "53", "54", "58", "XX"].contains(state.prefix(2))
    }

    /// Whether an error of ``isDatabaseTrouble`` may be due to what one statement asks: a limit is exceeded (class 54), or a page of the rows that it asks for
    /// cannot be read (58, XX).
    var mayBeOneStatements: Bool { ["54", "58", "XX"].contains(sqlState?.prefix(2) ?? "") }

    /// `read_only_sql_transaction`.
    static let readOnly = "25006"

    /// SQLSTATE class 57 without cancelled statements: shutdown, crash, still starting, database dropped, session idle for too long.
    static func serverLeaves(_ state: String) -> Bool { state.hasPrefix("57P0") }
}
