// One exchange with the server: send, flush, collect. Every wait ends at the call's deadline. If the connection's state is in doubt afterwards, it is closed.

import CLibPQ

extension PostgresSession {
    /// Sends, waits and collects. The caller must clear the result.
    ///
    /// - Parameters:
    ///   - commits: whether what is sent commits by itself, so that a lost answer leaves its outcome unknown
    ///   - pipelined: of several statements that leave together in a pipeline, the last of which is a `COMMIT`: the index of the one whose result is returned; nil:
    ///     there is no pipeline
    func exchange(
        _ link: OpaquePointer,
        _ deadline: Deadline,
        commits: Bool,
        pipelined: Int? = nil,
        send: () -> Int32
    ) throws(PostgresError) -> OpaquePointer {
        roundTrips += 1
        notices.isUnreplicated = false
        guard send() == 1 else {
            let message = Self.message(link)
            let isSound = PQstatus(link) == CONNECTION_OK
            if pipelined != nil {
                // A part of the pipeline may have left, but its COMMIT has not. Nothing takes effect.
                close()
                throw PostgresError(code: isSound ? .misuse : .connectionLost(outcomeUnknown: false), message: message)
            }
            // libpq itself refused the call, for example because a parameter is too large. Nothing was sent and the connection is sound. If the connection is
            // broken, a part may have been sent.
            if isSound, PQtransactionStatus(link) != PQTRANS_ACTIVE { throw PostgresError(code: .misuse, message: message) }
            throw lost(commits, message)
        }
        try flush(link, deadline, commits)
        doPostponed()
        return try collect(link, deadline, commits, pipelined)
    }

    private func flush(_ link: OpaquePointer, _ deadline: Deadline, _ commits: Bool) throws(PostgresError) {
        while true {
            switch PQflush(link) {
            case 0: return
            case 1:
                guard let ready = deadline.wait(for: PQsocket(link), reading: true, writing: true) else { throw timedOut(commits) }
                // The server may be blocked in writing to this client. It reads on only after this client has read.
                if ready.readable, PQconsumeInput(link) == 0 { throw lost(commits, Self.message(link)) }
            default: throw lost(commits, Self.message(link))
            }
        }
    }

    /// Takes the answers of all that was sent, and what the server says beside them.
    private func collect(
        _ link: OpaquePointer,
        _ deadline: Deadline,
        _ commits: Bool,
        _ pipelined: Int?
    ) throws(PostgresError) -> OpaquePointer {
        var good: OpaquePointer?
        var failure: PostgresError?
        /// The statements of a pipeline whose answers have been taken.
        var answered = 0
        var isCommitted = pipelined == nil
        // Bound: the deadline. Each round takes one result. Without a pipeline nil comes after the last one; in a pipeline it comes after each statement's, and the
        // last result is the pipeline's end.
        answers: while true {
            while PQisBusy(link) == 1 {
                guard deadline.wait(for: PQsocket(link), reading: true, writing: false) != nil else {
                    PQclear(good)
                    throw timedOut(commits)
                }
                guard PQconsumeInput(link) == 1 else {
                    PQclear(good)
                    throw lost(commits, failure?.message ?? Self.message(link), failure?.sqlState)
                }
            }
            guard let result = PQgetResult(link) else {
                answered += 1
                // After the answers of a pipeline's last statement comes the pipeline's end. It does not come on a connection that was lost.
                guard let pipelined, PQstatus(link) == CONNECTION_OK, answered <= pipelined + 2 else { break }
                continue
            }
            switch PQresultStatus(result) {
            case PGRES_TUPLES_OK, PGRES_COMMAND_OK, PGRES_EMPTY_QUERY:
                if pipelined == nil || answered == pipelined {
                    PQclear(good)
                    good = result
                } else {
                    isCommitted = PQcmdStatus(result).map { String(cString: $0) == "COMMIT" } ?? false
                    PQclear(result)
                }
            case PGRES_PIPELINE_SYNC:
                PQclear(result)
                break answers
            case PGRES_PIPELINE_ABORTED: PQclear(result)
            case PGRES_COPY_IN, PGRES_COPY_OUT, PGRES_COPY_BOTH:
                PQclear(result)
                PQclear(good)
                close()
                throw PostgresError(code: .misuse, message: "COPY is not supported; the connection was closed")
            default:
                if failure == nil { failure = Self.serverError(result) }
                PQclear(result)
            }
        }
        // The server ended the connection while it answered, for example because an administrator terminated it. It is unknown what it had done by then.
        guard PQstatus(link) == CONNECTION_OK, pipelined == nil || PQexitPipelineMode(link) == 1 else {
            PQclear(good)
            throw lost(commits, failure?.message ?? Self.message(link), failure?.sqlState)
        }
        if let failure {
            PQclear(good)
            // The server, or a pooler in front of it, ends the session, and does not say whether the statement's transaction had ended before.
            if let state = failure.sqlState, PostgresError.serverLeaves(state) { throw lost(commits, failure.message, state) }
            leave(after: failure)
            throw failure
        }
        guard let good, isCommitted else {
            PQclear(good)
            throw lost(commits, "the server gave no result")
        }
        if commits, notices.isUnreplicated {
            PQclear(good)
            throw PostgresError(
                code: .notReplicated,
                message: "committed, but perhaps not at the synchronous standby: the wait for it was cancelled"
            )
        }
        return good
    }

    func lost(_ commits: Bool, _ message: String, _ sqlState: String? = nil) -> PostgresError {
        abandon(commits)
        return PostgresError(code: .connectionLost(outcomeUnknown: commits), message: message, sqlState: sqlState)
    }

    func timedOut(_ commits: Bool) -> PostgresError {
        abandon(commits)
        // The next attempt to connect begins with another host, if there is one.
        configuration.hosts.failed(host, "a call was not answered within its bound")
        return PostgresError(
            code: .timedOut(outcomeUnknown: commits),
            message: "no answer within the call's bound; the connection was closed"
        )
    }

    /// Closes the connection. If the statement may have committed, the server's process may go on waiting for its standby on behalf of a client that is gone; it
    /// is given to `abandoned`, which has that wait ended.
    private func abandon(_ commits: Bool) {
        // A pooler makes up the process ids that it gives: they name no process of the server.
        let process = commits && !isPooled && configuration.endsAbandonedWaits ? processID : nil
        close()
        if let process, process > 0 { configuration.hosts.abandoned(process, at: host, of: configuration) }
    }

    static func message(_ link: OpaquePointer) -> String {
        let text = PQerrorMessage(link).map { String(cString: $0) } ?? ""
        return text.split(separator: "\n").joined(separator: " ")
    }

    static func serverError(_ result: OpaquePointer) -> PostgresError {
        func field(_ code: Character) -> String? {
            guard let ascii = code.asciiValue, let text = PQresultErrorField(result, Int32(ascii)) else { return nil }
            return String(cString: text)
        }
        // Field letters: PostgreSQL documentation, "Error and Notice Message Fields".
        let state = field("C")
        let message = field("M") ?? PQresultErrorMessage(result).map { String(cString: $0) } ?? "unknown error"
        return PostgresError(code: .server(sqlState: state ?? ""), message: message, sqlState: state, constraint: field("n"))
    }
}
