import StockGate

// The next steps of buyers, and of actors that give units back.

extension ExplorerRules {
    func buyer(
        _ index: Int,
        _ buyer: ExplorerActor.Buyer,
        _ state: State,
        _ emit: Emit
    ) {
        func next(
            _ state: State,
            _ what: StaticString,
            _ outcome: CommitOutcome? = nil,
            _ event: (inout PatchedReservation) -> Reservation.Step
        ) {
            var after = state
            buyerStep(index, buyer, &after, event)
            emit(after, ExplorerMove(index, what, outcome))
        }
        let machine = buyer.machine
        // The answer may be written at once, or after the request has done all its work.
        if let driver = buyer.order, case .write(let verdict) = driver.next { write(index, driver, verdict, tail: buyer, state, emit) }
        guard let action = buyer.action else {
            let isKept = isKept(index, state)
            if !world.calm || isKept { next(state, "breaker open: direct") { $0.began(throughGate: false) } }
            if isKept { return }
            var begun = buyer
            _ = begun.machine.began(throughGate: true)
            reserve(index, begun, state, emit)
            return
        }
        switch action {
        case .reserve where isKept(index, state): next(state, "no longer through Redis: direct") { $0.reserveFailed(sent: false) }
        case .reserve: reserve(index, buyer, state, emit)
        case .awaitResync:
            if state.gate.isLoaded(dataset: state.dataset, ledger: Self.ours, fault: fault) {
                next(state, "resynced") { $0.resyncEnded(loaded: true) }
            }
            if !world.calm { next(state, "did not wait for the resync: direct") { $0.resyncEnded(loaded: false) } }
        case .lookUp:
            let entry = state.ledger.lookUp(machine.request.key)
            next(state, "looked up") { $0.lookedUp(entry) }
        case .commit(let request):
            if fault == .lookupBeforeLock, buyer.staleRows == nil {
                var after = state
                var looked = buyer
                looked.staleRows = state.ledger.rows
                after.actors[index] = .buyer(looked)
                emit(after, ExplorerMove(index, "looked up before the lock"))
                return
            }
            commitAtOld(request, state) { after, reply in
                next(after, "commit at the old primary", reply.outcome) { $0.committed(reply) }
            }
            // This server's statements reach the new primary only over sessions that have found it.
            if state.rest.isOnOld { return }
            var after = state
            if let reply = try? after.ledger.commit([request], lookedUpIn: buyer.staleRows, fault: fault).first {
                // The statement locks the row, which is written to the log: its commit waits for the standby, even if it changes nothing.
                if world.isSynchronous, after.rest.standby != nil, fault != .repeatNotReplicated { after.rest.standby = after.ledger }
                if state.rest.cancels > 0, state.rest.standby != nil {
                    var seen = after
                    seen.rest.cancels -= 1
                    seen.rest.standby = state.rest.standby
                    seen.rest.isUnreplicated = true
                    next(seen, "commit, wait for the standby cancelled") { machine in
                        fault == .warningIgnored ? machine.committed(reply) : machine.commitFailed(.unknown)
                    }
                }
                if reply.lockedFence > 0, reply.lockedFence < request.fence { after.rest.sawAhead = true }
                next(after, "commit", reply.outcome) { $0.committed(reply) }
            }
            if state.rest.zombies > 0 {
                var after = state
                after.rest.zombies -= 1
                after.rest.alive.append(.commit(request))
                next(after, "connection lost, statement alive") { $0.commitFailed(.unknown) }
            }
            if state.rest.refusals > 0 {
                var after = state
                after.rest.refusals -= 1
                next(after, "commit known not to have run") { $0.commitFailed(.notRun(.lockTimeout)) }
            }
        case .settle(let held):
            var after = state
            _ = after.gate.settle(
                [GateModel.SettleEntry(key: machine.request.key, held: held)],
                now: 0,
                retention: Self.retention,
                fault: fault
            )
            buyerFinished(index, buyer, &after)
            emit(after, ExplorerMove(index, "settled"))
            resend(index, state, after, emit)
        case .release(let held), .abandon(let held):
            let isAbandoned = if case .abandon = action { true } else { false }
            var after = state
            _ = after.gate.release(
                [GateModel.ReleaseEntry(key: machine.request.key, held: held, isAbandoned: isAbandoned)],
                fault: fault
            )
            buyerFinished(index, buyer, &after)
            emit(after, ExplorerMove(index, isAbandoned ? "abandoned" : "released"))
            resend(index, state, after, emit)
        case .apply(let fence, let delta):
            applied(.init(fence: fence, delta: delta, key: machine.request.key), state) { after, what, reply in
                next(after, what) { if let reply { $0.applied(reply) } else { $0.applyFailed() } }
            }
        case .bump: next(bumped(state), "bumped") { $0.bumped() }
        case .finish: break
        }
    }

    /// The ways in which a message to Redis about committed units can end, each with what Redis answered; nil: the answer was lost, or the message.
    private func applied(_ entry: GateModel.ApplyEntry, _ state: State, _ next: (State, StaticString, ApplyReply?) -> Void) {
        var after = state
        guard let reply = after.gate.apply([entry], now: 0, ledger: Self.ours, fault: fault).first else { return }
        next(after, "applied", reply)
        if !world.calm {
            next(state, "apply lost", nil)
            next(after, "applied, reply lost", nil)
        }
    }

    /// The state with the product's fence raised.
    private func bumped(_ state: State) -> State {
        var after = state
        _ = after.ledger.bump(Self.product)
        return after
    }

    /// A message ran, its answer was lost, and it is sent again.
    func resend(_ index: Int, _ before: State, _ after: State, _ emit: Emit) {
        guard before.rest.resends > 0 else { return }
        var again = after
        again.rest.resends -= 1
        again.actors[index] = before.actors[index]
        emit(again, ExplorerMove(index, "ran, reply lost: sent again"))
    }

    /// A reserve runs and is answered, or it runs and its answer is lost, or it does not run, which nobody knows.
    func reserve(_ index: Int, _ buyer: ExplorerActor.Buyer, _ state: State, _ emit: Emit) {
        var after = state
        let request = buyer.machine.request
        let reply = after.gate.reserve(
            key: request.key,
            quantity: request.quantity,
            dataset: state.dataset,
            now: 0,
            ledger: Self.ours,
            fault: fault
        )
        switch reply {
        case .reserved, .joined, .soldOut, .notOnSale:
            if let left = state.rest.leftUnder, state.gate.fence <= left, !state.rest.isOpen {
                after.rest.broken = "sold through what a recovery left"
            }
        case .notLoaded, .alreadyDone: break
        }
        var answered = after
        buyerStep(index, buyer, &answered) { $0.reserveReplied(reply) }
        let what: StaticString =
            switch reply {
            case .reserved: "reserved"
            case .joined: "joined"
            case .soldOut: "sold out"
            case .notLoaded: "not loaded"
            case .notOnSale: "not on sale"
            case .alreadyDone: "already done"
            }
        emit(answered, ExplorerMove(index, what))
        guard !world.calm else { return }
        var unsent = state
        buyerStep(index, buyer, &unsent) { $0.reserveFailed(sent: true) }
        emit(unsent, ExplorerMove(index, "reserve timed out before Redis ran it: direct"))
        buyerStep(index, buyer, &after) { $0.reserveFailed(sent: true) }
        emit(after, ExplorerMove(index, "reserve ran, reply lost: direct"))
    }

    func buyerStep(
        _ index: Int,
        _ before: ExplorerActor.Buyer,
        _ state: inout State,
        _ event: (inout PatchedReservation) -> Reservation.Step
    ) {
        var buyer = before
        let step = event(&buyer.machine)
        (buyer.action, buyer.staleRows) = (step.action, nil)
        if let answer = step.answer {
            let request = buyer.machine.request
            if let driver = buyer.order {
                let verdict = OrderModel.verdict(on: compared(answer, request), isFirst: driver.isFirst, fault: fault)
                buyer.order?.next = .write(verdict)
            } else {
                var isFinal = request.isRepeat
                if case .committing(let sent, let unknownBefore) = before.machine.state {
                    isFinal = isFinal || sent.isFirm || unknownBefore
                }
                buyer.told = ExplorerActor.told(answer, isFirm: isFinal)
            }
        }
        if step.action == .finish { buyerFinished(index, buyer, &state) } else { state.actors[index] = .buyer(buyer) }
        if step.asksForResync || step.action == .awaitResync { ask(&state) }
    }

    func buyerFinished(_ index: Int, _ buyer: ExplorerActor.Buyer, _ state: inout State) {
        state.actors[index] = buyer.order.map { .order($0) } ?? .done(buyer.told)
    }

    func returning(
        _ index: Int,
        _ machine: PatchedIncrease,
        _ action: Increase.Action?,
        _ told: Told,
        _ state: State,
        _ emit: Emit
    ) {
        func next(_ state: State, _ what: StaticString, _ event: (inout PatchedIncrease) -> Increase.Step) {
            var after = state
            var machine = machine
            let step = event(&machine)
            let told = step.answer.map { ExplorerActor.told($0) } ?? told
            after.actors[index] = step.action == .finish ? .done(told) : .returning(machine, step.action, told)
            if step.asksForResync { ask(&after) }
            emit(after, ExplorerMove(index, what))
        }
        switch action {
        case nil:
            var begun = machine
            let step = begun.began()
            returning(index, begun, step.action, told, state, emit)
        case .commit:
            var after = state
            if let reply = try? after.ledger.increase([machine.request], fault: fault).first {
                next(after, reply.outcome == .added ? "added" : "added nothing") { $0.committed(reply) }
            }
            if state.rest.zombies > 0 {
                var after = state
                after.rest.zombies -= 1
                after.rest.alive.append(.increase(machine.request))
                next(after, "connection lost, statement alive") { $0.commitFailed(.unknown) }
            }
        case .apply(let fence, let delta):
            applied(.init(fence: fence, delta: delta, key: ""), state) { after, what, reply in
                next(after, what) { if let reply { $0.applied(reply) } else { $0.applyFailed() } }
            }
        case .bump: next(bumped(state), "bumped") { $0.bumped() }
        case .finish: break
        }
    }

    func lookup(_ index: Int, _ request: IncreaseRequest, _ state: State, _ emit: Emit) {
        var after = state
        switch state.ledger.lookUp(request.decreaseKey)?.direction {
        case .out: after.actors[index] = .done(.yes)
        case .closed: after.actors[index] = .done(.finalNo)
        case .in, nil:
            // The row may still be written. Only a compensation, which closes the key, makes its absence final.
            if fault == .notFoundTrusted {
                after.actors[index] = .done(.finalNo)
            } else {
                after.actors[index] = .returning(PatchedIncrease(request, fault: fault), nil, .nothing)
            }
        }
        emit(after, ExplorerMove(index, "looked up"))
    }
}
