// How a session opens its connection, and notices before a statement is sent that an idle connection is dead.

import BlockingThreads
import CLibPQ
import Glibc

extension PostgresSession {
    /// The open connection. If it died while it was idle, a new one replaces it; nothing has been sent on the dead one.
    func openLink(_ deadline: Deadline) throws(PostgresError) -> OpaquePointer {
        if !insideTransaction {
            replaceIfReadOnly()
            // Another session has found a newer history of the data. This one may lead to the server that was replaced.
            if link != nil, generation < configuration.hosts.generation { close() }
        }
        if let link {
            if isSound(link) {
                try relearnHistory(link, deadline)
                return link
            }
            let message = Self.message(link)
            close()
            if insideTransaction {
                throw PostgresError(code: .connectionLost(outcomeUnknown: false), message: message)
            }
        } else if insideTransaction {
            throw PostgresError(code: .connectionLost(outcomeUnknown: false), message: "the connection was lost earlier in the transaction")
        }
        if let nextAttempt {
            let wait = nextAttempt - .now
            if wait > .zero {
                throw PostgresError(
                    code: .connectFailed,
                    message: "waiting for the next attempt to connect",
                    retryAfter: wait
                )
            }
        }
        doPostponed()
        do {
            let (opened, host) = try openAnywhere(deadline)
            failedAttempts = 0
            nextAttempt = nil
            link = opened
            self.host = host
            openedAt = .now
            connectionsOpened += 1
            return opened
        } catch {
            failedAttempts = min(failedAttempts + 1, 32)
            if failedAttempts >= 2 {
                nextAttempt = .now + backoff.wait(after: failedAttempts - 2, random: .random(in: 0...1))
            }
            throw error
        }
    }

    /// Whether an idle connection still lives. An idle server sends only its farewell, a changed parameter or a notice, so whatever can be read is looked at.
    /// Bound: 16 looks, which is more than a farewell takes.
    private func isSound(_ link: OpaquePointer) -> Bool {
        for _ in 0..<16 {
            guard PQstatus(link) == CONNECTION_OK else { return false }
            guard Deadline(after: .zero).wait(for: PQsocket(link), reading: true, writing: false) != nil else { return true }
            guard PQconsumeInput(link) == 1 else { return false }
            while let notification = PQnotifies(link) { PQfreemem(notification) }
            // The server's farewell to an idle session comes as a notice. The end of the connection may be a moment behind it.
            if notices.isFarewell { return false }
        }
        return PQstatus(link) == CONNECTION_OK
    }

    /// Opens a connection at the first host that takes one. Each host is tried once.
    private func openAnywhere(_ deadline: Deadline) throws(PostgresError) -> (link: OpaquePointer, host: Int) {
        let hosts = configuration.hosts
        let order = hosts.attempt()
        var failures: [(host: Int, error: PostgresError)] = []
        for (place, host) in order.enumerated() {
            let share = deadline.remaining / (order.count - place)
            do throws(PostgresError) {
                let link = try open(
                    configuration.connectionSettings(host: host),
                    deadline.orSooner(min(share, configuration.connectTimeout))
                )
                self.host = host
                try learnHistory(link, deadline)
                hosts.worked(host)
                return (link, host)
            } catch {
                hosts.failed(host, error.message)
                failures.append((host, error))
            }
        }
        throw Self.failure(failures.map { (hosts.hosts[$0.host].name, $0.error) })
    }

    /// Learns the history of the server's data, where somebody wants to know of its changes.
    /// - Throws: `connectFailed` if the server has been replaced by another, or does not answer; the connection is closed then
    private func learnHistory(_ opened: OpaquePointer, _ deadline: Deadline) throws(PostgresError) {
        guard configuration.hosts.isHistoryWatched else {
            generation = configuration.hosts.generation
            return
        }
        link = opened
        // These round trips belong to the opening.
        let before = roundTrips
        defer { roundTrips = before }
        let refusal: String?
        do throws(PostgresError) {
            let mark = configuration.hosts.historyMark
            let found = try history(opened, deadline)
            (generation, refusal) = configuration.hosts.opened(found.history, at: found.position, since: mark)
        } catch {
            close()
            throw PostgresError(code: .connectFailed, message: error.message, sqlState: error.sqlState)
        }
        historyLearnedAt = .now
        guard let refusal else { return }
        close()
        throw PostgresError(code: .connectFailed, message: refusal)
    }

    /// Behind a pooler a failover can lead an open session to another server. So its history is learnt again from time to time.
    func relearnHistory(_ link: OpaquePointer, _ deadline: Deadline) throws(PostgresError) {
        guard isPooled, !insideTransaction, configuration.hosts.isHistoryWatched else { return }
        guard ContinuousClock.now - historyLearnedAt >= Self.pooledHistoryAge else { return }
        try learnHistory(link, deadline)
    }

    /// Asks for what the role may know. Every role may call the three functions, unless an administrator has revoked that.
    private func history(
        _ link: OpaquePointer,
        _ deadline: Deadline
    ) throws(PostgresError) -> (history: PostgresHistory, position: UInt64?) {
        /// The cells of the one row.
        func ask(_ columns: [String]) throws(PostgresError) -> [String?] {
            let sql = "select " + columns.joined(separator: ", ")
            let result = try exchange(link, deadline, commits: false) { PQsendQuery(link, sql) }
            defer { PQclear(result) }
            return columns.indices.map { (column) -> String? in
                guard PQntuples(result) == 1, PQgetisnull(result, 0, Int32(column)) == 0 else { return nil }
                return PQgetvalue(result, 0, Int32(column)).map { String(cString: $0) }
            }
        }
        // A statement that names a function which the role may not call is refused as a whole.
        let functions = ["pg_control_system()", "pg_walfile_name(pg_lsn)", "pg_current_wal_flush_lsn()"]
        let first = try ask(
            ["(select oid from pg_database where datname = current_database())"]
                + functions.map { "has_function_privilege('\($0)', 'execute')" }
        )
        let may = first.dropFirst().map { $0 == "t" }
        func column(_ isAllowed: Bool, _ sql: String) -> String { isAllowed ? "(\(sql))" : "null" }
        // The segment's name begins with the timeline. `pg_control_checkpoint` would name the old one until the first checkpoint after a promotion.
        let isWriting = "case when not pg_is_in_recovery() then"
        let second = try ask([
            column(may[0], "select system_identifier::text from pg_control_system()"),
            column(may[1] && may[2], "\(isWriting) left(pg_walfile_name(pg_current_wal_flush_lsn()), 8) end"),
            column(may[2], "\(isWriting) (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::text end"),
        ])
        return (
            PostgresHistory(
                system: second[0],
                timeline: second[1].flatMap { UInt32($0, radix: 16) },
                database: first[0].flatMap { UInt32($0) }
            ),
            second[2].flatMap { UInt64($0) }
        )
    }

    /// One error for an attempt that failed at every host. If one of the hosts may become available by itself, then the address may.
    static func failure(_ failures: [(host: String, error: PostgresError)]) -> PostgresError {
        let passing = failures.filter { $0.error.isNotThereYet }
        let told = passing.isEmpty ? failures : passing
        guard failures.count > 1, let first = told.first else {
            return failures.first?.error ?? PostgresError(code: .connectFailed, message: "the address names no host")
        }
        var error = first.error
        error.message = told.map { "\($0.host): \($0.error.message)" }.joined(separator: "; ")
        return error
    }

    /// Opens a connection within the deadline.
    private func open(_ settings: [PostgresConfiguration.Setting], _ deadline: Deadline) throws(PostgresError) -> OpaquePointer {
        // libpq wants two null-terminated arrays of C strings, which it copies.
        let keywords = settings.map { strdup($0.keyword) }
        let values = settings.map { strdup($0.value) }
        defer {
            for text in keywords + values { free(text) }
        }
        let started = (keywords.map { UnsafePointer($0) } + [nil]).withUnsafeBufferPointer { keywords in
            (values.map { UnsafePointer($0) } + [nil]).withUnsafeBufferPointer { values in
                PQconnectStartParams(keywords.baseAddress, values.baseAddress, 0)
            }
        }
        guard let link = started else { throw PostgresError(code: .connectFailed, message: "out of memory") }
        // Without a receiver, notices would go to the process's standard error.
        notices.listen(to: link)
        // Verbose errors are the only way to learn the SQLSTATE of a refused connection.
        PQsetErrorVerbosity(link, PQERRORS_VERBOSE)
        var wanted = PGRES_POLLING_WRITING
        while true {
            if PQstatus(link) == CONNECTION_BAD || wanted == PGRES_POLLING_FAILED {
                let failure = ConnectFailure(PQerrorMessage(link).map { String(cString: $0) } ?? "")
                PQfinish(link)
                throw PostgresError(code: .connectFailed, message: failure.message, sqlState: failure.sqlState)
            }
            if wanted == PGRES_POLLING_OK { break }
            let isReading = wanted == PGRES_POLLING_READING
            guard deadline.wait(for: PQsocket(link), reading: isReading, writing: !isReading) != nil else {
                PQfinish(link)
                throw PostgresError(code: .connectFailed, message: "no connection within the bound")
            }
            wanted = PQconnectPoll(link)
        }
        PQsetErrorVerbosity(link, PQERRORS_DEFAULT)
        guard PQsetnonblocking(link, 1) == 0 else {
            PQfinish(link)
            throw PostgresError(code: .connectFailed, message: "the connection cannot be made non-blocking")
        }
        return link
    }
}
