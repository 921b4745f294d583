import StockGate

// The next steps of resyncs, the healer, the sweep, another ledger, and a recovery.

extension ExplorerRules {
    /// A step of a resync. `bumps` is the healer's count; nil for an actor that is a resync itself.
    func resync(_ index: Int, _ machine: PatchedResync, _ action: Resync.Action?, bumps: Int?, _ state: State, _ emit: Emit) {
        var machine = machine
        var after = state
        let what: StaticString
        var bumps = bumps
        let next: Resync.Action
        switch action ?? machine.began() {
        case .look:
            next = machine.looked(after.gate.look(newMarker: state.marker, dataset: state.dataset, fault: fault))
            what = "looked at Redis"
        case .readFence:
            next = machine.fenceRead(state.ledger.product(Self.product)?.fence)
            what = "read the fence"
        case .bump:
            next = machine.bumped(after.ledger.bump(Self.product))
            if let count = bumps { bumps = count + 1 }
            what = "bumped"
        case .raise(let above):
            guard let ledger = after.ledger.raise(Self.product, above: above) else { return }
            next = machine.raised(ledger)
            what = "raised the fence above Redis'"
        case .install(let dataset, let ledger):
            next = machine.installReplied(
                after.gate.install(ledger, read: dataset, dataset: state.dataset, ledger: Self.ours, fault: fault)
            )
            what = "installed, or not any more"
        case .finish: return
        }
        guard let bumps else {
            after.actors[index] = next == .finish ? .done(.nothing) : .resync(machine, next)
            if machine.outcome != nil, state.rest.isSentBefore(index) { endedAtOldNode(index, &after) }
            emit(after, ExplorerMove(index, what))
            return
        }
        after.actors[index] = next == .finish ? .healer(nil, nil, bumps: bumps) : .healer(machine, next, bumps: bumps)
        // A resync that succeeds ends the direct sale, unless the ledger has gone back since it began, or its node serves the slot no more.
        if machine.outcome?.hasSucceeded == true, !state.rest.isMoved || machine.isLeaping, !state.rest.isSentBefore(index) {
            after.rest.isDirect = false
            after.rest.isMoved = false
        }
        if machine.outcome != nil { after.rest.answered(index) }
        if let outcome = machine.outcome, case .run(let forced) = after.rest.schedule.ended(succeeded: outcome.hasSucceeded, at: 0) {
            heal(&after, forced: forced)
        }
        emit(after, ExplorerMove(index, what))
    }

    /// A resync has ended at the node where it began, which serves the slot no more. It may have raised the fence, of which the new node has heard nothing.
    func endedAtOldNode(_ index: Int, _ state: inout State) {
        state.rest.answered(index)
        if fault != .oldResyncSilent { ask(&state) }
    }

    /// A resync by another ledger, which has its own fence, and a stock that nobody buys.
    func foreign(_ index: Int, _ machine: PatchedResync, _ action: Resync.Action?, _ state: State, _ emit: Emit) {
        var machine = machine
        var after = state
        let what: StaticString
        let next: Resync.Action
        // The other ledger uses the same fence number as ours on purpose: a message that names this number for one ledger must not be taken for the other's.
        let theirs = Resync.LedgerState(
            fence: max(state.ledger.product(Self.product)?.fence ?? 1, state.gate.fence.next),
            stock: Self.theirStock,
            isOnSale: true
        )
        switch action ?? machine.began() {
        case .look:
            next = machine.looked(after.gate.look(newMarker: state.marker, dataset: state.dataset))
            what = "looks for another ledger"
        case .bump, .readFence, .raise:
            next = machine.bumped(theirs)
            what = "bumps in another ledger"
        case .install(let dataset, let ledger):
            next = machine.installReplied(after.gate.install(ledger, read: dataset, dataset: state.dataset, ledger: Self.theirs))
            what = "installs for another ledger"
        case .finish: return
        }
        after.actors[index] = next == .finish ? .done(.nothing) : .resync(machine, next)
        emit(after, ExplorerMove(index, what))
    }

    /// The fault of a sweep that gives overdue reservations back.
    func giveBack(_ index: Int, _ state: State, _ emit: Emit) {
        var after = state
        let entries = state.gate.pending.map {
            GateModel.ReleaseEntry(key: $0.key, held: Held(fence: state.gate.fence, token: $0.token), isAbandoned: false)
        }
        _ = after.gate.release(entries)
        after.actors[index] = .done(.nothing)
        emit(after, ExplorerMove(index, "gives overdue reservations back"))
    }

    /// Whether this server sends the actor's requests past Redis.
    func isKept(_ index: Int, _ state: State) -> Bool {
        (state.rest.isOpen || state.rest.isDirect) && !world.actors[index].hasPrefix("~")
    }

    func leavesForeignAlone(_ before: State, _ after: inout State) {
        if before.gate.isForeign(to: Self.ours), before.gate != after.gate { after.rest.broken = "another ledger's data was changed" }
    }

    func recovery(_ index: Int, _ next: ExplorerActor.Recovery, _ state: State, _ emit: Emit) {
        var after = state
        let what: StaticString
        switch next {
        case .opens:
            after.rest.isOpen = true
            after.actors[index] = .recovery(.leaves)
            what = "breaker opens"
        case .leaves:
            // The fence of another ledger says nothing about ours.
            if !state.gate.isForeign(to: Self.ours) { after.rest.leftUnder = state.gate.fence }
            _ = after.gate.void(ledger: Self.ours, fault: fault)
            leavesForeignAlone(state, &after)
            after.rest.isDirect = true
            after.actors[index] = .recovery(.passes)
            what = "recovery finds the row locked and voids the product"
        case .passes:
            after.rest.isOpen = false
            after.actors[index] = .recovery(.asks)
            what = "recovery passes without the product"
        case .asks:
            if fault != .leftForever { ask(&after, forced: true) }
            after.actors[index] = .done(.nothing)
            what = "asks for what was left"
        }
        emit(after, ExplorerMove(index, what))
    }

    func ask(_ state: inout State, forced: Bool = false) {
        guard healer != nil else { return }
        if fault == .askDroppedWhileRunning, !state.rest.schedule.isIdle { return }
        if case .run(let forced) = state.rest.schedule.asked(forced: forced, at: 0) { heal(&state, forced: forced) }
    }

    func heal(_ state: inout State, forced: Bool) {
        guard let healer, case .healer(_, _, let bumps) = state.actors[healer] else { return }
        var machine = PatchedResync(forced: forced, leaping: state.rest.isMoved, ledger: Self.ours, fault: fault)
        let action = machine.began()
        state.actors[healer] = .healer(machine, action, bumps: bumps)
    }

    /// Does a whole resync in one step.
    static func resync(_ state: inout State, fault: Fault?) {
        var machine = PatchedResync(forced: true, ledger: ours, fault: fault)
        var action = machine.began()
        while true {
            switch action {
            case .look: action = machine.looked(state.gate.look(newMarker: state.marker, dataset: state.dataset, fault: fault))
            case .bump: action = machine.bumped(state.ledger.bump(product))
            case .raise(let above):
                guard let ledger = state.ledger.raise(product, above: above) else { return }
                action = machine.raised(ledger)
            case .install(let read, let ledger):
                let reply = state.gate.install(ledger, read: read, dataset: state.dataset, ledger: ours, fault: fault)
                action = machine.installReplied(reply)
            case .readFence, .finish: return
            }
        }
    }
}
