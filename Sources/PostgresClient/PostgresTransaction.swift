/// An open transaction, for the body that ``PostgresSession/transaction(timeout:_:)`` runs. After the body's end it refuses every call with `misuse`.
///
/// It is copyable, because the optimizer of Swift 6.3.1 crashes on a generic function that lends a noncopyable value to a closure.
public struct PostgresTransaction {
    let session: PostgresSession
    /// Which of the session's transactions this is.
    let number: Int

    /// Runs one statement and copies its rows out. `COMMIT` and `ROLLBACK` are refused: the body's end decides between them.
    public func query(
        _ sql: String,
        _ parameters: [PostgresValue] = [],
        timeout: Duration? = nil
    ) throws(PostgresError) -> PostgresResult {
        try check(sql)
        return try session.query(sql, parameters, timeout: timeout)
    }

    /// Runs a script of several statements without parameters.
    public func execute(script: String, timeout: Duration? = nil) throws(PostgresError) {
        try checkIsOpen()
        try session.execute(script: script, timeout: timeout)
    }

    /// Refuses a statement that would end the transaction, before it is sent. Such a statement could commit, and the outcome of a loss inside the body would then be
    /// unknown.
    private func check(_ sql: String) throws(PostgresError) {
        try checkIsOpen()
        let word = sql.utf8.drop { $0 <= 32 }.prefix { ($0 | 32) >= 97 && ($0 | 32) <= 122 }
        guard word.count >= 3, word.count <= 8 else { return }
        switch String(decoding: word.map { $0 | 32 }, as: UTF8.self) {
        case "commit", "end", "abort", "prepare":
            throw PostgresError(code: .misuse, message: "a transaction is ended by the end of its body")
        case "rollback" where !sql.lowercased().contains(" to "):
            throw PostgresError(code: .misuse, message: "a transaction is ended by the end of its body")
        default: return
        }
    }

    private func checkIsOpen() throws(PostgresError) {
        guard session.openTransaction == number else {
            throw PostgresError(code: .misuse, message: "the transaction has ended")
        }
    }
}
