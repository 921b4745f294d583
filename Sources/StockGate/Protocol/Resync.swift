// One resync of one product: read the dataset, bump, install. Nothing is locked across the three.
//
// Invariant: what is installed was read by the statement that raised the fence, and goes into the dataset that was read before it.
// Bounds: starts over at most `Resync.maximumRounds` times when the dataset changes under it.
// Stop: `isFinished`, with `outcome`.

/// The state of one resync.
public struct Resync: Hashable, Sendable {
    /// What the shell has to do next.
    public enum Action: Hashable, Sendable {
        /// Look at the product's gate, making its marker if it has none.
        case look
        /// Read the product's fence in the ledger.
        case readFence
        /// Raise the fence, and return it with stock and status as of that statement.
        case bump
        /// Raise the fence above this one, which Redis holds, and return it likewise: the ledger lost what it had promised to Redis.
        case raise(above: Fence)
        /// Install into this dataset.
        case install(dataset: String, LedgerState)
        /// Nothing more.
        case finish
    }

    /// What a bump returns: the ledger's state as of that statement.
    public struct LedgerState: Hashable, Sendable {
        /// The fence, raised.
        public var fence: Fence
        /// Units in stock.
        public var stock: Int64
        /// Whether the product is on sale.
        public var isOnSale: Bool

        /// Creates a state.
        public init(fence: Fence, stock: Int64, isOnSale: Bool) {
            self.fence = fence
            self.stock = stock
            self.isOnSale = isOnSale
        }
    }

    /// Where the resync is.
    public enum State: Hashable, Sendable {
        /// -> looking
        case start
        /// -> comparing, bumping, finished
        case looking
        /// -> bumping, raising, finished
        case comparing(GateView)
        /// -> installing, raising, finished
        case bumping(GateView)
        /// Redis is ahead of the ledger. -> installing, finished
        case raising(dataset: String)
        /// -> looking, finished
        case installing(LedgerState)
        /// The end.
        case finished(Outcome)
    }

    /// How a resync ended.
    public enum Outcome: Hashable, Sendable {
        /// Redis serves what was installed.
        case installed(LedgerState)
        /// A newer fence is in already.
        case newer
        /// Nothing was behind any more.
        case notNeeded
        /// The product is not in the ledger.
        case productMissing
        /// Redis holds the data of another ledger, which has this name: it is not used, and the product is sold without Redis.
        case foreign(String)
        /// Redis or the ledger did not answer, or the dataset kept changing. Ask again.
        case failed

        /// Whether Redis serves this product exactly now, or is not to serve it at all. The breaker's gate asks this.
        public var hasSucceeded: Bool {
            switch self {
            case .installed, .newer, .notNeeded, .productMissing, .foreign: true
            case .failed: false
            }
        }

        /// The name of the ledger whose data is in the way.
        public var foreignLedger: String? {
            if case .foreign(let name) = self { name } else { nil }
        }
    }

    /// How often a resync starts over when the dataset changes under it.
    public static let maximumRounds = 4

    /// Where it is.
    public private(set) var state: State = .start
    /// Whether to install even if the fences look equal: the breaker's gate, start-up, an operator.
    public let isForced: Bool
    private var rounds: UInt8 = 0
    private let ledgerName: String

    /// A resync that has not begun. `ledger`: the name of the ledger whose products these are; without one no gate is another's.
    public init(forced: Bool, ledger: String = "") {
        self.isForced = forced
        self.ledgerName = ledger
    }

    /// Whether nothing more will happen.
    public var isFinished: Bool { outcome != nil }

    /// How it ended; nil before.
    public var outcome: Outcome? {
        if case .finished(let outcome) = state { outcome } else { nil }
    }

    /// The resync begins.
    public mutating func began() -> Action {
        state = .looking
        rounds += 1
        return .look
    }

    /// The gate was looked at. Redis is read before PostgreSQL, where fences only grow: equal fences mean that Redis was exact when it was read. A fence of
    /// Redis' that is larger comes from a history that the ledger has lost.
    public mutating func looked(_ view: GateView) -> Action {
        if let theirs = view.foreignLedger(to: ledgerName) { return finish(.foreign(theirs)) }
        if isForced || !view.isLoaded {
            state = .bumping(view)
            return .bump
        }
        state = .comparing(view)
        return .readFence
    }

    /// The ledger's fence was read; nil: no such product.
    public mutating func fenceRead(_ fence: Fence?) -> Action {
        guard case .comparing(let view) = state else { return .finish }
        guard let fence else { return finish(.productMissing) }
        if fence < view.highestFence { return raise(view) }
        if fence == view.fence { return finish(.notNeeded) }
        state = .bumping(view)
        return .bump
    }

    /// The fence was raised; nil: no such product.
    public mutating func bumped(_ ledger: LedgerState?) -> Action {
        guard case .bumping(let view) = state else { return .finish }
        guard let ledger else { return finish(.productMissing) }
        if ledger.fence <= view.highestFence { return raise(view) }
        state = .installing(ledger)
        return .install(dataset: view.dataset, ledger)
    }

    /// The fence was raised above what Redis holds.
    public mutating func raised(_ ledger: LedgerState) -> Action {
        guard case .raising(let dataset) = state else { return .finish }
        state = .installing(ledger)
        return .install(dataset: dataset, ledger)
    }

    private mutating func raise(_ view: GateView) -> Action {
        state = .raising(dataset: view.dataset)
        return .raise(above: view.highestFence)
    }

    /// Redis replied to the install.
    public mutating func installReplied(_ reply: InstallReply) -> Action {
        guard case .installing(let ledger) = state else { return .finish }
        switch reply {
        case .installed: return finish(.installed(ledger))
        case .newer: return finish(.newer)
        // Somebody was faster; the next look says who.
        case .datasetChanged, .foreign: return rounds < Self.maximumRounds ? began() : finish(.failed)
        }
    }

    /// Redis or the ledger failed, or did not answer.
    public mutating func stepFailed() -> Action {
        finish(.failed)
    }

    private mutating func finish(_ outcome: Outcome) -> Action {
        state = .finished(outcome)
        return .finish
    }
}
