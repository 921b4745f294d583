import StockGate

/// One state of a small world: the two stores, the actors, and the remaining budgets of faults.
struct ExplorerState {
    /// A statement that still runs although its client has gone.
    enum Alive: Hashable {
        case commit(CommitRequest)
        case increase(IncreaseRequest)
    }

    /// The parts of a state that are neither in a store nor in an actor.
    struct Rest: Hashable {
        /// The number of the Redis process, which is one half of the dataset's name.
        var run = 1
        /// The number of the product's marker, which is the other half.
        var flushed = 0
        var flushes: Int
        var copies: Int
        var losses: Int
        var zombies: Int
        var deaths: Int
        var refusals: Int
        var resends: Int
        var copy: GateModel?
        var moves: Int
        /// Which of two nodes serves the product's slot.
        var node: UInt8 = 0
        /// What the node holds that served the slot before the last move.
        var oldNode: GateModel?
        /// Actors whose message was sent before the last move, a bit each by their places. A resync keeps to the node where it began.
        var sentBefore: UInt8 = 0
        var restores: Int
        var failovers: Int
        var cancels: Int
        /// What the ledger's standby has; nil without one.
        var standby: LedgerModel?
        /// The primary that was replaced. It still takes statements.
        var old: LedgerModel?
        /// Whether this server's sessions have not found the new primary yet.
        var isOnOld = false
        /// Whether the last commit can be seen, but did not wait for the standby.
        var isUnreplicated = false
        var unheard: Int
        /// The orders of the order server, including those that a restore has lost.
        var orders: [OrderModel]
        var ledgerCopy: LedgerModel?
        /// Keys whose rows a restore has lost.
        var lost: [String] = []
        /// Whether a commit has met an older fence than its reservation's.
        var sawAhead = false
        var alive: [Alive] = []
        var schedule = ResyncSchedule(interval: 0)
        /// Whether this server's breaker keeps its requests away from Redis.
        var isOpen = false
        /// Whether this server sells the product directly, because a recovery passed without it.
        var isDirect = false
        /// Whether the ledger has gone back since this server's last install.
        var isMoved = false
        /// The fence of Redis when a recovery left the product. After that recovery nothing must be sold under this fence.
        var leftUnder: Fence?
        /// A promise that a step broke.
        var broken: String?

        func isSentBefore(_ actor: Int) -> Bool { sentBefore & (1 << UInt8(actor)) != 0 }
        mutating func answered(_ actor: Int) { sentBefore &= ~(1 << UInt8(actor)) }
    }

    var ledger: LedgerModel
    var gate: GateModel
    var actors: [ExplorerActor]
    var rest: Rest

    /// Each node has a name of its own.
    var dataset: String { rest.node == 0 ? "r\(rest.run)" : "r\(rest.run)n" }
    var marker: String { "m\(rest.run).\(rest.flushed)" }
}

/// The step that led from one state to the next, for the trace.
struct ExplorerMove {
    var actor: Int
    var what: StaticString
    var outcome: CommitOutcome?

    init(_ actor: Int, _ what: StaticString, _ outcome: CommitOutcome? = nil) {
        self.actor = actor
        self.what = what
        self.outcome = outcome
    }
}
