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
        var alive: [Alive] = []
        var schedule = ResyncSchedule(interval: 0)
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
