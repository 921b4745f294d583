import StockGate

/// One state of a small world: the two stores, the actors, and what is left of the fault budgets.
struct ExplorerState {
    /// A statement whose client is gone.
    enum Alive: Hashable {
        case commit(CommitRequest)
        case increase(IncreaseRequest)
    }

    /// What is neither in a store nor in an actor.
    struct Rest: Hashable {
        /// Which Redis process it is: half of the dataset's name.
        var run = 1
        /// Names the product's marker: its other half.
        var flushed = 0
        var flushes: Int
        var copies: Int
        var losses: Int
        var zombies: Int
        var deaths: Int
        var refusals: Int
        var resends: Int
        var copy: GateModel?
        var restores: Int
        var unheard: Int
        /// The orders of the order server, also those that were lost with a restored database.
        var orders: [OrderModel]
        var ledgerCopy: LedgerModel?
        /// Keys whose rows a restore has lost.
        var lost: [String] = []
        /// A commit has met an older fence than its reservation's.
        var sawAhead = false
        var alive: [Alive] = []
        var schedule = ResyncSchedule(interval: 0)
        /// This server's breaker keeps its requests away from Redis.
        var isOpen = false
        /// This server sells the product directly, for a recovery passed without it.
        var isDirect = false
        /// What Redis was under when a recovery left the product; what is under it must not be sold once the recovery has passed.
        var leftUnder: Fence?
        /// A promise that a step broke.
        var broken: String?
    }

    var ledger: LedgerModel
    var gate: GateModel
    var actors: [ExplorerActor]
    var rest: Rest

    var dataset: String { "r\(rest.run)" }
    var marker: String { "m\(rest.run).\(rest.flushed)" }
}

/// How one state led to the next, for the trace.
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
