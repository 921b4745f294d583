import CLibPQ

extension PostgresSession {
    /// Runs `body` between `BEGIN` and `COMMIT`. If `body` throws, the transaction is rolled back and the error thrown on.
    ///
    /// If a statement is lost inside `body`, its outcome is known: nothing was committed. Only the outcome of the `COMMIT` itself can be unknown.
    public func transaction<T>(
        timeout: Duration? = nil,
        _ body: (PostgresTransaction) throws -> T
    ) throws -> T {
        guard !insideTransaction else { throw PostgresError(code: .misuse, message: "a transaction inside a transaction") }
        let number = try begin(timeout)
        defer { openTransaction = nil }
        var isCommitting = false
        do {
            let value = try body(PostgresTransaction(session: self, number: number))
            isCommitting = true
            try commit(timeout)
            monitor?.succeeded()
            return value
        } catch {
            if let error = error as? PostgresError { monitor?.failed(error) }
            if !isCommitting { rollBack(timeout) }
            throw error
        }
    }

    private func begin(_ timeout: Duration?) throws(PostgresError) -> Int {
        do throws(PostgresError) {
            let deadline = self.deadline(timeout)
            // A transaction cannot be sent again, so a session that is known to be read-only is replaced before the transaction begins.
            if link.map(isReportedReadOnly) ?? false { noteReadOnly() }
            if isPooled {
                try beginPooled(deadline)
            } else {
                let link = try openLink(deadline)
                PQclear(try exchange(link, deadline, commits: false) { PQsendQuery(link, "BEGIN") })
            }
        } catch {
            monitor?.failed(error)
            throw error
        }
        transactions += 1
        openTransaction = transactions
        return transactions
    }

    private func commit(_ timeout: Duration?) throws(PostgresError) {
        guard let link, isConnected else {
            close()
            throw PostgresError(code: .connectionLost(outcomeUnknown: false), message: "the connection was lost inside the transaction")
        }
        let result = try exchange(link, deadline(timeout), commits: true) {
            PQsendQuery(link, "COMMIT")
        }
        defer { PQclear(result) }
        // The server answers the COMMIT of a failed transaction with success and the tag ROLLBACK.
        guard let tag = PQcmdStatus(result), String(cString: tag) == "COMMIT" else {
            throw PostgresError(
                code: .server(sqlState: "25P02"),
                message: "rolled back: a statement of the transaction failed and its error was not thrown on",
                sqlState: "25P02"
            )
        }
    }

    /// Tries to roll back. If that fails, the connection is closed, which rolls back too.
    private func rollBack(_ timeout: Duration?) {
        guard let link, isConnected else { return close() }
        do {
            PQclear(
                try exchange(link, deadline(timeout), commits: false) { PQsendQuery(link, "ROLLBACK") }
            )
        } catch {
            close()
        }
    }

    func checkTransactionState() throws(PostgresError) {
        guard let link else { return }
        let state = PQtransactionStatus(link)
        let isOpen = state == PQTRANS_INTRANS || state == PQTRANS_INERROR
        guard isOpen != insideTransaction else { return }
        close()
        throw PostgresError(code: .misuse, message: "a statement opened or ended a transaction by itself; the connection was closed")
    }
}
