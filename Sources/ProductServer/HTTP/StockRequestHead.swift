import APIErrors
import HotPath
import StockContract

/// The headers of a decrease other than its key, as the hot path and the router's route both read them; and the keys of all stock requests.
struct StockRequestHead {
    /// Whether the caller says that it may have asked before. Then the ledger decides, and its *no* is final.
    let isRepeat: Bool
    /// `Idempotency-Since`, in microseconds since the Unix epoch.
    let since: Int64?
    /// Whether the caller waits while another transaction has locked the product's row.
    let isPatient: Bool

    /// - Throws: `VALIDATION_ERROR`
    init(_ fields: some RequestFields) throws(APIError) {
        isRepeat = try Values.idempotencyAttempt(fields.field("idempotency-attempt")) > 1
        since = try Values.idempotencySince(fields.field("idempotency-since"))
        isPatient = Self.isPatient(prefer: fields.field("prefer"))
    }

    /// The key of a decrease, which every decrease must have.
    /// - Throws: `VALIDATION_ERROR`
    static func decreaseKey(_ fields: some RequestFields) throws(APIError) -> String {
        try StockKey.checkedDecrease(try Self.key(fields))
    }

    /// The key of an increase, which every increase must have.
    /// - Throws: `VALIDATION_ERROR`
    static func increaseKey(_ fields: some RequestFields) throws(APIError) -> String {
        try StockKey.checkedIncrease(try Self.key(fields))
    }

    /// The key of a change in either direction.
    /// - Throws: `VALIDATION_ERROR`
    static func key(_ fields: some RequestFields) throws(APIError) -> String {
        guard let key = try fields.idempotencyKey() else { throw .missing(field: "Idempotency-Key") }
        return key
    }

    /// Whether `Prefer` lets the server wait. With `wait=0` (RFC 7240) it does not.
    static func isPatient(prefer: String?) -> Bool {
        guard let prefer else { return true }
        return !prefer.split(separator: ",").contains { entry in
            entry.filter { $0 != " " && $0 != "\t" }.lowercased() == "wait=0"
        }
    }
}
