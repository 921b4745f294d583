import StockGate

/// Every step that a state of a small world allows, and every promise that it must keep.
///
/// The steps drive the project's own machines (`Reservation`, `Increase`, `Resync`, `ResyncSchedule`) against the models of the two stores.
struct ExplorerRules {
    typealias State = ExplorerState
    typealias Emit = (State, ExplorerMove) -> Void

    static let product = ProductID(1)
    static let retention: Int64 = 1
    /// The names of the world's ledger, and of the other one on the same Redis.
    static let (ours, theirs) = ("ours", "theirs")
    static let theirStock: Int64 = 50

    let world: World
    let fault: Fault?
    let healer: Int?

    init(_ world: World, fault: Fault?) {
        self.world = world
        self.fault = fault
        healer = world.actors.firstIndex(of: "healer")
    }

    // MARK: The beginning

    func beginning() -> State {
        var ledger = LedgerModel()
        ledger.keepsRemaining = false
        let sold = world.actors.count { $0 == "+" }
        ledger.add(Self.product, stock: world.stock + Int64(sold))
        var returned = 0
        let actors = world.actors.map { name -> ExplorerActor in
            switch name {
            case "resync", "sweep": return .resync(PatchedResync(forced: true, ledger: Self.ours, fault: fault), nil)
            case "foreign": return .resync(PatchedResync(forced: true, ledger: Self.theirs), nil)
            case "healer": return .healer(nil, nil, bumps: 0)
            case "mend": return .mender
            case "recovery": return .recovery(.opens)
            case "db-only": return .hand(.decrease)
            case "restock": return .hand(.restock)
            case "delete": return .hand(.delete)
            case "relist": return .hand(.relist)
            case "+":
                returned += 1
                let request = Self.decrease("s\(returned)")
                _ = try? ledger.commit([CommitRequest(decrease: request, fence: 0, token: 0, reserveSent: false, isFirm: false)])
                return .returning(PatchedIncrease(Self.increase("s\(returned)"), fault: fault), nil, .nothing)
            default:
                if name.hasPrefix("?") { return .lookup(Self.increase(String(name.dropFirst()))) }
                if name.hasPrefix("-") {
                    return .returning(PatchedIncrease(Self.increase(String(name.dropFirst())), fault: fault), nil, .nothing)
                }
                return .buyer(PatchedReservation(Self.decrease(name), fault: fault), nil, .nothing, staleRows: nil)
            }
        }
        var state = State(
            ledger: ledger,
            gate: GateModel(),
            actors: actors,
            rest: State.Rest(
                flushes: world.flushes,
                copies: world.copies,
                losses: world.losses,
                zombies: world.zombies,
                deaths: world.deaths,
                refusals: world.refusals,
                resends: world.resends,
                restores: world.restores
            )
        )
        Self.resync(&state, fault: nil)
        return state
    }

    /// `a`, `A`, `a'`, `a=2`, `a@`
    private static func decrease(_ name: String) -> DecreaseRequest {
        let name = String(name.drop { $0 == "~" })
        let letter = String(name.prefix { $0.isLetter || $0.isNumber })
        var quantity: Quantity = letter.first?.isUppercase == true ? 2 : 1
        if let named = name.split(separator: "=").dropFirst().first.flatMap({ Int64($0) }) { quantity = named }
        let order = Int64(letter.utf8.reduce(0) { $0 + Int($1) }) + (name.hasSuffix("@") ? 1000 : 0)
        return DecreaseRequest(product: product, key: "DEC-" + letter, orderID: order, quantity: quantity, isRepeat: name.hasSuffix("'"))
    }

    private static func increase(_ name: String) -> IncreaseRequest {
        let decrease = decrease(name)
        return IncreaseRequest(
            product: product,
            key: "INC-" + decrease.key.dropFirst(4),
            orderID: decrease.orderID,
            quantity: decrease.quantity
        )
    }

    // MARK: Steps

    func successors(of state: State, emit: Emit) {
        for index in state.actors.indices {
            switch state.actors[index] {
            case .buyer(let machine, let action, let told, let stale):
                buyer(index, machine, action, told, stale, state, emit)
            case .returning(let machine, let action, let told): returning(index, machine, action, told, state, emit)
            case .lookup(let request): lookup(index, request, state, emit)
            case .resync(_, nil) where world.actors[index] == "sweep" && state.gate.pending.isEmpty: break  // nothing is overdue
            case .resync(_, nil) where world.actors[index] == "sweep" && fault == .sweepReleases: giveBack(index, state, emit)
            case .resync(let machine, let action) where world.actors[index] == "foreign": foreign(index, machine, action, state, emit)
            case .resync(let machine, let action): resync(index, machine, action, bumps: nil, state, emit)
            case .healer(let machine?, let action, let bumps): resync(index, machine, action, bumps: bumps, state, emit)
            case .hand(let hand): self.hand(index, hand, state, emit)
            case .mender:
                var after = state
                _ = after.gate.mend(ledger: Self.ours, fault: fault)
                leavesForeignAlone(state, &after)
                after.actors[index] = .resync(PatchedResync(forced: true, ledger: Self.ours, fault: fault), nil)
                emit(after, ExplorerMove(index, "makes the keys anew"))
            case .recovery(let next): recovery(index, next, state, emit)
            case .handAsks:
                var after = state
                if fault != .bumperSilent { ask(&after) }
                after.actors[index] = .done(.nothing)
                emit(after, ExplorerMove(index, "asks for a resync"))
            case .healer, .done, .dead: break
            }
            if state.rest.deaths > 0, state.actors[index].hasBegun { die(index, state, emit) }
        }
        if world.batch { batches(state, emit) }
        disasters(state, emit)
    }

    private func buyer(
        _ index: Int,
        _ machine: PatchedReservation,
        _ action: Reservation.Action?,
        _ told: Told,
        _ stale: [LedgerModel.Row]?,
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
            buyerStep(index, machine, told, &after, event)
            emit(after, ExplorerMove(index, what, outcome))
        }
        guard let action else {
            let isKept = isKept(index, state)
            if !world.calm || isKept { next(state, "breaker open: direct") { $0.began(throughGate: false) } }
            if isKept { return }
            var begun = machine
            _ = begun.began(throughGate: true)
            reserve(index, begun, told, state, emit)
            return
        }
        switch action {
        case .reserve where isKept(index, state): next(state, "no longer through Redis: direct") { $0.reserveFailed(sent: false) }
        case .reserve: reserve(index, machine, told, state, emit)
        case .awaitResync:
            if state.gate.isLoaded(dataset: state.dataset, ledger: Self.ours, fault: fault) {
                next(state, "resynced") { $0.resyncEnded(loaded: true) }
            }
            if !world.calm { next(state, "did not wait for the resync: direct") { $0.resyncEnded(loaded: false) } }
        case .lookUp:
            let entry = state.ledger.lookUp(machine.request.key)
            next(state, "looked up") { $0.lookedUp(entry) }
        case .commit(let request):
            if fault == .lookupBeforeLock, stale == nil {
                var after = state
                after.actors[index] = .buyer(machine, action, told, staleRows: state.ledger.rows)
                emit(after, ExplorerMove(index, "looked up before the lock"))
                return
            }
            var after = state
            if let reply = try? after.ledger.commit([request], lookedUpIn: stale, fault: fault).first {
                if reply.told > 0, reply.told < request.fence { after.rest.sawAhead = true }
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
            after.actors[index] = .done(told)
            emit(after, ExplorerMove(index, "settled"))
            resend(index, state, after, emit)
        case .release(let held), .abandon(let held):
            let isAbandoned = if case .abandon = action { true } else { false }
            var after = state
            _ = after.gate.release(
                [GateModel.ReleaseEntry(key: machine.request.key, held: held, isAbandoned: isAbandoned)],
                fault: fault
            )
            after.actors[index] = .done(told)
            emit(after, ExplorerMove(index, isAbandoned ? "abandoned" : "released"))
            resend(index, state, after, emit)
        case .apply(let fence, let delta):
            var after = state
            let entry = GateModel.ApplyEntry(fence: fence, delta: delta, key: machine.request.key)
            guard let reply = after.gate.apply([entry], now: 0, ledger: Self.ours, fault: fault).first else { return }
            next(after, "applied") { $0.applied(reply) }
            if !world.calm {
                next(state, "apply lost") { $0.applyFailed() }
                next(after, "applied, reply lost") { $0.applyFailed() }
            }
        case .bump:
            var after = state
            _ = after.ledger.bump(Self.product)
            next(after, "bumped") { $0.bumped() }
        case .finish: break
        }
    }

    /// A message ran, its answer was lost, and it will be sent again.
    private func resend(_ index: Int, _ before: State, _ after: State, _ emit: Emit) {
        guard before.rest.resends > 0 else { return }
        var again = after
        again.rest.resends -= 1
        again.actors[index] = before.actors[index]
        emit(again, ExplorerMove(index, "ran, reply lost: sent again"))
    }

    /// A reserve runs and is answered, or its answer is lost, or it does not run and nobody knows.
    private func reserve(_ index: Int, _ machine: PatchedReservation, _ told: Told, _ state: State, _ emit: Emit) {
        var after = state
        let request = machine.request
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
        buyerStep(index, machine, told, &answered) { $0.reserveReplied(reply) }
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
        buyerStep(index, machine, told, &unsent) { $0.reserveFailed(sent: true) }
        emit(unsent, ExplorerMove(index, "reserve timed out before Redis ran it: direct"))
        buyerStep(index, machine, told, &after) { $0.reserveFailed(sent: true) }
        emit(after, ExplorerMove(index, "reserve ran, reply lost: direct"))
    }

    private func buyerStep(
        _ index: Int,
        _ before: PatchedReservation,
        _ told: Told,
        _ state: inout State,
        _ event: (inout PatchedReservation) -> Reservation.Step
    ) {
        var machine = before
        let step = event(&machine)
        var told = told
        if let answer = step.answer {
            var isFinal = before.request.isRepeat
            if case .committing(let sent, let unknownBefore) = before.state { isFinal = isFinal || sent.isFirm || unknownBefore }
            told = ExplorerActor.told(answer, isFirm: isFinal)
        }
        state.actors[index] = step.action == .finish ? .done(told) : .buyer(machine, step.action, told, staleRows: nil)
        if step.asksForResync || step.action == .awaitResync { ask(&state) }
    }

    private func returning(
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
            var after = state
            let entry = GateModel.ApplyEntry(fence: fence, delta: delta, key: "")
            guard let reply = after.gate.apply([entry], now: 0, ledger: Self.ours, fault: fault).first else { return }
            next(after, "applied") { $0.applied(reply) }
            if !world.calm {
                next(state, "apply lost") { $0.applyFailed() }
                next(after, "applied, reply lost") { $0.applyFailed() }
            }
        case .bump:
            var after = state
            _ = after.ledger.bump(Self.product)
            next(after, "bumped") { $0.bumped() }
        case .finish: break
        }
    }

    private func lookup(_ index: Int, _ request: IncreaseRequest, _ state: State, _ emit: Emit) {
        var after = state
        switch state.ledger.lookUp(request.decreaseKey)?.direction {
        case .out: after.actors[index] = .done(.yes)
        case .closed: after.actors[index] = .done(.finalNo)
        case .in, nil:
            // Not found proves nothing: only a compensation, which closes the key, makes it final.
            if fault == .notFoundTrusted {
                after.actors[index] = .done(.finalNo)
            } else {
                after.actors[index] = .returning(PatchedIncrease(request, fault: fault), nil, .nothing)
            }
        }
        emit(after, ExplorerMove(index, "looked up"))
    }

    /// `bumps`: nil for a resync of its own, else the healer's count.
    private func resync(_ index: Int, _ machine: PatchedResync, _ action: Resync.Action?, bumps: Int?, _ state: State, _ emit: Emit) {
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
            emit(after, ExplorerMove(index, what))
            return
        }
        after.actors[index] = next == .finish ? .healer(nil, nil, bumps: bumps) : .healer(machine, next, bumps: bumps)
        if machine.outcome?.hasSucceeded == true { after.rest.isDirect = false }
        if let outcome = machine.outcome, case .run(let forced) = after.rest.schedule.ended(succeeded: outcome.hasSucceeded, at: 0) {
            heal(&after, forced: forced)
        }
        emit(after, ExplorerMove(index, what))
    }

    /// A resync of another ledger, whose fence is its own and whose stock nobody buys.
    private func foreign(_ index: Int, _ machine: PatchedResync, _ action: Resync.Action?, _ state: State, _ emit: Emit) {
        var machine = machine
        var after = state
        let what: StaticString
        let next: Resync.Action
        // The same number as ours, of all fences: what is said under one must not be taken for the other.
        let theirs = Resync.LedgerState(
            fence: max(state.ledger.product(Self.product)?.fence ?? 1, state.gate.fence + 1),
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

    /// What a sweep must not do: give back what is overdue.
    private func giveBack(_ index: Int, _ state: State, _ emit: Emit) {
        var after = state
        let entries = state.gate.pending.map {
            GateModel.ReleaseEntry(key: $0.key, held: Held(fence: state.gate.fence, token: $0.token), isAbandoned: false)
        }
        _ = after.gate.release(entries)
        after.actors[index] = .done(.nothing)
        emit(after, ExplorerMove(index, "gives overdue reservations back"))
    }

    /// Whether this server keeps the actor's requests away from Redis.
    private func isKept(_ index: Int, _ state: State) -> Bool {
        (state.rest.isOpen || state.rest.isDirect) && !world.actors[index].hasPrefix("~")
    }

    private func leavesForeignAlone(_ before: State, _ after: inout State) {
        if before.gate.isForeign(to: Self.ours), before.gate != after.gate { after.rest.broken = "another ledger's data was changed" }
    }

    private func recovery(_ index: Int, _ next: ExplorerActor.Recovery, _ state: State, _ emit: Emit) {
        var after = state
        let what: StaticString
        switch next {
        case .opens:
            after.rest.isOpen = true
            after.actors[index] = .recovery(.leaves)
            what = "breaker opens"
        case .leaves:
            // The fence of another ledger says nothing of ours.
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

    private func ask(_ state: inout State, forced: Bool = false) {
        guard healer != nil else { return }
        if fault == .askDroppedWhileRunning, !state.rest.schedule.isIdle { return }
        if case .run(let forced) = state.rest.schedule.asked(forced: forced, at: 0) { heal(&state, forced: forced) }
    }

    private func heal(_ state: inout State, forced: Bool) {
        guard let healer, case .healer(_, _, let bumps) = state.actors[healer] else { return }
        var machine = PatchedResync(forced: forced, ledger: Self.ours, fault: fault)
        let action = machine.began()
        state.actors[healer] = .healer(machine, action, bumps: bumps)
    }

    private func hand(_ index: Int, _ hand: ExplorerActor.Hand, _ state: State, _ emit: Emit) {
        var after = state
        var changed = true
        switch hand {
        case .decrease: changed = after.ledger.adjust(Self.product, key: "ADJ-d", quantity: -1, fault: fault).outcome == .done
        case .restock: changed = after.ledger.adjust(Self.product, key: "ADJ-r", quantity: 1, fault: fault).outcome == .done
        case .delete: after.ledger.setOnSale(Self.product, false)
        case .relist: after.ledger.setOnSale(Self.product, true)
        }
        after.actors[index] = changed ? .handAsks : .done(.nothing)
        emit(after, ExplorerMove(index, "changed by hand"))
    }

    /// A process dies before its next step, or while its statement runs.
    private func die(_ index: Int, _ state: State, _ emit: Emit) {
        var dead = state
        dead.rest.deaths -= 1
        dead.actors[index] = .dead
        emit(dead, ExplorerMove(index, "dies"))
        if case .buyer(_, .commit(let request), _, let stale) = state.actors[index],
            (try? dead.ledger.commit([request], lookedUpIn: stale, fault: fault)) != nil
        {
            emit(dead, ExplorerMove(index, "dies as its commit runs"))
        }
    }

    /// Two requests in one statement, in either order. A key goes in one batch at a time.
    private func batches(_ state: State, _ emit: Emit) {
        for first in state.actors.indices {
            guard case .buyer(let one, .commit(let oneRequest), let oneTold, _) = state.actors[first] else { continue }
            for second in state.actors.indices where second != first {
                guard case .buyer(let two, .commit(let twoRequest), let twoTold, _) = state.actors[second],
                    oneRequest.decrease.key != twoRequest.decrease.key
                else { continue }
                var after = state
                guard let replies = try? after.ledger.commit([oneRequest, twoRequest], fault: fault) else { continue }
                buyerStep(first, one, oneTold, &after) { $0.committed(replies[0]) }
                buyerStep(second, two, twoTold, &after) { $0.committed(replies[1]) }
                emit(after, ExplorerMove(first, "commits in one statement with another"))
            }
        }
    }

    private func disasters(_ state: State, _ emit: Emit) {
        for index in state.rest.alive.indices {
            var after = state
            after.rest.alive.remove(at: index)
            emit(after, ExplorerMove(-1, "a lost statement is killed"))
            switch state.rest.alive[index] {
            case .commit(let request): _ = try? after.ledger.commit([request], fault: fault)
            case .increase(let request): _ = try? after.ledger.increase([request], fault: fault)
            }
            emit(after, ExplorerMove(-1, "a lost statement runs"))
        }
        if state.rest.flushes > 0 {
            var after = state
            after.rest.flushes -= 1
            after.rest.flushed += 1
            after.gate = GateModel()
            emit(after, ExplorerMove(-1, "Redis flushed"))
        }
        if state.rest.losses > 0, state.gate.counter != nil {
            var after = state
            after.rest.losses -= 1
            after.gate.counter = nil
            emit(after, ExplorerMove(-1, "the counter is lost"))
        }
        if state.rest.restores > 0 {
            var after = state
            if let copy = state.rest.ledgerCopy {
                after.rest.lost = state.ledger.lostKeys(restoring: copy)
                after.ledger = copy
                after.rest.ledgerCopy = nil
                after.rest.restores -= 1
                after.rest.alive = []
                emit(after, ExplorerMove(-1, "the ledger is restored from the copy"))
            } else {
                after.rest.ledgerCopy = state.ledger
                emit(after, ExplorerMove(-1, "copy of the ledger taken"))
            }
        }
        if state.rest.copies > 0 {
            var after = state
            if let copy = state.rest.copy {
                after.gate = copy
                after.rest.copy = nil
                after.rest.copies -= 1
                after.rest.run += 1
                emit(after, ExplorerMove(-1, "Redis restarted from the copy"))
            } else {
                after.rest.copy = state.gate
                emit(after, ExplorerMove(-1, "copy taken"))
            }
        }
    }

    // MARK: Promises

    /// What promise this state breaks, besides those of the ledger itself (`LedgerModel.violation`).
    func violation(_ state: State) -> String? {
        if let broken = state.rest.broken { return broken }
        if let healer, case .healer(_, _, let bumps) = state.actors[healer], bumps > world.resyncs { return "resyncs without end" }
        if state.gate.ledger == Self.theirs, state.gate.counter != Self.theirStock || !state.gate.pending.isEmpty {
            return "another ledger's data was used"
        }
        guard state.rest.alive.isEmpty, state.rest.schedule.isIdle, state.actors.indices.allSatisfy({ isAtRest(state, $0) }) else {
            return nil
        }
        guard let row = state.ledger.product(Self.product) else { return "the product is gone" }
        let isDead = state.actors.contains(.dead)
        let isServed = state.gate.isLoaded(dataset: state.dataset, ledger: Self.ours, fault: fault)
        let isRestored = state.rest.restores < world.restores
        if isRestored, healer != nil, !isDead, state.rest.sawAhead, isServed, state.gate.fence > row.fence {
            return "Redis is seen to be ahead, and nobody heals"
        }
        // A restore can leave another stock under an equal fence: that is the audit's to find.
        if !isDead, !isRestored, isServed, state.gate.fence == row.fence {
            // Whoever was told that nothing was decided may have left a reservation to the sweep; no unit is lost in it.
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
        for (index, actor) in state.actors.enumerated() {
            guard case .done(let told) = actor else { continue }
            if let broken = answer(world.actors[index], told, state) { return broken }
        }
        return nil
    }

    /// A sweep that finds nothing pending waits for ever.
    private func isAtRest(_ state: State, _ index: Int) -> Bool {
        if world.actors[index] == "sweep", case .resync(_, nil) = state.actors[index] { return state.gate.pending.isEmpty }
        return state.actors[index].isAtRest
    }

    /// Actors who are told nothing.
    private static let silent: Set<String> = [
        "recovery", "mend", "resync", "sweep", "foreign", "healer", "db-only", "restock", "delete", "relist", "+",
    ]

    private func answer(_ name: String, _ told: Told, _ state: State) -> String? {
        let ledger = state.ledger
        guard !Self.silent.contains(name) else { return nil }
        let request = Self.increase(String(name.drop { $0 == "?" || $0 == "-" || $0 == "~" }))
        // What a restore lost is told and not so.
        guard !state.rest.lost.contains(request.decreaseKey), !state.rest.lost.contains(request.key) else { return nil }
        let isCommitted = ledger.row(request.decreaseKey)?.direction == .out
        let isReturned = ledger.row(request.key)?.direction == .in
        if name.hasPrefix("-") || name.hasPrefix("?") && told == .reused {
            // Units and remaining stock are the ledger's own; what matters here is which of the three it was.
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

    private static func isExact(_ state: State, _ row: LedgerModel.Product, countingPending: Bool) -> Bool {
        let pending = state.gate.pending.reduce(0) { $0 + $1.quantity }
        guard pending == 0 || countingPending else { return false }
        guard row.isOnSale else { return state.gate.counter == nil }
        return state.gate.counter.map { $0 + pending } == row.stock
    }

    /// A whole resync in one step.
    private static func resync(_ state: inout State, fault: Fault?) {
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
