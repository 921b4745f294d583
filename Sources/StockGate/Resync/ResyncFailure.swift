import PostgresClient

/// Why a resync failed: whose trouble it was, and in whose words.
public struct ResyncFailure: Error, Hashable, Sendable {
    /// Whose trouble it is.
    public enum Scope: Hashable, Sendable {
        /// Redis itself is in trouble, which affects every product.
        case redis
        /// PostgreSQL itself is in trouble, which affects every product.
        case ledger
        /// This product's row in the ledger is locked by another transaction.
        case locked
        /// This product's row in the ledger cannot be used.
        case row
        /// What Redis holds for this product cannot be used.
        case keys
        /// The master of this shard does not serve the product's slot, or not all keys of the slot. Another shard will resync the product.
        case slot
    }

    /// Whose trouble it is.
    public var scope: Scope
    /// The first line of Redis' or PostgreSQL's own words.
    public var words: String

    /// The row was locked when the statement reached it, and there was no time to wait.
    static let locked = ResyncFailure(.locked, "PostgreSQL: another transaction has locked the product's row")
    /// The dataset changed in every round of the resync.
    static let datasetMoves = ResyncFailure(.keys, "Redis: the product's dataset changed again and again")

    init(_ scope: Scope, _ words: String) {
        self.scope = scope
        self.words = words
    }

    init(_ failure: GateFailure) {
        self.init(failure.isOfProduct ? .keys : failure.isOfSlot ? .slot : .redis, failure.words)
    }

    /// - Parameter isAlone: whether the statement was for one product, so that its error may be that product's own.
    init(_ error: PostgresError, isAlone: Bool) {
        let words = "PostgreSQL: " + error.message.firstLine
        switch isAlone ? error.sqlState : nil {
        case nil: self.init(.ledger, words)
        case "55P03", "57014", "40P01", "40001": self.init(.locked, words)
        case let state? where Self.wholeClasses.contains(String(state.prefix(2))): self.init(.ledger, words)
        default: self.init(.row, words)
        }
    }

    /// The text whose change makes this failure news. Two failures for a locked row have different words, but are the same news.
    var news: String { scope == .locked ? "locked" : words.withoutScript }

    /// Whether a statement for many products that failed with this error may succeed for each product alone.
    static func isOfMember(_ error: PostgresError) -> Bool {
        guard let state = error.sqlState, !error.isOutcomeUnknown else { return false }
        return ["55P03", "57014"].contains(state) || !wholeClasses.contains(String(state.prefix(2)))
    }

    /// Classes of SQLSTATE that concern every product: connection, read-only transaction, login, database name, syntax or rights, resources, operator
    /// intervention, I/O.
    private static let wholeClasses: Set<String> = ["08", "25", "28", "3D", "42", "53", "57", "58"]
}

/// What became of one product's resync.
struct ResyncResult: Sendable {
    var outcome: Resync.Outcome
    /// Why it failed; nil if it succeeded.
    var failure: ResyncFailure?

    static let untried = ResyncResult(outcome: .failed, failure: nil)
    /// No shard could try.
    static let withoutMaster = ResyncResult(outcome: .failed, failure: ResyncFailure(.withoutMaster))
}
