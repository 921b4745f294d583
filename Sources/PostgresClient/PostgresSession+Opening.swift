// How a session opens its connection, and notices before a statement is sent that an idle connection is dead.

import BlockingThreads
import CLibPQ
import Glibc

extension PostgresSession {
    /// The open connection. If it died while it was idle, a new one replaces it; nothing has been sent on the dead one.
    func openLink(_ deadline: Deadline) throws(PostgresError) -> OpaquePointer {
        if !insideTransaction { replaceIfReadOnly() }
        if let link {
            if isSound(link) { return link }
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
                hosts.worked(host)
                return (link, host)
            } catch {
                hosts.failed(host, error.message)
                failures.append((host, error))
            }
        }
        throw Self.failure(failures.map { (hosts.hosts[$0.host].name, $0.error) })
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
