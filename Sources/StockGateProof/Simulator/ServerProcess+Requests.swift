import PostgresClient
import SeededRandom
import StockGate

// Decreases, increases, group commit, and the messages to Redis that leave in batches.

extension ServerProcess {
    // MARK: Decreases

    func decrease(_ request: DecreaseRequest, _ answer: @escaping (DecreaseAnswer) -> Void) {
        guard isReady else { return answer(.unavailable(.overloaded)) }
        let product = Simulation.index(request.product)
        if let soldOut = work[product].soldOut, simulation.now < soldOut.until, soldOut.counter < request.quantity.rawValue,
            !request.isRepeat || fault == .memoryRejectsRepeats
        {
            return answer(.insufficient(remaining: soldOut.counter))
        }
        open += 1
        simulation.attempts += 1
        let run = Run(PatchedReservation(request, mark: Token(simulation.attempts), fault: fault), answer)
        perform(run, run.machine.began(throughGate: !work[product].isDirect && admits()))
    }

    private func perform(_ run: Run, _ step: Reservation.Step) {
        let request = run.machine.request
        let product = Simulation.index(request.product)
        if let answer = step.answer {
            run.answer?(simulation.compared(answer, request))
            run.answer = nil
        }
        if step.asksForResync { ask(product, forced: false) }
        switch step.action {
        case .reserve: reserve(run, product)
        case .awaitResync:
            var isOver = false
            let end = { [self] (loaded: Bool) in
                guard !isOver else { return }
                isOver = true
                perform(run, run.machine.resyncEnded(loaded: loaded))
            }
            resync(product, forced: false, then: end)
            after(300_000) { end(false) }
        case .lookUp:
            simulation.ledger(self, "look up") { ledger, _ in
                ledger.lookUp(request.key)
            } _: { [self] result in
                if case .reply(let entry) = result {
                    perform(run, run.machine.lookedUp(entry))
                } else {
                    perform(run, run.machine.lookUpFailed())
                }
            }
        case .commit(let commit):
            // A commit with an unknown outcome is sent again after a pause. The first sending goes out at once.
            if case .committing(_, unknownBefore: true) = run.machine.state {
                after(simulation.random.number(10_000...100_000)) { [self] in arrive(Member(run: run, request: commit), isExempt: true) }
            } else {
                arrive(Member(run: run, request: commit), isExempt: false)
            }
        case .settle(let held):
            work[product].outbox.settles.append(GateModel.SettleEntry(key: request.key, held: held))
            leave(product)
            open -= 1
        case .release(let held), .abandon(let held):
            let isAbandoned = if case .abandon = step.action { true } else { false }
            work[product].outbox.releases.append(GateModel.ReleaseEntry(key: request.key, held: held, isAbandoned: isAbandoned))
            leave(product)
            open -= 1
        case .apply(let fence, let delta):
            tell(product, GateModel.ApplyEntry(fence: fence, delta: delta, key: request.key)) { [self] reply in
                perform(run, reply.map { run.machine.applied($0) } ?? run.machine.applyFailed())
            }
        case .bump:
            bump(product) { [self] in perform(run, run.machine.bumped()) }
        case .finish:
            open -= 1
        }
    }

    /// Reserves of one product that come within a moment go out in one call.
    private func reserve(_ run: Run, _ product: Int) {
        if work[product].isDirect { return perform(run, run.machine.reserveFailed(sent: false)) }
        work[product].reserving.append(run)
        guard work[product].reserving.count == 1 else { return }
        after(simulation.random.number(0...300)) { [self] in
            let runs = work[product].reserving
            work[product].reserving = []
            let requests = runs.map { (key: $0.machine.request.key, quantity: $0.machine.request.quantity) }
            let (now, fault) = (milliseconds, fault)
            redis(product, "reserve") { gate, dataset in
                gate.reserve(requests, dataset: dataset, now: now, fault: fault)
            } _: { [self] result in
                switch result {
                case .reply(let replies):
                    for (run, reply) in zip(runs, replies) {
                        if case .soldOut(let counter) = reply { work[product].soldOut = (counter, simulation.now + 20_000) }
                        perform(run, run.machine.reserveReplied(reply))
                    }
                case .notRun, .keyInUse, .moved: for run in runs { perform(run, run.machine.reserveFailed(sent: false)) }
                case .unknown: for run in runs { perform(run, run.machine.reserveFailed(sent: true)) }
                }
            }
        }
    }

    // MARK: Group commit

    private func arrive(_ member: Member, isExempt: Bool) {
        guard committer.arrived(member, isExempt: isExempt) == .accepted else {
            perform(member.run, member.run.machine.commitFailed(.notRun(.overloaded)))
            return
        }
        pump()
    }

    private func pump() {
        while freeConnections > 0 {
            let batch = committer.connectionFreed()
            guard !batch.isEmpty else { return }
            freeConnections -= 1
            send([batch])
        }
    }

    /// Sends batches one after the other on one connection, then frees the connection.
    private func send(_ batches: [[Member]]) {
        guard let batch = batches.first else {
            freeConnections += 1
            pump()
            return
        }
        let requests = batch.map(\.request)
        let fault = fault
        simulation.ledger(self, "commit", writes: requests.map(\.decrease.key)) { (ledger, stale) throws(LedgerModel.KeyInUse) in
            try ledger.commit(requests, lookedUpIn: stale, fault: fault)
        } _: { [self] result in
            var rest = Array(batches.dropFirst())
            switch result {
            case .reply(let replies):
                for (member, reply) in zip(batch, replies) { perform(member.run, member.run.machine.committed(reply)) }
            case .notRun(let why):
                for member in batch { perform(member.run, member.run.machine.commitFailed(.notRun(why))) }
            case .unknown:
                for member in batch { perform(member.run, member.run.machine.commitFailed(.unknown)) }
            case .keyInUse:
                switch Committer.retry(batch) {
                case .halves(let first, let second): rest = [first, second] + rest
                case .fail(let member): perform(member.run, member.run.machine.commitFailed(.notRun(.lockTimeout)))
                }
            // Only a call of Redis can end so: the ledger has no slots.
            case .moved: break
            }
            send(rest)
        }
    }

    // MARK: Increases

    func increase(_ request: IncreaseRequest, _ answer: @escaping (IncreaseAnswer) -> Void) {
        guard isReady else { return answer(.unavailable(.overloaded)) }
        open += 1
        work[Simulation.index(request.product)].soldOut = nil
        let run = Return(PatchedIncrease(request, fault: fault), answer)
        perform(run, run.machine.began())
    }

    private func perform(_ run: Return, _ step: Increase.Step) {
        let request = run.machine.request
        let product = Simulation.index(request.product)
        if let answer = step.answer {
            run.answer?(answer)
            run.answer = nil
        }
        if step.asksForResync { ask(product, forced: false) }
        switch step.action {
        case .commit:
            let fault = fault
            let pace = if case .committing(unknownBefore: true) = run.machine.state { 50_000 } else { 0 }
            after(pace) { [self] in
                simulation.ledger(self, "increase", writes: [request.decreaseKey]) { (ledger, _) throws(LedgerModel.KeyInUse) in
                    try ledger.increase([request], fault: fault)
                } _: { [self] result in
                    switch result {
                    case .reply(let replies): perform(run, run.machine.committed(replies[0]))
                    case .notRun(let why): perform(run, run.machine.commitFailed(.notRun(why)))
                    case .unknown: perform(run, run.machine.commitFailed(.unknown))
                    case .keyInUse: perform(run, run.machine.commitFailed(.notRun(.lockTimeout)))
                    // Only a call of Redis can end so: the ledger has no slots.
                    case .moved: break
                    }
                }
            }
        case .apply(let fence, let delta):
            tell(product, GateModel.ApplyEntry(fence: fence, delta: delta, key: "")) { [self] reply in
                work[product].soldOut = nil
                perform(run, reply.map { run.machine.applied($0) } ?? run.machine.applyFailed())
            }
        case .bump:
            bump(product) { [self] in perform(run, run.machine.bumped()) }
        case .finish:
            open -= 1
        }
    }

    func bump(_ product: Int, _ done: @escaping () -> Void) {
        simulation.ledger(self, "bump") { ledger, _ in
            ledger.bump(Simulation.id(product))
        } _: { [self] result in
            if case .reply = result { done() } else { after(50_000) { [self] in bump(product, done) } }
        }
    }

    // MARK: What leaves in batches

    func tell(_ product: Int, _ entry: GateModel.ApplyEntry, _ done: @escaping (ApplyReply?) -> Void) {
        work[product].outbox.applies.append((entry, done))
        leave(product)
    }

    private func leave(_ product: Int) {
        guard !work[product].outbox.isWaiting else { return }
        work[product].outbox.isWaiting = true
        after(simulation.random.number(50...1000)) { [self] in
            let outbox = work[product].outbox
            work[product].outbox = Outbox()
            let (now, fault) = (milliseconds, fault)
            if !outbox.settles.isEmpty {
                again(product, "settle", left: 3) { gate in
                    _ = gate.settle(outbox.settles, now: now, retention: Self.retention, fault: fault)
                }
            }
            if !outbox.releases.isEmpty {
                again(product, "release", left: 3) { gate in _ = gate.release(outbox.releases, fault: fault) }
            }
            if !outbox.applies.isEmpty {
                redis(product, "apply") { gate, _ in
                    gate.apply(outbox.applies.map(\.entry), now: now, fault: fault)
                } _: { result in
                    if case .reply(let replies) = result {
                        for (one, reply) in zip(outbox.applies, replies) { one.done(reply) }
                    } else {
                        for one in outbox.applies { one.done(nil) }
                    }
                }
            }
        }
    }

    /// Sends a settle or a release again a few times. After that the sweep finds the reservation.
    private func again(_ product: Int, _ what: StaticString, left: Int, _ body: @escaping (inout GateModel) -> Void) {
        redis(product, what) { gate, _ in
            body(&gate)
        } _: { [self] result in
            if case .reply = result { return }
            if left > 1 { after(20_000) { [self] in again(product, what, left: left - 1, body) } }
        }
    }
}
