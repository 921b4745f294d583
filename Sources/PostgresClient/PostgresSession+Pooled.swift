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
        do throws(PostgresError) {
            return try exchange(link, deadline, commits: true, pipelined: opening.count) {
                let isSent =
                    opening.allSatisfy { PQsendQueryParams(link, $0, 0, nil, nil, nil, nil, 0) == 1 } && sendUnnamed(link, sql) == 1
                    && PQsendQueryParams(link, "COMMIT", 0, nil, nil, nil, nil, 0) == 1 && PQpipelineSync(link) == 1
                return isSent ? 1 : 0
            }
        } catch {
            takeBackPooled(deadline)
            throw error
        }
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
}
