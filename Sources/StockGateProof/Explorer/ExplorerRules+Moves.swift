import StockGate

// The product's slot moves to another node of Redis Cluster while messages are under way.
//
// The server leaves the product and asks for a resync, which raises the fence and installs at the new node. A message that was sent to the old node before is
// answered there, or refused (MOVED), in which case it has not run; or it had not left yet, and goes to the new node.

extension ExplorerRules {
    func move(_ state: State, _ emit: Emit) {
        func move(_ gate: GateModel, _ what: StaticString) {
            var after = state
            after.rest.moves -= 1
            after.rest.oldNode = state.gate
            after.rest.node ^= 1
            after.gate = gate
            after.rest.sentBefore = 0
            for index in state.actors.indices where isAtRedis(state.actors[index]) { after.rest.sentBefore |= 1 << UInt8(index) }
            if fault == .movedAsItIs {
                after.gate.stamp = after.gate.marker.map { after.dataset + ":" + $0 }
            } else {
                after.rest.isDirect = true
                if fault == .moveForgetsLeap { after.rest.isMoved = false }
                if fault != .moveUnasked { ask(&after, forced: true) }
            }
            emit(after, ExplorerMove(-1, what))
        }
        move(state.gate, "the slot moves with its keys")
        // A replica that takes over may have heard of nothing. A node that had the slot before has kept what it had.
        move(state.rest.oldNode ?? GateModel(), "the slot moves without its keys")
    }

    /// Whether an actor has a message to Redis under way, or a resync that keeps to the node where it began.
    private func isAtRedis(_ actor: ExplorerActor) -> Bool {
        switch actor {
        case .buyer(let buyer):
            switch buyer.action {
            case .reserve, .settle, .release, .abandon, .apply: true
            case .awaitResync, .lookUp, .commit, .bump, .finish, nil: false
            }
        case .returning(_, .apply, _): true
        case .resync(_, let action): action != nil
        case .healer(let machine, _, _): machine != nil
        default: false
        }
    }

    /// The next steps of an actor whose message was sent before the last move.
    func sentBefore(_ index: Int, _ state: State, _ emit: Emit) {
        var here = state
        here.rest.answered(index)
        switch state.actors[index] {
        case .buyer(let buyer):
            steps(index, here, emit)
            let there = atOldNode(here)
            if case .reserve = buyer.action {
                reserve(index, buyer, there) { emit(asSeenNow($0, before: state), $1) }
            } else {
                self.buyer(index, buyer, there) { emit(asSeenNow($0, before: state), $1) }
            }
            refused(index, buyer, here, emit)
        case .returning(let machine, .apply, let told):
            steps(index, here, emit)
            steps(index, atOldNode(here)) { emit(asSeenNow($0, before: state), $1) }
            var machine = machine
            let step = machine.applyFailed()
            here.actors[index] = step.action == .finish ? .done(told) : .returning(machine, step.action, told)
            if step.asksForResync { ask(&here) }
            emit(here, ExplorerMove(index, "apply refused: moved"))
        case .resync:
            steps(index, atOldNode(state)) { emit(asSeenNow($0, before: state), $1) }
            here.actors[index] = .done(.nothing)
            endedAtOldNode(index, &here)
            emit(here, ExplorerMove(index, "resync refused: moved"))
        case .healer(_?, _, let bumps):
            steps(index, atOldNode(state)) { emit(asSeenNow($0, before: state), $1) }
            here.actors[index] = .healer(nil, nil, bumps: bumps)
            if case .run(let forced) = here.rest.schedule.ended(succeeded: false, at: 0) { heal(&here, forced: forced) }
            emit(here, ExplorerMove(index, "resync refused: moved"))
        default: steps(index, here, emit)
        }
    }

    /// The old node knows of the move: it has run nothing.
    private func refused(_ index: Int, _ buyer: ExplorerActor.Buyer, _ state: State, _ emit: Emit) {
        var after = state
        switch buyer.action {
        case .reserve: buyerStep(index, buyer, &after) { $0.reserveFailed(sent: false) }
        case .apply: buyerStep(index, buyer, &after) { $0.applyFailed() }
        case .settle, .release, .abandon: buyerFinished(index, buyer, &after)
        case .awaitResync, .lookUp, .commit, .bump, .finish, nil: return
        }
        emit(after, ExplorerMove(index, "refused: moved"))
    }

    /// The state as the node sees it that had the slot before the last move.
    private func atOldNode(_ state: State) -> State {
        var there = state
        there.gate = state.rest.oldNode ?? GateModel()
        there.rest.node ^= 1
        return there
    }

    /// The state after a step at the old node, as the others see it.
    private func asSeenNow(_ there: State, before: State) -> State {
        var after = there
        after.rest.oldNode = there.gate
        after.gate = before.gate
        after.rest.node ^= 1
        return after
    }
}
