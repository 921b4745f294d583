import PostgresClient

/// Why a resync failed: who failed, and in whose words.
public struct ResyncFailure: Error, Hashable, Sendable {
    /// Whose trouble it is.
    public enum Scope: Hashable, Sendable {
        /// Redis itself: every product meets it.
        case redis
        /// PostgreSQL itself: every product meets it.
        case ledger
        /// This product's row in the ledger is locked by another transaction.
        case locked
        /// This product's row in the ledger cannot be used.
        case row
        /// What Redis holds for this product cannot be used.
        case keys
    }

    /// Whose trouble it is.
    public var scope: Scope
    /// The first line of Redis' or PostgreSQL's own words.
    public var words: String

    /// The row was locked when the statement came by, and there was no time to wait for it.
    static let locked = ResyncFailure(.locked, "PostgreSQL: another transaction has locked the product's row")
    /// The dataset changed under each of its rounds.
    static let datasetMoves = ResyncFailure(.keys, "Redis: the product's dataset changed again and again")

    init(_ scope: Scope, _ words: String) {
        self.scope = scope
        self.words = words
    }

    init(_ failure: GateFailure) {
        self.init(failure.isOfProduct ? .keys : .redis, failure.words)
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

    /// What must change to be news. Who waits for a row and who has no time to wait say it in other words.
    var news: String { scope == .locked ? "locked" : words.withoutScript }

    /// Whether a statement for many that failed so may succeed for each alone.
    static func isOfMember(_ error: PostgresError) -> Bool {
        guard let state = error.sqlState, !error.isOutcomeUnknown else { return false }
        return ["55P03", "57014"].contains(state) || !wholeClasses.contains(String(state.prefix(2)))
    }

    /// Connections, transactions that may not write, resources, logins, databases, statements, the server's going away, its files.
    private static let wholeClasses: Set<String> = ["08", "25", "28", "3D", "42", "53", "57", "58"]
}

/// What became of one product's resync.
struct ResyncResult: Sendable {
    var outcome: Resync.Outcome
    /// Why, if it failed.
    var failure: ResyncFailure?

    static let untried = ResyncResult(outcome: .failed, failure: nil)
}
