// Invariant: between two calls either `link` is nil, or it is an open, non-blocking connection with no query in progress and, outside of `transaction`, no
//   transaction open. A call that cannot restore this closes the connection.
//
// Bounds: every wait is a poll with the call's deadline. A statement is repeated once, and only if it was not executed: the server refused to start it because
//   its prepared form was outdated, or the connection was found dead before the statement was sent. When the deadline passes, the connection is closed; the
//   outcome is unknown if the statement was sent and would commit by itself.
//
// A session that may only read is useless to a writer. It stays read-only when the database can be written again: `default_transaction_read_only` of a role or
// a database counts when a session begins, and after a failover the name leads to another server. Therefore such a refusal closes the session, and the
// statement, which did nothing, is sent once more on a new one. A session younger than `readOnlyRest` is kept until it is that old. So a database that stays
// read-only costs at most five new sessions a second, and reads go on.

import BlockingThreads
import CLibPQ

/// A synchronous connection to PostgreSQL. It belongs to one thread: it is not `Sendable`, and only jobs of that thread use it.
///
/// It is opened at the first call, and again at the next call after a loss. After two failed attempts in a row, calls fail at once with `connectFailed` and
/// `retryAfter`, until the next attempt is due.
public final class PostgresSession {
    let configuration: PostgresConfiguration
    var link: OpaquePointer?
    /// The host of the open connection, by its place in the address.
    var host = 0
    /// The number of the history in which the open connection was made.
    var generation: UInt64 = 0
    /// When the server was asked for its history.
    var historyLearnedAt = ContinuousClock.now
    /// What the server says unasked.
    let notices = SessionNotices()
    private var statements: StatementCache
    var parameters = ParameterBuffer()
    private var typeIDs: [UInt32] = []
    var transactions = 0
    /// The number of the open transaction; nil if none is open.
    var openTransaction: Int?
    var insideTransaction: Bool { openTransaction != nil }
    let backoff: Backoff
    var failedAttempts = 0
    var nextAttempt: ContinuousClock.Instant?
    private var postponed: [() -> Void] = []
    var openedAt = ContinuousClock.now
    private var isReadOnly = false
    /// Every call ends by then at the latest; nil: only the configuration's bounds hold. For a caller that has promised an answer by a certain time.
    public var limit: ContinuousClock.Instant?
    /// Records the results of this session's statements.
    public var monitor: PostgresSessionMonitor?
    /// The statement that failed last, and that of work which the database does not do.
    var (failedStatement, failedWork): (Statement?, Statement?)

    /// The age at which a session that may only read is replaced.
    static let readOnlyRest: Duration = .milliseconds(200)

    /// The age at which what is known of the history behind a pooler is learnt again.
    static let pooledHistoryAge: Duration = .seconds(1)

    /// How often this session has opened a connection.
    public internal(set) var connectionsOpened = 0

    /// How often this session has sent something and waited for the answer, openings of connections aside.
    var roundTrips = 0
    /// What begins a transaction behind a pooler; empty without one.
    let opening: [String]

    /// Makes a session; nothing is opened yet.
    public init(configuration: PostgresConfiguration) {
        self.configuration = configuration
        backoff = Backoff(minimum: configuration.minimumBackoff, maximum: configuration.maximumBackoff, jitter: 0.25)
        opening = configuration.pooler == .transaction ? configuration.transactionOpening : []
        statements = StatementCache(capacity: configuration.preparedStatements)
    }

    deinit {
        if let link { PQfinish(link) }
    }

    /// Whether a connection is open, as far as that is known without asking the server.
    public var isConnected: Bool { link.map { PQstatus($0) == CONNECTION_OK } ?? false }

    /// The server's process for the open connection; nil if none is open.
    var processID: Int64? { link.map { Int64(PQbackendPID($0)) } }

    /// Statements prepared on the open connection.
    public var preparedStatementCount: Int { statements.count }

    // MARK: Calls

    /// Runs one statement and copies its rows out.
    ///
    /// - Parameter timeout: the client's bound; nil: the configuration's `callTimeout`
    public func query(
        _ sql: String,
        _ parameters: [PostgresValue] = [],
        timeout: Duration? = nil
    ) throws(PostgresError) -> PostgresResult {
        let result = try run(sql, parameters, timeout: timeout)
        defer { PQclear(result) }
        return PostgresResult(storage: ResultStorage(copying: result), rowsAffected: Self.rowsAffected(result))
    }

    /// Runs one statement, and calls `row` with each row while it is still in libpq's memory, without copying it.
    ///
    /// Rows are lent only after the whole statement has succeeded. An error that `row` throws ends the walk; the statement has taken effect anyway.
    /// - Returns: rows affected or returned
    @discardableResult
    public func query(
        _ sql: String,
        _ parameters: [PostgresValue],
        timeout: Duration? = nil,
        forEachRow row: (borrowing PostgresRowView) throws(PostgresError) -> Void
    ) throws(PostgresError) -> Int {
        let result = try run(sql, parameters, timeout: timeout)
        defer { PQclear(result) }
        typeIDs.removeAll(keepingCapacity: true)
        for column in 0..<PQnfields(result) { typeIDs.append(PQftype(result, column)) }
        // This copies the reference, so that a call inside the closure cannot change the memory that the loop reads.
        let typeIDs = typeIDs
        try typeIDs.withUnsafeBufferPointer { (typeIDs) throws(PostgresError) in
            for index in 0..<PQntuples(result) {
                try row(PostgresRowView(result: result, row: index, typeIDs: typeIDs))
            }
        }
        return Self.rowsAffected(result)
    }

    /// Runs a script of several statements without parameters. Outside of a transaction the server runs the script as one transaction.
    public func execute(script: String, timeout: Duration? = nil) throws(PostgresError) {
        do throws(PostgresError) {
            let deadline = self.deadline(timeout)
            if isPooled {
                try runPooledScript(script, deadline)
            } else {
                let link = try openLink(deadline)
                PQclear(try exchange(link, deadline, commits: !insideTransaction) { PQsendQuery(link, script) })
            }
            try checkTransactionState()
        } catch {
            monitor?.failed(error)
            throw error
        }
        if !insideTransaction { monitor?.succeeded() }
    }

    /// The earlier of the call's own bound and ``limit``.
    func deadline(_ timeout: Duration?) -> Deadline {
        let deadline = Deadline(after: timeout ?? configuration.callTimeout)
        return limit.map(deadline.orSooner) ?? deadline
    }

    /// Asks whether this session may write.
    ///
    /// - Throws: the error that keeps the session from writing: a `server` error with SQLSTATE 25006 if it may only read
    public func checkCanWrite(timeout: Duration? = nil) throws(PostgresError) {
        let watching = monitor
        // The question itself succeeds on a read-only session. The monitor should record the answer, not that success.
        monitor = nil
        defer { monitor = watching }
        do throws(PostgresError) {
            let answer = try query("SELECT current_setting('transaction_read_only')", [], timeout: timeout)
            guard try answer.one().decode(0, as: String.self) == "off" else {
                noteReadOnly()
                let state = PostgresError.readOnly
                throw PostgresError(code: .server(sqlState: state), message: "the database may only be read", sqlState: state)
            }
        } catch {
            watching?.failed(error)
            throw error
        }
        watching?.succeeded()
    }

    /// Leaves work for a moment when this thread would only wait: after the next statement was sent, or before a connection is opened. In this way a committer
    /// answers the callers of one batch while the server works on the next. A ``PostgresWorker`` does the work that is left at the end of each job.
    ///
    /// - Parameter work: must not use this session
    public func postpone(_ work: @escaping () -> Void) { postponed.append(work) }

    /// Does the postponed work, in its order.
    public func doPostponed() {
        // This ends: work that is postponed meanwhile is done the next time.
        let due = postponed
        guard !due.isEmpty else { return }
        postponed.removeAll()
        for work in due { work() }
    }

    /// Opens the connection if it is not open, so that the first call is faster.
    public func connect() throws(PostgresError) {
        do throws(PostgresError) {
            _ = try openLink(deadline(configuration.connectTimeout * configuration.hosts.count))
        } catch {
            monitor?.failed(error)
            throw error
        }
    }

    /// Checks that this session is a direct session of PostgreSQL, with the settings that were asked for.
    ///
    /// A pooler answers with a made-up process id, and loses settings that it cannot keep for a session. Behind a pooler, the statements of one session run in
    /// several sessions of the server, where prepared statements, locks and listening sometimes fail. So a pooler must be noticed before any of these is used.
    /// - Throws: also `invalidConfiguration`, with a sentence that says what to do
    public func checkIsDirect() throws(PostgresError) {
        // The statement is not prepared, because a pooler may lose prepared statements.
        let deadline = Deadline(after: configuration.callTimeout)
        let link = try openLink(deadline)
        let settings = ["default_transaction_isolation", "lock_timeout", "statement_timeout"]
        let sql =
            "select pg_backend_pid(), " + settings.map { "(select setting from pg_settings where name = '\($0)')" }.joined(separator: ", ")
        let result = try exchange(link, deadline, commits: false) { PQsendQuery(link, sql) }
        defer { PQclear(result) }
        let cells = (0..<Int32(settings.count + 1)).map { PQgetvalue(result, 0, $0).map { String(cString: $0) } ?? "" }
        let wanted = [
            String(PQbackendPID(link)), PostgresConfiguration.isolation, String(configuration.lockTimeout.wholeMilliseconds),
            String(configuration.statementTimeout.wholeMilliseconds),
        ]
        guard PQntuples(result) == 1, cells == wanted else {
            close()
            throw PostgresError(code: .invalidConfiguration, message: ConnectFailure.pooler)
        }
    }

    /// Checks what a program needs of its database and cannot set itself: an encoding that holds every text, and a search path that leads to the tables.
    ///
    /// A search path that the address itself sets is taken as it is: whoever names a schema there may mean one that is still empty.
    ///
    /// Another server may be making the tables at this moment. So the statement looks for them in and outside the path with the same snapshot; `to_regclass`
    /// answers from a cache, which can be older than the snapshot of the statement that calls it.
    /// - Parameters:
    ///   - table: a table of the program's that is there if any is
    ///   - makesTables: whether tables are going to be made, which then must come to stand beside those that are there
    /// - Throws: also `invalidConfiguration`, with a sentence that says what to do
    func checkDatabase(holding table: String, makesTables: Bool) throws(PostgresError) {
        let found = try query(
            """
            SELECT current_setting('server_encoding'), current_schema(), current_setting('search_path'),
                (SELECT n.nspname::text FROM unnest(current_schemas(false)) WITH ORDINALITY AS path (name, place)
                 JOIN pg_namespace n ON n.nspname = path.name JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = $1
                 ORDER BY place LIMIT 1),
                (SELECT min(n.nspname::text) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relname = $1 AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
                   AND c.relowner = (SELECT oid FROM pg_roles WHERE rolname = current_user)
                   AND 'client' <> (SELECT source FROM pg_settings WHERE name = 'search_path'))
            """,
            [.text(table)]
        ).one()
        func refusal(_ words: String) -> PostgresError { PostgresError(code: .invalidConfiguration, message: words) }
        let encoding = try found.decode(0, as: String.self)
        guard encoding == "UTF8" else {
            throw refusal(
                "the database's encoding is \(encoding), and only UTF8 holds every text: create the database with ENCODING 'UTF8'"
            )
        }
        let path = try found.decode(2, as: String.self)
        let reached = try found.decode(3, as: String?.self)
        if reached == nil, let elsewhere = try found.decode(4, as: String?.self) {
            throw refusal(
                "search_path is '\(path)', but the tables are in the schema '\(elsewhere)': set search_path of the role or the database to lead there"
            )
        }
        guard let schema = try found.decode(1, as: String?.self) else {
            throw refusal(
                "search_path is '\(path)', where there is no schema: set search_path of the role or the database to one that is there"
            )
        }
        if makesTables, let reached, reached != schema {
            throw refusal("search_path is '\(path)': new tables would be made in '\(schema)', while the tables are in '\(reached)'")
        }
    }

    /// Calls `body` with the notifications that arrived on the session's channels. Waits at most `bound` for the first one.
    ///
    /// - Throws: `connectionLost` if the connection is gone; the session then listens no longer
    func waitForNotifications(for bound: Duration, _ body: (_ channel: String, _ payload: String) -> Void) throws(PostgresError) {
        guard let link else { throw PostgresError(code: .connectionLost(outcomeUnknown: false), message: "not connected") }
        func deliver() {
            while let notification = PQnotifies(link) {
                body(String(cString: notification.pointee.relname), String(cString: notification.pointee.extra))
                PQfreemem(notification)
            }
        }
        deliver()
        guard Deadline(after: bound).wait(for: PQsocket(link), reading: true, writing: false) != nil else { return }
        let isAlive = PQconsumeInput(link) == 1 && PQstatus(link) == CONNECTION_OK
        deliver()
        if !isAlive { throw lost(false, Self.message(link)) }
    }

    /// Closes the connection. The next call opens another.
    public func close() {
        if let link { PQfinish(link) }
        link = nil
        isReadOnly = false
        statements.removeAll()
    }

    /// Handles a refusal: the session may only read.
    func leave(after refusal: PostgresError) {
        guard let state = refusal.sqlState else { return }
        if state == PostgresError.readOnly { noteReadOnly() }
    }

    func noteReadOnly() {
        isReadOnly = true
        replaceIfReadOnly()
    }

    /// Whether the server has reported the session as read-only, which it does unasked from PostgreSQL 14 on.
    ///
    /// Behind a pooler that report is of the session of the server which the pooler had first, and says nothing of the others.
    func isReportedReadOnly(_ link: OpaquePointer) -> Bool {
        if isPooled { return false }
        let parameters: [String] = ["default_transaction_read_only", "in_hot_standby"]
        return parameters.contains { name in
            PQparameterStatus(link, name).map { String(cString: $0) == "on" } ?? false
        }
    }

    /// Closes the session if it was found to be read-only and is old enough.
    func replaceIfReadOnly() {
        if isReadOnly, ContinuousClock.now - openedAt >= Self.readOnlyRest { close() }
    }

    // MARK: One statement

    private func run(_ sql: String, _ values: [PostgresValue], timeout: Duration?) throws(PostgresError) -> OpaquePointer {
        let result: OpaquePointer
        do throws(PostgresError) {
            result = try attempt(sql, values, deadline(timeout))
        } catch {
            if error.isDatabaseTrouble { failedStatement = (sql, values) }
            monitor?.failed(error)
            throw error
        }
        if !insideTransaction { monitor?.succeeded() }
        return result
    }

    private func attempt(_ sql: String, _ values: [PostgresValue], _ deadline: Deadline) throws(PostgresError) -> OpaquePointer {
        try parameters.encode(values)
        let key = StatementCache.Key(sql: sql, typeIDs: parameters.typeIDs)
        let result: OpaquePointer
        do {
            result = try runPrepared(key, deadline)
        } catch {
            // The statement was refused or lost before it was executed, so one repeat is safe: a schema change outdated its plan, DISCARD or a proxy dropped
            // its prepared form, or the connection died while preparing. Inside an open transaction there is no repeat, because the transaction is broken.
            let mayRepeat =
                switch error.code {
                case .server("26000"): true
                case .server("0A000"): error.message.contains("cached plan")
                case .connectionLost(outcomeUnknown: false): true
                // The session was refused as read-only, and was old enough to be replaced.
                case .server(PostgresError.readOnly): link == nil
                default: false
                }
            guard !insideTransaction, mayRepeat else { throw error }
            close()
            result = try runPrepared(key, deadline)
        }
        do {
            try checkTransactionState()
        } catch {
            PQclear(result)
            throw error
        }
        return result
    }

    private func runPrepared(_ key: StatementCache.Key, _ deadline: Deadline) throws(PostgresError) -> OpaquePointer {
        if isPooled { return try runPooled(key.sql, deadline) }
        let link = try openLink(deadline)
        let name = try prepare(key, link, deadline)
        return try exchange(link, deadline, commits: !insideTransaction) {
            parameters.withArguments { count, values, lengths, formats in
                PQsendQueryPrepared(link, name, count, values, lengths, formats, 1)
            }
        }
    }

    private func prepare(_ key: StatementCache.Key, _ link: OpaquePointer, _ deadline: Deadline) throws(PostgresError) -> String {
        if let name = statements.name(for: key) { return name }
        if let victim = statements.victim() {
            PQclear(try exchange(link, deadline, commits: false) { PQsendQuery(link, "DEALLOCATE \(victim.name)") })
            statements.remove(victim.key)
        }
        let name = statements.newName()
        let result = try exchange(link, deadline, commits: false) {
            key.typeIDs.withUnsafeBufferPointer { PQsendPrepare(link, name, key.sql, Int32($0.count), $0.baseAddress) }
        }
        PQclear(result)
        statements.insert(key, name: name)
        return name
    }

    private static func rowsAffected(_ result: OpaquePointer) -> Int {
        guard let text = PQcmdTuples(result) else { return 0 }
        return Int(String(cString: text)) ?? 0
    }
}
