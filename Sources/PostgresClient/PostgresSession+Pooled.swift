// Statements behind a pooler that gives a session of the server to a client for one transaction (`PostgresConfiguration.Pooler.transaction`).
//
// Invariant: everything that a statement relies on is set in its own transaction, in the round trip that begins it, and ends with it; nothing is expected of the
//   session of the server that comes next. No statement has a name.
// Bounds: a statement of its own is one round trip, as it is without a pooler: opening, statement and COMMIT leave together. A transaction is one round trip to
//   begin, one for each statement, and one to commit. Where a statement was refused, one more takes the transaction back.

import CLibPQ

extension PostgresSession {
    var isPooled: Bool { configuration.pooler == .transaction }

    /// Runs one statement with the parameters that are encoded.
    func runPooled(_ sql: String, _ deadline: Deadline) throws(PostgresError) -> OpaquePointer {
        let link = try openLink(deadline)
        if insideTransaction {
            return try exchange(link, deadline, commits: false) { sendUnnamed(link, sql) }
        }
        guard PQenterPipelineMode(link) == 1 else { throw lost(false, Self.message(link)) }
        let isSent =
            opening.allSatisfy { PQsendQueryParams(link, $0, 0, nil, nil, nil, nil, 0) == 1 } && sendUnnamed(link, sql) == 1
            && PQsendQueryParams(link, "COMMIT", 0, nil, nil, nil, nil, 0) == 1 && PQpipelineSync(link) == 1
        guard isSent else {
            // A part of it may have left, but no COMMIT: nothing takes effect.
            let message = Self.message(link)
            let isRefusedByLibrary = PQstatus(link) == CONNECTION_OK
            close()
            throw PostgresError(code: isRefusedByLibrary ? .misuse : .connectionLost(outcomeUnknown: false), message: message)
        }
        roundTrips += 1
        try flush(link, deadline, true)
        doPostponed()
        return try collectPipeline(link, deadline)
    }

    /// Runs several statements without parameters as one transaction.
    func runPooledScript(_ script: String, _ deadline: Deadline) throws(PostgresError) {
        let link = try openLink(deadline)
        if insideTransaction {
            return PQclear(try exchange(link, deadline, commits: false) { PQsendQuery(link, script) })
        }
        do throws(PostgresError) {
            // On a line of its own: the script may end in a comment.
            let whole = (opening + [script]).joined(separator: ";\n") + "\n;COMMIT"
            PQclear(try exchange(link, deadline, commits: true) { PQsendQuery(link, whole) })
        } catch {
            takeBackPooled(deadline)
            throw error
        }
    }

    /// Begins a transaction with its settings, in one round trip.
    func beginPooled(_ deadline: Deadline) throws(PostgresError) {
        let link = try openLink(deadline)
        do throws(PostgresError) {
            PQclear(try exchange(link, deadline, commits: false) { PQsendQuery(link, opening.joined(separator: ";\n")) })
        } catch {
            takeBackPooled(deadline)
            throw error
        }
    }

    private func sendUnnamed(_ link: OpaquePointer, _ sql: String) -> Int32 {
        let typeIDs = parameters.typeIDs
        return typeIDs.withUnsafeBufferPointer { types in
            parameters.withArguments { count, values, lengths, formats in
                PQsendQueryParams(link, sql, count, types.baseAddress, values, lengths, formats, 1)
            }
        }
    }

    /// Takes a transaction back that a refusal has left open. A connection that does not answer is closed, which takes it back too.
    private func takeBackPooled(_ deadline: Deadline) {
        guard let link, PQtransactionStatus(link) != PQTRANS_IDLE else { return }
        do throws(PostgresError) {
            PQclear(try exchange(link, deadline, commits: false) { PQsendQuery(link, "ROLLBACK") })
        } catch {
            close()
        }
    }

    /// Takes the answers of one pipeline: the opening's, the statement's, the COMMIT's.
    private func collectPipeline(_ link: OpaquePointer, _ deadline: Deadline) throws(PostgresError) -> OpaquePointer {
        var good: OpaquePointer?
        var failure: PostgresError?
        var isCommitted = false
        var number = 0
        // Bounds: the deadline, and the number of statements that were sent. Each round takes one result or the end of one statement's.
        answers: while true {
            while PQisBusy(link) == 1 {
                guard deadline.wait(for: PQsocket(link), reading: true, writing: false) != nil else {
                    PQclear(good)
                    throw timedOut(true)
                }
                guard PQconsumeInput(link) == 1 else {
                    PQclear(good)
                    throw lost(true, failure?.message ?? Self.message(link), failure?.sqlState)
                }
            }
            guard let result = PQgetResult(link) else {
                number += 1
                guard PQstatus(link) == CONNECTION_OK, number <= opening.count + 2 else {
                    PQclear(good)
                    throw lost(true, failure?.message ?? Self.message(link), failure?.sqlState)
                }
                continue
            }
            switch PQresultStatus(result) {
            case PGRES_PIPELINE_SYNC:
                PQclear(result)
                break answers
            case PGRES_TUPLES_OK, PGRES_COMMAND_OK, PGRES_EMPTY_QUERY:
                if number == opening.count {
                    PQclear(good)
                    good = result
                } else {
                    if number > opening.count { isCommitted = PQcmdStatus(result).map { String(cString: $0) == "COMMIT" } ?? false }
                    PQclear(result)
                }
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
        guard PQstatus(link) == CONNECTION_OK, PQexitPipelineMode(link) == 1 else {
            PQclear(good)
            throw lost(true, failure?.message ?? Self.message(link), failure?.sqlState)
        }
        if let failure {
            PQclear(good)
            takeBackPooled(deadline)
            leave(after: failure)
            throw failure
        }
        guard let good, isCommitted else {
            PQclear(good)
            throw lost(true, "the server gave no result")
        }
        return good
    }
}
