public import StockGate

/// One order as the order database holds it, and what the order server makes of what it is told of the order's decrease: *The saga's side* of
/// `docs/protocol.md`. A test of the order server's holds the two together.
public struct OrderModel: Hashable, Sendable {
    /// Why an order failed.
    public enum Reason: Hashable, Sendable {
        /// Too little was left, or the product is not on sale.
        case stock
        /// The key was closed.
        case keyClosed
        /// The key that it took instead of another order's is another order's as well.
        case keyTaken
    }

    /// Where the order is.
    public enum Status: Hashable, Sendable {
        /// Nobody has placed it yet.
        case unplaced
        /// It waits for its decrease.
        case pending
        /// Its buyer was told yes.
        case confirmed
        /// It was confirmed, and its units went back.
        case cancelled
        /// Its buyer was told no.
        case failed(Reason)
    }

    /// What the answer to an attempt means for the order.
    public enum Verdict: Hashable, Sendable {
        /// The units are its own.
        case confirm
        /// It gets none.
        case fail(Reason)
        /// The key is another order's, whose id came round again. `isLedgersWord`: the ledger has compared, and says so; else it is seen by a replay or
        /// a closed key as the answer to a first attempt.
        case takeAnotherKey(isLedgersWord: Bool)
        /// Nothing is known: the same key again, as a repeat.
        case askAgain
    }

    /// Its letter in a world's line: what its id is made of. Two orders of one letter have the same id, the first of them lost with the database.
    public let letter: String
    /// The key that the database has for it.
    public var key: String
    /// Whether it took another key than its id's.
    public var hasOtherKey = false
    /// Where it is.
    public var status = Status.unplaced
    /// Whether nobody but its first driver can have begun to settle it.
    public var isFresh = true
    /// Whether the database was restored to before it was made.
    public var isLost = false

    /// An order that nobody has placed yet.
    public init(letter: String) {
        self.letter = letter
        key = "DEC-" + letter
    }

    /// What an answer means. `isFirst`: the key was not sent before for this order.
    public static func verdict(on answer: DecreaseAnswer, isFirst: Bool, fault: Fault? = nil) -> Verdict {
        switch answer {
        case .sold(_, replayed: true) where isFirst && fault != .replayConfirms: .takeAnotherKey(isLedgersWord: false)
        case .keyClosed where isFirst && fault != .closedKeyFails: .takeAnotherKey(isLedgersWord: false)
        case .keyReused: .takeAnotherKey(isLedgersWord: true)
        case .sold: .confirm
        case .keyClosed: .fail(.keyClosed)
        case .insufficient, .notOnSale, .productMissing: .fail(.stock)
        case .unavailable: .askAgain
        }
    }

    /// Writes what an answer means, if the order still waits under the key that it was about.
    /// - Parameter newKey: a key that no order has had
    /// - Returns: whether the order goes on under the new key
    public mutating func write(_ verdict: Verdict, of key: String, newKey: String, fault: Fault? = nil) -> Bool {
        guard status == .pending, self.key == key || fault == .newKeyUnwritten else { return false }
        switch verdict {
        case .confirm: status = .confirmed
        case .fail(let reason): status = .failed(reason)
        case .takeAnotherKey where hasOtherKey: status = .failed(.keyTaken)
        case .takeAnotherKey(let isLedgersWord):
            // Somebody else may have sent the key for this very order: the answer may be to that.
            guard isLedgersWord || isFresh || fault == .staleTakesKey else { return false }
            if fault != .newKeyUnwritten { self.key = newKey }
            hasOtherKey = true
            return true
        case .askAgain: break
        }
        return false
    }
}
