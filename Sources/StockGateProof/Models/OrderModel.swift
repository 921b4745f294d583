public import StockGate

/// One order as the order database holds it, and what the order server does with the answers about the order's decrease: *The saga's side* of
/// `docs/protocol.md`. A test of the order server compares the two.
public struct OrderModel: Hashable, Sendable {
    /// Why an order failed.
    public enum Reason: Hashable, Sendable {
        /// Too little was left, or the product is not on sale.
        case stock
        case keyClosed
        /// The key that the order took instead of another order's key belongs to another order too.
        case keyTaken
    }

    /// The order's state.
    public enum Status: Hashable, Sendable {
        /// Nobody has placed it yet.
        case unplaced
        /// It waits for its decrease.
        case pending
        /// Its buyer was told yes.
        case confirmed
        /// The order was confirmed, and then its units went back.
        case cancelled
        /// Its buyer was told no.
        case failed(Reason)
    }

    /// The meaning of the answer to an attempt.
    public enum Verdict: Hashable, Sendable {
        /// The units are the order's own.
        case confirm
        /// The order gets no units.
        case fail(Reason)
        /// The key belongs to another order, which had the same id. `isLedgersWord`: the ledger has compared the times and says so. Otherwise a replay or a
        /// closed key, as the answer to a first attempt, shows it.
        case takeAnotherKey(isLedgersWord: Bool)
        /// Nothing is known. The same key is asked again, as a repeat.
        case askAgain
    }

    /// The order's letter in a world's line, from which its id is made. Two orders with one letter have the same id; the first of them was lost with the
    /// database.
    public let letter: String
    /// The order's key in the database.
    public var key: String
    /// Whether the order has another key than the one of its id.
    public var hasOtherKey = false
    /// Where it is.
    public var status = Status.unplaced
    /// Whether only the order's first driver can have begun to settle it.
    public var isFresh = true
    /// Whether a restore of the database has lost the order.
    public var isLost = false

    /// An order that nobody has placed yet.
    public init(letter: String) {
        self.letter = letter
        key = "DEC-" + letter
    }

    /// The meaning of an answer. `isFirst`: the key was not sent before for this order.
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

    /// Writes the meaning of an answer, if the order still waits under the key that was asked about.
    /// - Parameter newKey: a key that no order has had
    /// - Returns: whether the order continues under the new key
    public mutating func write(_ verdict: Verdict, of key: String, newKey: String, fault: Fault? = nil) -> Bool {
        guard status == .pending, self.key == key || fault == .newKeyUnwritten else { return false }
        switch verdict {
        case .confirm: status = .confirmed
        case .fail(let reason): status = .failed(reason)
        case .takeAnotherKey where hasOtherKey: status = .failed(.keyTaken)
        case .takeAnotherKey(let isLedgersWord):
            // Another driver may have sent the key for this very order, and the answer may be about that.
            guard isLedgersWord || isFresh || fault == .staleTakesKey else { return false }
            if fault != .newKeyUnwritten { self.key = newKey }
            hasOtherKey = true
            return true
        case .askAgain: break
        }
        return false
    }
}
