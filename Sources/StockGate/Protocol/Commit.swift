/// One decrement on its way into the ledger.
public struct CommitRequest: Hashable, Sendable {
    /// What the buyer asked for.
    public var decrease: DecreaseRequest
    /// The fence of the reservation that Redis made for it; 0 without a reservation, on the direct path.
    public var fence: Fence
    /// The reservation's token. Without a reservation, the mark of a first attempt: the ledger keeps it, so that the attempt can tell its own row from an
    /// earlier order's. 0 if there is neither.
    public var token: Token
    /// Whether a reserve was sent: Redis may hold a reservation for this key.
    public var reserveSent: Bool
    /// Whether this is a repeat, or sent again after an unknown commit. A refusal of a firm request closes the key.
    public var isFirm: Bool

    /// Creates a commit. A fence comes with a token.
    public init(decrease: DecreaseRequest, fence: Fence, token: Token, reserveSent: Bool, isFirm: Bool) {
        self.decrease = decrease
        self.fence = fence
        self.token = token
        self.reserveSent = reserveSent
        self.isFirm = isFirm
    }
}

/// What the ledger decided about one decrement. The raw values are those of `stock_commit` (`Ledger/Migrations`).
public enum CommitOutcome: Int64, Hashable, Sendable, CaseIterable {
    /// Decremented, with a ledger row.
    case committed = 0
    /// Already decremented, under this very reservation.
    case duplicateMine = 1
    /// Already decremented, under another reservation or none.
    case duplicateOther = 2
    /// Too little left. If the request was firm, the key is closed now.
    case insufficient = 3
    /// The key is closed: refused for ever.
    case keyClosed = 4
    /// The product is discontinued.
    case notOnSale = 5
    case productMissing = 6
    /// The key was used with another payload, under another reservation or none.
    case keyReused = 7
    /// The key was used with another payload, by a twin that joined this very reservation.
    case keyReusedMine = 8
}

/// The ledger's reply to one decrement.
public struct CommitReply: Hashable, Sendable {
    /// What was decided.
    public var outcome: CommitOutcome
    /// The product's fence as the statement found it when it locked the row, before its own bump; 0 if there is no such product.
    public var lockedFence: Fence
    /// Whether the statement bumped this product's fence.
    public var bumped: Bool
    /// Stock after this decrement; for a duplicate, after the first one; else the stock that was not enough.
    public var remaining: Int64
    /// Whether the product was gated by Redis when its row was locked.
    public var isGated: Bool

    /// Creates a reply.
    public init(outcome: CommitOutcome, lockedFence: Fence, bumped: Bool, remaining: Int64, isGated: Bool) {
        self.outcome = outcome
        self.lockedFence = lockedFence
        self.bumped = bumped
        self.remaining = remaining
        self.isGated = isGated
    }
}

/// What the ledger decided about one increase. The raw values are those of `stock_increase`.
public enum IncreaseOutcome: Int64, Hashable, Sendable, CaseIterable {
    /// Units were given back.
    case added = 0
    /// Already in the ledger; nothing was added now.
    case duplicate = 1
    /// Its decrease never happened; the decrease's key is closed.
    case nothingToReturn = 2
    /// Already in the ledger as `nothingToReturn`.
    case duplicateNothing = 3
    /// The key belongs to something else: the decrease's key names another product, order or quantity. Nothing was changed, and the matching increase can still
    /// use this key.
    case keyReused = 4
    case productMissing = 5
}

/// The ledger's reply to one increase.
public struct IncreaseReply: Hashable, Sendable {
    /// What was decided.
    public var outcome: IncreaseOutcome
    /// The product's fence as the statement found it when it locked the row.
    public var lockedFence: Fence
    /// Whether the statement bumped this product's fence.
    public var bumped: Bool
    /// Units given back, now or by the first call.
    public var quantity: Quantity
    /// Stock after the increase.
    public var remaining: Int64
    /// Whether the product was gated by Redis when its row was locked.
    public var isGated: Bool

    /// Creates a reply.
    public init(outcome: IncreaseOutcome, lockedFence: Fence, bumped: Bool, quantity: Quantity, remaining: Int64, isGated: Bool) {
        self.outcome = outcome
        self.lockedFence = lockedFence
        self.bumped = bumped
        self.quantity = quantity
        self.remaining = remaining
        self.isGated = isGated
    }
}

/// Why a commit brought no decision.
public enum CommitFailure: Error, Hashable, Sendable {
    /// The commit was sent and not answered: it may have run, may still run, or may never run.
    case unknown
    /// The commit is known not to have run, for this reason.
    case notRun(Unavailable)
}

/// A row of the ledger as a lookup by key finds it.
public struct LedgerEntry: Hashable, Sendable {
    /// The product that the row belongs to.
    public var product: ProductID
    /// The order that it names.
    public var orderID: Int64
    /// The units of the row. For a closed key: the units that its closing named, or 0 if the row is from before they were kept.
    public var quantity: Quantity
    /// Stock after it.
    public var remaining: Int64
    /// `OUT`, `IN` or `CLOSED`.
    public var direction: Direction
    /// The reservation's fence; 0 without one, -1 if the row was archived.
    public var fence: Fence
    /// The reservation's token, or without one the mark of the attempt; 0 without either, or if the row was archived.
    public var token: Token

    /// What a row did to the stock.
    public enum Direction: String, Hashable, Sendable {
        /// It took units.
        case out = "OUT"
        /// It gave units.
        case `in` = "IN"
        /// It changed no stock: the key is refused for ever.
        case closed = "CLOSED"
    }

    /// Creates an entry.
    public init(product: ProductID, orderID: Int64, quantity: Quantity, remaining: Int64, direction: Direction, fence: Fence, token: Token)
    {
        self.product = product
        self.orderID = orderID
        self.quantity = quantity
        self.remaining = remaining
        self.direction = direction
        self.fence = fence
        self.token = token
    }
}
