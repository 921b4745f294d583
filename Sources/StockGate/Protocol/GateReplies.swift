/// What Redis replied to a reserve. The codes are those of `Scripts/reserve.lua`.
public enum ReserveReply: Hashable, Sendable {
    /// Units were taken from the counter under `fence`, and are pending under `token`. `left`: the counter after it.
    case reserved(fence: Fence, token: Token, left: Int64)
    /// The key is pending already, with the quantity that was recorded then.
    case joined(fence: Fence, token: Token, quantity: Quantity)
    /// The counter is smaller than the quantity.
    case soldOut(counter: Int64)
    /// Nothing is installed, or it was installed into another dataset or by another ledger, or the counter was lost.
    case notLoaded
    /// Loaded, and the install wrote that the product is discontinued.
    case notOnSale
    /// The key has a settled mark.
    case alreadyDone
}

/// What Redis replied to an apply. The codes are those of `Scripts/apply.lua`.
public enum ApplyReply: Int64, Hashable, Sendable {
    /// The delta is in the counter (or there is no counter, and none is needed).
    case applied = 0
    /// Redis is under an older fence: the delta is owed, and counted by the install that is to come.
    case behind = 1
    /// Redis is under a newer fence, whose install has counted it; or it holds another ledger's data, which is left alone.
    case passed = 2
}

/// What Redis replied to an install. The codes are those of `Scripts/install.lua`.
public enum InstallReply: Int64, Hashable, Sendable {
    /// Redis serves under this fence now.
    case installed = 0
    /// A newer fence is in, or this one.
    case newer = 1
    /// The dataset is not the one that was read before the bump: start over.
    case datasetChanged = 2
    /// Another ledger's data is in. Nothing was touched.
    case foreign = 3
}

/// What a look at one product's gate found.
public struct GateView: Hashable, Sendable {
    /// The dataset that Redis holds now: the connection's, and the product's marker.
    public var dataset: String
    /// The dataset that the product was installed into; nil if it never was.
    public var stamp: String?
    /// The fence that it was installed under; 0 if it never was.
    public var fence: Fence
    /// The counter; nil if the product is not loaded or not on sale, or if the counter was lost.
    public var counter: Int64?
    /// Whether the install wrote that the product is not on sale.
    public var isOffSale: Bool
    /// Reservations that are neither settled nor released.
    public var pending: Int

    /// The highest fence that anything in Redis names for the product: the installed one, or one that is owed something. 0: none.
    public var highestFence: Fence
    /// The name of the ledger that installed it; nil if nobody did, or a version that wrote no name.
    public var ledger: String?

    /// Creates a view. Without a highest fence it is the installed one.
    public init(
        dataset: String,
        stamp: String?,
        fence: Fence,
        counter: Int64?,
        pending: Int,
        isOffSale: Bool = false,
        highestFence: Fence? = nil,
        ledger: String? = nil
    ) {
        self.dataset = dataset
        self.stamp = stamp
        self.fence = fence
        self.counter = counter
        self.pending = pending
        self.isOffSale = isOffSale
        self.highestFence = max(fence, highestFence ?? fence)
        self.ledger = ledger
    }

    /// The name of another ledger whose data this is; nil if it is this one's, or nobody's. A ledger without a name tells nothing from its own.
    public func foreignLedger(to ledger: String) -> String? {
        guard let theirs = self.ledger, !ledger.isEmpty, theirs != ledger else { return nil }
        return theirs
    }

    /// Whether a reserve would be served. A counter that is missing was lost, unless the install wrote that there is none.
    public var isLoaded: Bool { fence > 0 && stamp == dataset && (counter != nil || isOffSale) }
}

/// A reservation that Redis holds.
public struct Held: Hashable, Sendable {
    /// The fence that it was made under.
    public var fence: Fence
    /// Its token.
    public var token: Token

    /// Names a reservation.
    public init(fence: Fence, token: Token) {
        self.fence = fence
        self.token = token
    }
}
