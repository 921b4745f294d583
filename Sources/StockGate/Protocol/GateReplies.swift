/// What Redis replied to a reserve. The codes are those of `Scripts/reserve.lua`.
public enum ReserveReply: Hashable, Sendable {
    /// Units were taken from the counter under `fence`, and are pending under `token`. `left` is the counter after that.
    case reserved(fence: Fence, token: Token, left: Int64)
    /// The key is pending already. `quantity` is what the first reserve recorded.
    case joined(fence: Fence, token: Token, quantity: Quantity)
    /// The counter is smaller than the quantity.
    case soldOut(counter: Int64)
    /// Redis cannot serve the product: nothing was installed, or it was installed into another dataset or by another ledger, or its counter was lost.
    case notLoaded
    /// The product is loaded, and its install says that it is discontinued.
    case notOnSale
    /// The key has a settled mark.
    case alreadyDone
}

/// What Redis replied to an apply. The codes are those of `Scripts/apply.lua`.
public enum ApplyReply: Int64, Hashable, Sendable {
    /// The delta was added to the counter, or there is no counter and none is needed.
    case applied = 0
    /// Redis is under an older fence. The delta is kept as owed, and the next install adds it.
    case behind = 1
    /// Redis is under a newer fence, whose install has counted the delta already; or it holds another ledger's data, which was left alone.
    case passed = 2
}

/// What Redis replied to an install. The codes are those of `Scripts/install.lua`.
public enum InstallReply: Int64, Hashable, Sendable {
    /// Redis serves under this fence now.
    case installed = 0
    /// Redis serves under this fence or a newer one already.
    case newer = 1
    /// The dataset is not the one that was read before the bump. The resync must start over.
    case datasetChanged = 2
    /// Redis holds another ledger's data. Nothing was touched.
    case foreign = 3
}

/// What a look at one product's gate found.
public struct GateView: Hashable, Sendable {
    /// The dataset that Redis holds now, made of the connection's part and the product's marker.
    public var dataset: String
    /// The dataset that the product was installed into; nil if it never was.
    public var stamp: String?
    /// The fence that it was installed under; 0 if it never was.
    public var fence: Fence
    /// The counter; nil if the product is not loaded or not on sale, or if the counter was lost.
    public var counter: Int64?
    /// Whether the install wrote that the product is not on sale.
    public var isOffSale: Bool
    /// Reservations that are still to be settled or released.
    public var pending: Int

    /// The highest fence that Redis holds for the product: the installed one, or one that an owed delta belongs to. 0 if there is none.
    public var highestFence: Fence
    /// The name of the ledger that installed the product; nil if nobody did, or a version that wrote no name.
    public var ledger: String?

    /// Creates a view. Without a highest fence, the installed one is taken.
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

    /// The name of the other ledger whose data this is; nil if the data is this ledger's or nobody's. A ledger without a name takes all
    /// data for its own.
    public func foreignLedger(to ledger: String) -> String? {
        guard let theirs = self.ledger, !ledger.isEmpty, theirs != ledger else { return nil }
        return theirs
    }

    /// Whether Redis would serve a reserve. A missing counter was lost, unless the install says that there is none.
    public var isLoaded: Bool { fence > 0 && stamp == dataset && (counter != nil || isOffSale) }
}

/// A reservation that Redis holds.
public struct Held: Hashable, Sendable {
    /// The fence that it was made under.
    public var fence: Fence
    /// Its token.
    public var token: Token

    /// Creates the name of a reservation.
    public init(fence: Fence, token: Token) {
        self.fence = fence
        self.token = token
    }
}
