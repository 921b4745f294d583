import StockGate

// The promises that every state must keep.

extension ExplorerRules {
    /// The promise that this state breaks, except those of the ledger itself (`LedgerModel.violation`).
    func violation(_ state: State) -> String? {
        if let broken = state.rest.broken { return broken }
        if let healer, case .healer(_, _, let bumps) = state.actors[healer], bumps > world.resyncs { return "resyncs without end" }
        if state.gate.ledger == Self.theirs, state.gate.counter != Self.theirStock || !state.gate.pending.isEmpty {
            return "another ledger's data was used"
        }
        guard state.rest.alive.isEmpty, state.rest.schedule.isIdle, !state.rest.isOnOld,
            state.actors.indices.allSatisfy({ isAtRest(state, $0) })
        else {
            return nil
        }
        guard let row = state.ledger.product(Self.product) else { return "the product is gone" }
        let isDead = state.actors.contains(.dead)
        let isServed = state.gate.isLoaded(dataset: state.dataset, ledger: Self.ours, fault: fault)
        let isRestored = state.rest.restores < world.restores
        if isRestored, healer != nil, !isDead, state.rest.sawAhead, isServed, state.gate.fence > row.fence {
            return "Redis is seen to be ahead, and nobody heals"
        }
        // A restore can leave another stock under an equal fence. Only the audit finds that.
        if !isDead, !isRestored, isServed, state.gate.fence == row.fence {
            // A caller that was told that nothing was decided may have left a reservation to the sweep. No unit is lost by that.
            let isLeft = state.actors.contains(.done(.unavailable))
            if !Self.isExact(state, row, countingPending: isLeft) { return "not exact under one fence" }
        }
        if healer != nil, !isDead, state.rest.isDirect { return "left direct for ever" }
        if healer != nil, !isDead, !isRestored, world.zombies == 0, isServed, state.gate.fence != row.fence { return "nobody heals" }
        var healed = state
        Self.resync(&healed, fault: fault)
        if state.gate.isForeign(to: Self.ours) {
            if healed.gate != state.gate { return "another ledger's data was overwritten" }
        } else if let row = healed.ledger.product(Self.product),
            row.fence != healed.gate.fence || !Self.isExact(healed, row, countingPending: false)
                || !healed.gate.isLoaded(dataset: healed.dataset, ledger: Self.ours, fault: fault)
        {
            return "a resync does not heal"
        }
        if !state.rest.orders.isEmpty, let broken = orderViolation(state) { return broken }
        for (index, actor) in state.actors.enumerated() {
            guard case .done(let told) = actor, !world.actors[index].contains("#"), !world.actors[index].hasPrefix("&") else { continue }
            if let broken = answer(world.actors[index], told, state) { return broken }
        }
        return nil
    }

    /// Whether an actor waits for ever, as a sweep does that finds nothing pending.
    func isAtRest(_ state: State, _ index: Int) -> Bool {
        switch state.actors[index] {
        case .resync(_, nil) where world.actors[index] == "sweep": state.gate.pending.isEmpty
        // There is nothing to cancel, or no order to go on with.
        case .canceller: isIdle(index, state)
        case .order(let driver) where driver.next == .goOn: isIdle(index, state)
        default: state.actors[index].isAtRest
        }
    }

    /// Actors that get no answer.
    private static let silent: Set<String> = [
        "recovery", "mend", "resync", "sweep", "foreign", "healer", "db-only", "restock", "delete", "relist", "+",
    ]

    func answer(_ name: String, _ told: Told, _ state: State) -> String? {
        let ledger = state.ledger
        guard !Self.silent.contains(name) else { return nil }
        let request = Self.increase(String(name.drop { $0 == "?" || $0 == "/" || $0 == "-" || $0 == "~" }))
        // The restore lost the row, so the answer differs from the ledger without a fault.
        guard !state.rest.lost.contains(request.decreaseKey), !state.rest.lost.contains(request.key) else { return nil }
        let isCommitted = ledger.row(request.decreaseKey)?.direction == .out
        if name.hasPrefix("/") { return told == .yes && !isCommitted ? "\(name) told what is lost" : nil }
        let isReturned = ledger.row(request.key)?.direction == .in
        if name.hasPrefix("-") || name.hasPrefix("?") && told == .reused {
            // Units and remaining stock are checked by the ledger. What matters here is which of the three answers it was.
            let answer: IncreaseAnswer? =
                switch told {
                case .yes: .added(quantity: request.quantity, remaining: 0, replayed: false)
                case .finalNo: .nothingToReturn(remaining: 0, replayed: false)
                case .reused: .keyReused
                case .no, .discontinued, .nothing, .unavailable: nil
                }
            return answer.flatMap { ledger.violation(of: $0, to: request) }
        }
        if told == .yes, !isCommitted, !name.hasPrefix("?") { return "\(name) told yes, not committed" }
        if told == .discontinued, !world.actors.contains("delete") {
            return "\(name) told that the product is discontinued, and it never was"
        }
        if told == .finalNo, isCommitted, !isReturned { return "\(name) told no, committed" }
        return nil
    }

    static func isExact(_ state: State, _ row: LedgerModel.Product, countingPending: Bool) -> Bool {
        let pending = state.gate.pending.reduce(0) { $0 + $1.quantity.rawValue }
        guard pending == 0 || countingPending else { return false }
        guard row.isOnSale else { return state.gate.counter == nil }
        return state.gate.counter.map { $0 + pending } == row.stock
    }
}
