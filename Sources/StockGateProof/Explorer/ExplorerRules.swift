import StockGate

/// Every step that a state of a small world allows, and every promise that it must keep.
///
/// The steps drive the project's own machines (`Reservation`, `Increase`, `Resync`, `ResyncSchedule`) against the models of the two stores.
struct ExplorerRules {
    typealias State = ExplorerState
    typealias Emit = (State, ExplorerMove) -> Void

    static let product = ProductID(1)
    static let retention: Int64 = 1
    /// The names of the world's own ledger, and of the other ledger on the same Redis.
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
        ledger.add(Self.product, stock: world.stock + Int64(sold) + unitsSoldEarlier)
        var gate = GateModel()
        addEarlierOrders(&ledger, &gate)
        var returned = 0
        var orders: [OrderModel] = []
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
                if name.hasPrefix("/") { return .reader(Self.decrease(String(name.dropFirst())).key) }
                if name.hasPrefix("?") { return .lookup(Self.increase(String(name.dropFirst()))) }
                if name.hasPrefix("#") || name.hasPrefix("=") {
                    orders.append(OrderModel(letter: Self.letter(name)))
                    let order = ExplorerActor.Driver(
                        order: orders.count - 1,
                        key: orders[orders.count - 1].key,
                        isFirst: true,
                        next: .place
                    )
                    return .order(order)
                }
                if name.hasPrefix("&") { return .order(ExplorerActor.Driver(order: 0, key: "", isFirst: false, next: .goOn)) }
                if name.hasPrefix("-#") { return .canceller }
                if name.hasPrefix("-") {
                    return .returning(PatchedIncrease(Self.increase(String(name.dropFirst())), fault: fault), nil, .nothing)
                }
                return .buyer(ExplorerActor.Buyer(PatchedReservation(Self.decrease(name), mark: 0, fault: fault)))
            }
        }
        var state = State(
            ledger: ledger,
            gate: gate,
            actors: actors,
            rest: State.Rest(
                flushes: world.flushes,
                copies: world.copies,
                losses: world.losses,
                zombies: world.zombies,
                deaths: world.deaths,
                refusals: world.refusals,
                resends: world.resends,
                moves: world.moves,
                restores: world.restores,
                failovers: world.failovers,
                cancels: world.cancels,
                unheard: world.unheard,
                orders: orders
            )
        )
        Self.resync(&state, fault: nil)
        if world.failovers > 0 { state.rest.standby = state.ledger }
        return state
    }

    /// The request of a buyer's name: `a`, `A`, `a'`, `a=2`, `a@`
    static func decrease(_ name: String) -> DecreaseRequest {
        let name = String(name.drop { $0 == "~" })
        let letter = String(name.prefix { $0.isLetter || $0.isNumber })
        var quantity: Quantity = letter.first?.isUppercase == true ? 2 : 1
        if let named = name.split(separator: "=").dropFirst().first.flatMap({ Int64($0) }) { quantity = Quantity(named) }
        let order = Int64(letter.utf8.reduce(0) { $0 + Int($1) }) + (name.hasSuffix("@") ? 1000 : 0)
        return DecreaseRequest(product: product, key: "DEC-" + letter, orderID: order, quantity: quantity, isRepeat: name.hasSuffix("'"))
    }

    static func increase(_ name: String) -> IncreaseRequest {
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
        guard world.isSynchronous else { return steps(of: state, emit: emit) }
        // PostgreSQL answers a commit when its standby has it, and with it all earlier ones.
        steps(of: state) { after, move in
            var after = after
            if after.rest.standby != nil, after.ledger != state.ledger, !after.rest.isUnreplicated { after.rest.standby = after.ledger }
            after.rest.isUnreplicated = false
            emit(after, move)
        }
    }

    private func steps(of state: State, emit: Emit) {
        for index in state.actors.indices {
            if state.rest.isSentBefore(index) { sentBefore(index, state, emit) } else { steps(index, state, emit) }
            if state.rest.deaths > 0, state.actors[index].hasBegun { die(index, state, emit) }
        }
        if world.batch { batches(state, emit) }
        disasters(state, emit)
    }

    /// The next steps of one actor.
    func steps(_ index: Int, _ state: State, _ emit: Emit) {
        switch state.actors[index] {
        case .buyer(let buyer): self.buyer(index, buyer, state, emit)
        case .order(let driver): order(index, driver, state, emit)
        case .canceller: cancel(index, state, emit)
        case .returning(let machine, let action, let told): returning(index, machine, action, told, state, emit)
        case .reader(let key): read(index, key, state, emit)
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
    }

    func hand(_ index: Int, _ hand: ExplorerActor.Hand, _ state: State, _ emit: Emit) {
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
    func die(_ index: Int, _ state: State, _ emit: Emit) {
        var dead = state
        dead.rest.deaths -= 1
        dead.actors[index] = .dead
        emit(dead, ExplorerMove(index, "dies"))
        if case .buyer(let buyer) = state.actors[index], case .commit(let request)? = buyer.action,
            (try? dead.ledger.commit([request], lookedUpIn: buyer.staleRows, fault: fault)) != nil
        {
            emit(dead, ExplorerMove(index, "dies as its commit runs"))
        }
    }

    /// Two requests go in one statement, in either order. A key is in one batch at a time.
    func batches(_ state: State, _ emit: Emit) {
        for first in state.actors.indices {
            guard case .buyer(let one) = state.actors[first], case .commit(let oneRequest)? = one.action else { continue }
            for second in state.actors.indices where second != first {
                guard case .buyer(let two) = state.actors[second], case .commit(let twoRequest)? = two.action,
                    oneRequest.decrease.key != twoRequest.decrease.key
                else { continue }
                var after = state
                guard let replies = try? after.ledger.commit([oneRequest, twoRequest], fault: fault) else { continue }
                buyerStep(first, one, &after) { $0.committed(replies[0]) }
                buyerStep(second, two, &after) { $0.committed(replies[1]) }
                emit(after, ExplorerMove(first, "commits in one statement with another"))
            }
        }
    }

    func disasters(_ state: State, _ emit: Emit) {
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
        if state.rest.moves > 0 { move(state, emit) }
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
        failOver(state, emit)
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
}
