import SeededRandom
import StockGate

// What befalls the servers and the stores, and how they come back.
extension Simulation {
    func strike(_ what: SimulationPlan.Disaster) {
        guard isChaos else { return }
        log("STRIKE \(what)")
        switch what {
        case .kill(let server, let down): servers[server].kill(down: down)
        case .pause(let server, let length): servers[server].pause(length)
        case .redisEmptied(let down): restartRedis(with: gates.map { _ in GateModel() }, down: down)
        case .redisFromCopy(let age, let down): restartRedis(with: copy(age: age), down: down)
        case .redisFailover(let lag): restartRedis(with: copy(age: lag), down: 0)
        case .redisFlushed:
            gates = gates.map { _ in GateModel() }
            redisFlushes += 1
        case .redisKeysLost(let product, let keys): for key in keys { gates[product].lose(key) }
        case .slotMoves(let product, let keepsKeys, let answers):
            let before = others[product]?.gate ?? GateModel()
            others[product] = (gates[product], now + answers)
            nodes[product] ^= 1
            if !keepsKeys { gates[product] = before }
            if plan.fault == .movedAsItIs, let marker = gates[product].marker { gates[product].stamp = dataset(product) + ":" + marker }
            for server in servers {
                // Each server hears of the move at a time of its own, at the latest when a node refuses a call.
                after(random.number(0...400_000)) { server.process?.deliver { server.process?.heardOfMove(product) } }
            }
        case .redisSlow(let length): redisSlowUntil = now + length
        case .ledgerRestarts(let down):
            ledgerGeneration += 1
            isLedgerUp = false
            after(down) { [unowned self] in isLedgerUp = true }
        case .ledgerRestored(let age, let down): restoreLedger(age: age, down: down)
        case .ledgerFailover(let lag, let down):
            guard restoreLedger(age: lag, down: down) else { return }
            timeline += 1
        case .ordersRestored(let count): orders.restore(behind: count)
        case .sequenceBehind(let count): orders.fallBehind(count)
        case .ledgerLossy(let length): ledgerLossyUntil = now + length
        case .networkLossy(let length): networkLossyUntil = now + length
        case .ledgerLocked(let length): ledgerLockedUntil = now + length
        }
    }

    /// Sets the ledger back to what it was this long ago.
    /// - Returns: whether there was such a state
    @discardableResult
    func restoreLedger(age: Int, down: Int) -> Bool {
        guard let backup = backups.last(where: { $0.at <= now - age })?.ledger else { return false }
        let gone = ledger.lostKeys(restoring: backup)
        lost.formUnion(gone)
        for key in gone { writtenAt[key] = nil }
        ledger = backup
        // Backups from after the one that was restored belong to a history that is gone.
        backups.removeAll { $0.at > now - age }
        ledgerGeneration += 1
        isLedgerUp = false
        after(down) { [unowned self] in isLedgerUp = true }
        return true
    }

    func restartRedis(with held: [GateModel], down: Int) {
        gates = held
        others = gates.map { _ in nil }
        redisRun += 1
        isRedisUp = false
        after(down) { [unowned self] in isRedisUp = true }
    }

    func copy(age: Int) -> [GateModel] {
        copies.last { $0.at <= now - age }?.gates ?? gates.map { _ in GateModel() }
    }

    func takeCopy() {
        copies.append((now, gates))
        backups.append((now, ledger))
        if isChaos { after(100_000) { [unowned self] in takeCopy() } }
    }

    /// A name for a product's marker that was never used before.
    func newMarker() -> String { "m\(redisRun).\(redisFlushes).\(random.number(0...999_999))" }

    func heal() {
        log("HEAL")
        isRedisUp = true
        isLedgerUp = true
        redisSlowUntil = 0
        for server in servers { server.heal() }
    }

    func byHand(_ work: SimulationPlan.HandWork, number: Int) {
        unfinished += 1
        let server = servers[random.number(0...servers.count - 1)]
        guard let process = server.process else {
            unfinished -= 1
            after(300_000) { [unowned self] in byHand(work, number: number) }
            return
        }
        let id = Self.id(work.product)
        let fault = plan.fault
        let done = Once<Bool>(nil) { [unowned self] result in
            unfinished -= 1
            if case .reply = result { return }
            after(300_000) { [unowned self] in byHand(work, number: number) }
        }
        after(3_000_000) { done.call(.unknown) }  // the process may die
        ledger(process, "by hand") { ledger, _ in
            switch work.kind {
            case .adjust(let quantity): _ = ledger.adjust(id, key: "ADJ-\(number)", quantity: quantity, fault: fault)
            case .discontinue: ledger.setOnSale(id, false)
            case .relist: ledger.setOnSale(id, true)
            }
            return true
        } _: { result in
            if case .reply = result { process.ask(work.product, forced: false) }
            done.call(result)
        }
    }
}
