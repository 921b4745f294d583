import StockGate

// Orders whose ids are used a second time, because the order database was restored or its sequence is behind its data.

extension ExplorerRules {
    /// How often one driver asks for one order.
    static let maximumAttempts: UInt8 = 3
    /// The time when orders are made and rows are written, in microseconds. The row of an earlier order is much older.
    static let now: Int64 = 1_000_000_000

    // MARK: The beginning

    /// Adds the orders of long ago: sold, sold and given back (`-a`), or closed without ever having been sold (`!a`).
    func addEarlierOrders(_ ledger: inout LedgerModel, _ gate: inout GateModel) {
        for name in world.earlier {
            let letter = String(name.drop { $0 == "-" || $0 == "!" })
            if !name.hasPrefix("!") {
                let commit = CommitRequest(decrease: Self.decrease(letter), fence: 0, token: 0, reserveSent: false, isFirm: false)
                _ = try? ledger.commit([commit])
                gate.marks.append(GateModel.Mark(key: commit.decrease.key, time: 0))
            }
            if name != letter { _ = try? ledger.increase([Self.increase(letter)]) }
        }
    }

    /// The units that the orders of long ago have taken for good.
    var unitsSoldEarlier: Int64 {
        world.earlier.filter { !$0.hasPrefix("!") && !$0.hasPrefix("-") }.reduce(0) { $0 + Self.decrease($1).quantity.rawValue }
    }

    private func isEarlier(_ key: String) -> Bool {
        world.earlier.contains { Self.decrease(String($0.drop { $0 == "-" || $0 == "!" })).key == key }
    }

    // MARK: Steps

    /// The letter of the order that an actor's name refers to: `#a`, `&a`, `-#a`.
    static func letter(_ name: String) -> String { String(name.drop { $0 == "#" || $0 == "&" || $0 == "-" || $0 == "=" }) }

    /// The present order for an actor's letter: the one that was placed last.
    private func order(of index: Int, _ state: State) -> Int? {
        let letter = Self.letter(world.actors[index])
        return state.rest.orders.lastIndex { $0.letter == letter && $0.status != .unplaced }
    }

    func order(_ index: Int, _ driver: ExplorerActor.Driver, _ state: State, _ emit: Emit) {
        switch driver.next {
        case .place: place(index, driver, state, emit)
        case .goOn: goOn(index, state, emit)
        case .ask: ask(index, driver, state, emit)
        case .write(let verdict): write(index, driver, verdict, tail: nil, state, emit)
        }
    }

    /// A buyer's order is written, with the id that an earlier order had. If the earlier order was in this database, the restore has lost it.
    private func place(_ index: Int, _ driver: ExplorerActor.Driver, _ state: State, _ emit: Emit) {
        if world.actors[index].hasPrefix("=") { return placeBehind(index, driver, state, emit) }
        var after = state
        if let former = order(of: index, state) {
            guard former < driver.order else { return }
            after.rest.orders[former].isLost = true
        } else if state.rest.orders[..<driver.order].contains(where: { $0.letter == Self.letter(world.actors[index]) }) {
            return  // this order comes after the one whose id it takes
        }
        after.rest.orders[driver.order].status = .pending
        var driver = driver
        driver.next = .ask
        after.actors[index] = .order(driver)
        emit(after, ExplorerMove(index, "the order is made"))
    }

    /// A buyer's order is given an id that has a row already. The insert finds it, the sequence is raised above all ids, and the order is made under the next one.
    private func placeBehind(_ index: Int, _ driver: ExplorerActor.Driver, _ state: State, _ emit: Emit) {
        guard let former = order(of: index, state) else { return }  // its turn comes behind the one whose row it meets
        var after = state
        if fault == .sequenceLeftBehind {
            after.actors[index] = .done(.nothing)
            return emit(after, ExplorerMove(index, "the order is turned away"))
        }
        var driver = driver
        if fault != .takenIDDriven {
            after.rest.orders[driver.order] = OrderModel(letter: state.rest.orders[former].letter + "1")
            driver.key = after.rest.orders[driver.order].key
        }
        after.rest.orders[driver.order].status = .pending
        driver.next = .ask
        after.actors[index] = .order(driver)
        emit(after, ExplorerMove(index, "the order is made"))
    }

    /// Another server finds the order undecided, and asks as a repeat.
    private func goOn(_ index: Int, _ state: State, _ emit: Emit) {
        guard let order = order(of: index, state), state.rest.orders[order].status == .pending else { return }
        var after = state
        after.rest.orders[order].isFresh = false
        let key = state.rest.orders[order].key
        after.actors[index] = .order(ExplorerActor.Driver(order: order, key: key, isFirst: false, next: .ask))
        emit(after, ExplorerMove(index, "goes on with the order"))
    }

    private func ask(_ index: Int, _ driver: ExplorerActor.Driver, _ state: State, _ emit: Emit) {
        var request = Self.decrease(state.rest.orders[driver.order].letter)
        request.key = driver.key
        request.isRepeat = !driver.isFirst
        request.since = world.timeless ? nil : Self.now
        var driver = driver
        driver.attempts += 1
        // Each driver makes one first attempt at each key, so its index makes a mark that no other first attempt at the key has.
        let machine = PatchedReservation(request, mark: Token(Int64(index) + 1), fault: fault)
        buyer(index, ExplorerActor.Buyer(machine, order: driver), state, emit)
    }

    /// Compares the row's time with the order's before answering, as the product server does.
    func compared(_ answer: DecreaseAnswer, _ request: DecreaseRequest) -> DecreaseAnswer {
        switch answer {
        case .sold, .keyClosed:
            guard fault != .sinceIgnored, isEarlier(request.key), request.isOlder(rowMadeAt: 0) else { return answer }
            return .keyReused
        case .insufficient, .keyReused, .notOnSale, .productMissing, .unavailable: return answer
        }
    }

    /// Writes what the order server was told. `tail` is the work that the request still has to do at the product server.
    func write(
        _ index: Int,
        _ driver: ExplorerActor.Driver,
        _ verdict: OrderModel.Verdict,
        tail: ExplorerActor.Buyer?,
        _ state: State,
        _ emit: Emit
    ) {
        if state.rest.unheard > 0, verdict != .askAgain {
            var after = state
            after.rest.unheard -= 1
            becomes(index, again(driver), tail, &after)
            emit(after, ExplorerMove(index, "the answer is not heard"))
        }
        var after = state
        let order = state.rest.orders[driver.order]
        // The order is lost, so nobody hears what is said about it.
        guard !order.isLost else {
            becomes(index, nil, tail, &after)
            return emit(after, ExplorerMove(index, "the order is lost"))
        }
        if verdict == .confirm, case .failed = order.status, order.key == driver.key {
            // A late success: the order had failed before this answer came, so its units go back.
            guard tail == nil else { return }
            after.actors[index] = fault == .lateSuccessKept ? .done(.nothing) : .returning(compensation(of: order), nil, .nothing)
            return emit(after, ExplorerMove(index, "a late success is compensated"))
        }
        let newKey = "\(driver.key).\(driver.order)"
        let isRenewed = after.rest.orders[driver.order].write(verdict, of: driver.key, newKey: newKey, fault: fault)
        if isRenewed {
            if fault == .formerKeyCompensated { _ = try? after.ledger.increase([Self.increase(order.letter)]) }
            becomes(index, ExplorerActor.Driver(order: driver.order, key: newKey, isFirst: true, next: .ask), tail, &after)
            return emit(after, ExplorerMove(index, "takes another key"))
        }
        let isUndecided = after.rest.orders[driver.order] == order && order.status == .pending && order.key == driver.key
        becomes(index, isUndecided ? again(driver) : nil, tail, &after)
        emit(after, ExplorerMove(index, isUndecided ? "asks again" : "writes the answer"))
    }

    /// The driver's next attempt; nil: it gives the order up.
    private func again(_ driver: ExplorerActor.Driver) -> ExplorerActor.Driver? {
        guard driver.attempts < Self.maximumAttempts else { return nil }
        var driver = driver
        (driver.isFirst, driver.next) = (false, .ask)
        return driver
    }

    private func becomes(_ index: Int, _ driver: ExplorerActor.Driver?, _ tail: ExplorerActor.Buyer?, _ state: inout State) {
        if var tail {
            tail.order = driver
            // The buyer has no driver any more, but its messages are still sent.
            state.actors[index] = .buyer(tail)
        } else {
            state.actors[index] = driver.map { .order($0) } ?? .done(.nothing)
        }
    }

    /// A confirmed order is cancelled, and its units go back.
    func cancel(_ index: Int, _ state: State, _ emit: Emit) {
        guard let order = order(of: index, state), state.rest.orders[order].status == .confirmed else { return }
        var after = state
        after.rest.orders[order].status = .cancelled
        after.actors[index] = .returning(compensation(of: state.rest.orders[order]), nil, .nothing)
        emit(after, ExplorerMove(index, "cancels the order"))
    }

    private func compensation(of order: OrderModel) -> PatchedIncrease {
        var request = Self.increase(order.letter)
        request.key = "INC-" + order.key.dropFirst(4)
        return PatchedIncrease(request, fault: fault)
    }

    /// Whether there is no work for an actor that is still to begin.
    func isIdle(_ index: Int, _ state: State) -> Bool {
        guard let order = order(of: index, state) else { return true }
        let status = state.rest.orders[order].status
        return world.actors[index].hasPrefix("&") ? status != .pending : status != .confirmed
    }

    // MARK: Promises

    /// The promise about orders that is broken when no step is left.
    func orderViolation(_ state: State) -> String? {
        let orders = state.rest.orders
        // An actor that died while it gave units back has left that work to recovery.
        let isDead = state.actors.contains(.dead)
        for (index, order) in orders.enumerated() {
            let isTaken = state.ledger.row(order.key)?.direction == .out
            let isReturned = state.ledger.row("INC-" + order.key.dropFirst(4))?.direction == .in
            switch order.status {
            case .unplaced: return "order \(order.letter) was turned away"
            case .pending: break
            case .confirmed, .cancelled:
                if isEarlier(order.key) { return "order \(order.letter) is confirmed by what an earlier order took" }
                if !isTaken { return "order \(order.letter) is confirmed, and nothing was taken for it" }
                let isShared = orders[..<index].contains {
                    $0.key == order.key && ($0.status == .confirmed || $0.status == .cancelled)
                }
                if isShared { return "two orders are confirmed by one decrease" }
                if !isDead, isReturned != (order.status == .cancelled) {
                    return "order \(order.letter) is \(order.status), and its units are not"
                }
            case .failed(let reason):
                if reason == .keyClosed, isEarlier(order.key) { return "order \(order.letter) fails for an earlier order's key" }
                let isAnothers = isEarlier(order.key) || orders.enumerated().contains { $0.offset != index && $0.element.key == order.key }
                if !isDead, isTaken, !isReturned, !isAnothers { return "order \(order.letter) has failed, and its units are taken" }
            }
        }
        for name in world.earlier where !name.hasPrefix("-") && !name.hasPrefix("!") {
            if state.ledger.row(Self.increase(name).key) != nil { return "an earlier order's units were given back" }
        }
        let letters = Set(orders.map(\.letter))
        for row in state.ledger.rows where row.direction == .out && !isEarlier(row.key) {
            let name = row.key.dropFirst(4)
            guard letters.contains(String(name.prefix { $0 != "." })) else { continue }
            guard !orders.contains(where: { $0.key == row.key || $0.isLost }) else { continue }
            return "\(row.key) took units, and no order has them"
        }
        return nil
    }
}
