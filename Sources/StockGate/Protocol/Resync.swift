// One resync of one product: read the dataset, raise the fence, install. No lock is held across the three steps.
//
// Invariant: an install carries the state that the statement returned which raised the fence, and goes into the dataset that was read before that.
// Bounds: starts over at most `Resync.maximumRounds` times, when the dataset changes in between.
// Stop: `isFinished`, with `outcome`.

/// The state of one resync.
public struct Resync: Hashable, Sendable {
    /// What the shell has to do next.
    public enum Action: Hashable, Sendable {
        /// Look at what Redis holds for the product, and make the product's marker if there is none.
        case look
        /// Read the product's fence in the ledger.
        case readFence
        /// Raise the fence, and return it with the stock and the status as that statement saw them.
        case bump
        /// Raise the fence above this one, which Redis holds, and return the same as `bump`. The ledger has lost the commits that raised it that far.
        case raise(above: Fence)
        case install(dataset: String, LedgerState)
        /// Nothing more.
        case finish
    }

    /// The ledger's state of a product, as the statement saw it that raised the fence.
    public struct LedgerState: Hashable, Sendable {
        /// The fence after it was raised.
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

    /// How the resync ended.
    public enum Outcome: Hashable, Sendable {
        /// Redis serves what was installed.
        case installed(LedgerState)
        /// Redis holds a newer fence already.
        case newer
        /// Redis was up to date.
        case notNeeded
        case productMissing
        /// Redis holds the data of another ledger, which has this name. The data is not used, and the product is sold without Redis.
        case foreign(String)
        /// Redis or the ledger did not answer, or the dataset changed in every round. Ask again.
        case failed

        /// Whether Redis now serves this product exactly, or is not to serve it at all. The breaker's recovery needs to know.
        public var hasSucceeded: Bool {
            switch self {
            case .installed, .newer, .notNeeded, .productMissing, .foreign: true
            case .failed: false
            }
        }

        /// The name of the other ledger whose data Redis holds; nil if it holds no such data.
        public var foreignLedger: String? {
            if case .foreign(let name) = self { name } else { nil }
        }
    }

    /// How often a resync starts over when the dataset changes under it.
    public static let maximumRounds = 4

    /// Where it is.
    public private(set) var state: State = .start
    /// Whether to install even if the fences are equal: for the breaker's recovery, at the start, or for an operator.
    public let isForced: Bool
    /// Whether the fence is raised by a leap, because the ledger has gone back to an earlier state. Without a leap it would hand out fences a second time that it
    /// had handed out in the lost history. A late message from that history could then be taken for one that belongs to the same number now.
    public let isLeaping: Bool
    private var rounds: UInt8 = 0
    private let ledgerName: String

    /// How far a leap goes: further than the fence of any product is raised between a commit and the loss of the server that made it. Beyond `lastFence` a leap goes
    /// no further.
    public static let leap: Int64 = 1 << 20
    /// The highest fence that a ledger reaches by itself.
    public static let lastFence = Fence(1 << 51)

    /// Creates a resync that has not begun. `ledger` is the name of this ledger. If it is empty, no data is taken for another ledger's. A leaping resync installs as
    /// a forced one does.
    public init(forced: Bool, leaping: Bool = false, ledger: String = "") {
        isForced = forced || leaping
        isLeaping = leaping
        ledgerName = ledger
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

    /// The gate was looked at. Redis is read before PostgreSQL, where fences only grow, so equal fences mean that Redis was exact when it was read. A larger
    /// fence in Redis comes from a history that the ledger has lost.
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
        if isLeaping { return leap(from: ledger.fence, view) }
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

    private mutating func leap(from fence: Fence, _ view: GateView) -> Action {
        // A fence that no ledger can have reached was not written by an install, and is ignored.
        let highest = view.highestFence > Self.lastFence ? fence : max(fence, view.highestFence)
        state = .raising(dataset: view.dataset)
        guard highest.rawValue < Self.lastFence.rawValue - Self.leap else { return .raise(above: Self.lastFence) }
        return .raise(above: Fence(highest.rawValue + Self.leap))
    }

    /// Redis replied to the install.
    public mutating func installReplied(_ reply: InstallReply) -> Action {
        guard case .installing(let ledger) = state else { return .finish }
        switch reply {
        case .installed: return finish(.installed(ledger))
        case .newer: return finish(.newer)
        // Somebody else changed Redis in between. The next look tells what it holds now.
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
