import PostgresClient
import StockGate

/// One server: the place where processes live and die.
final class SimulatedServer {
    unowned let simulation: Simulation
    let number: Int
    private(set) var process: ServerProcess?
    private var pausedUntil = 0

    init(_ simulation: Simulation, number: Int) {
        self.simulation = simulation
        self.number = number
    }

    func start() {
        guard process == nil else { return }
        let process = ServerProcess(self)
        self.process = process
        process.start()
    }

    func kill(down: Int) {
        guard let process else { return }
        process.die()
        self.process = nil
        simulation.after(down) { [self] in start() }
    }

    func pause(_ length: Int) {
        guard let process else { return }
        process.pause()
        pausedUntil = simulation.now + length
        simulation.after(length) { [self] in
            if process === self.process, simulation.now >= pausedUntil { process.resume() }
        }
    }

    func heal() {
        start()
    }

    func end() {
        process?.die()
    }
}

/// One life of a server: the shells around the machines, as values and events.
final class ServerProcess {
    /// A decrease on its way.
    final class Run {
        var machine: PatchedReservation
        var answer: ((DecreaseAnswer) -> Void)?

        init(_ machine: PatchedReservation, _ answer: @escaping (DecreaseAnswer) -> Void) {
            self.machine = machine
            self.answer = answer
        }
    }

    /// An increase on its way.
    final class Return {
        var machine: PatchedIncrease
        var answer: ((IncreaseAnswer) -> Void)?

        init(_ machine: PatchedIncrease, _ answer: @escaping (IncreaseAnswer) -> Void) {
            self.machine = machine
            self.answer = answer
        }
    }

    struct Member: @unchecked Sendable {  // the simulation is one thread; the committer asks for Sendable members
        var run: Run
        var request: CommitRequest
    }

    struct Outbox {
        var settles: [GateModel.SettleEntry] = []
        var releases: [GateModel.ReleaseEntry] = []
        var applies: [(entry: GateModel.ApplyEntry, done: (ApplyReply?) -> Void)] = []
        var isWaiting = false
    }

    struct ProductWork {
        var schedule = ResyncSchedule(interval: 100_000)
        var waiters: [(Bool) -> Void] = []
        var laterWaiters: [(Bool) -> Void] = []
        var isRunning = false
        var outbox = Outbox()
        var soldOut: (counter: Int64, until: Int)?
        /// Sold without Redis: a recovery passed without it.
        var isDirect = false
        /// Whether the last resync failed because the product's row was locked.
        var wasLocked = false
    }

    enum Breaker {
        case closed(failures: Int)
        case open(until: Int)
        case halfOpen
    }

    static let sweepBound: Int64 = 5000
    static let retention: Int64 = 60_000

    let server: SimulatedServer
    unowned let simulation: Simulation
    var links = [Simulation.Link(), Simulation.Link()]
    private var isAlive = true
    private var isPaused = false
    private var deferred: [() -> Void] = []
    private var isReady = false
    private var breaker = Breaker.closed(failures: 0)
    private var work: [ProductWork]
    private var committer = Committer<Member>(capacity: 64, maximumBatch: 8) { $0.request.decrease.key }
    private var freeConnections = 2
    private var open = 0

    private var fault: Fault? { simulation.plan.fault }
    private var milliseconds: Int64 { Int64(simulation.now / 1000) }

    init(_ server: SimulatedServer) {
        self.server = server
        simulation = server.simulation
        work = simulation.products.map { _ in ProductWork() }
    }

    /// What keeps it from being done; nil: nothing.
    var openWork: String? {
        if open > 0 || committer.count > 0 { return "\(open) requests open, \(committer.count) wait for a commit" }
        return nil
    }

    // MARK: Life

    func start() {
        simulation.log("server \(server.number) starts")
        recover { [self] passed in
            if !passed { breaker = .open(until: simulation.now) }
            isReady = true
        }
        every(1_500_000) { [self] in sweep() }
        every(3_000_000) { [self] in audit() }
    }

    func die() {
        isAlive = false
        deferred = []
        work = []
    }

    func pause() { isPaused = true }

    func resume() {
        isPaused = false
        while !isPaused, isAlive, !deferred.isEmpty { deferred.removeFirst()() }
    }

    func deliver(_ run: @escaping () -> Void) {
        guard isAlive else { return }
        if isPaused { deferred.append(run) } else { run() }
    }

    private func after(_ delay: Int, _ run: @escaping () -> Void) {
        simulation.after(delay) { [self] in deliver(run) }
    }

    private func every(_ interval: Int, _ run: @escaping () -> Void) {
        after(interval + simulation.random.number(0...interval / 4)) { [self] in
            run()
            every(interval, run)
        }
    }

    func reconnected() {
        for product in simulation.products { ask(product, forced: false) }
    }

    // MARK: Redis and its breaker

    private func redis<Reply>(
        _ product: Int,
        _ what: StaticString,
        _ body: @escaping (inout GateModel, String) -> Reply,
        _ done: @escaping (CallResult<Reply>) -> Void
    ) {
        simulation.redis(self, product, what, body) { [self] result in
            if case .reply = result { if case .closed = breaker { breaker = .closed(failures: 0) } } else { redisFailed() }
            done(result)
        }
    }

    private func redisFailed() {
        guard case .closed(let failures) = breaker else { return }
        breaker = failures >= 2 ? .open(until: simulation.now + 500_000) : .closed(failures: failures + 1)
    }

    private func admits() -> Bool {
        switch breaker {
        case .closed: return true
        case .halfOpen: return false
        case .open(let until):
            if simulation.now >= until { probe() }
            return false
        }
    }

    /// The half-open gate: every gated product is resynced before calls are let through.
    private func probe() {
        breaker = .halfOpen
        recover { [self] passed in breaker = passed ? .closed(failures: 0) : .open(until: simulation.now + 500_000) }
    }

    /// Resyncs every product. One whose row is locked is voided in Redis and sold directly; its schedule tries it again.
    private func recover(_ done: @escaping (Bool) -> Void) {
        var left = work.count
        var failed = false
        let end = { (passed: Bool) in
            left -= 1
            failed = failed || !passed
            if left == 0 { done(!failed) }
        }
        for product in simulation.products {
            resync(product, forced: true) { [self] loaded in
                guard !loaded, work[product].wasLocked else { return end(loaded) }
                work[product].isDirect = true
                let fault = fault
                redis(product, "void") { gate, _ in
                    gate.void(fault: fault)
                } _: { [self] result in
                    if case .reply = result { simulation.log("server \(server.number) leaves product \(product + 1) direct") }
                    if case .reply = result { end(true) } else { end(false) }
                }
            }
        }
    }

    // MARK: Decreases

    func decrease(_ request: DecreaseRequest, _ answer: @escaping (DecreaseAnswer) -> Void) {
        guard isReady else { return answer(.unavailable(.overloaded)) }
        let product = Simulation.index(request.product)
        if let soldOut = work[product].soldOut, simulation.now < soldOut.until, soldOut.counter < request.quantity,
            !request.isRepeat || fault == .memoryRejectsRepeats
        {
            return answer(.insufficient(remaining: soldOut.counter))
        }
        open += 1
        let run = Run(PatchedReservation(request, fault: fault), answer)
        perform(run, run.machine.began(throughGate: !work[product].isDirect && admits()))
    }

    private func perform(_ run: Run, _ step: Reservation.Step) {
        let request = run.machine.request
        let product = Simulation.index(request.product)
        if let answer = step.answer {
            run.answer?(answer)
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
            // An unknown one comes again after a pause; the first goes at once.
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

    private func reserve(_ run: Run, _ product: Int) {
        if work[product].isDirect { return perform(run, run.machine.reserveFailed(sent: false)) }
        let request = run.machine.request
        let (now, fault) = (milliseconds, fault)
        redis(product, "reserve") { gate, dataset in
            gate.reserve(key: request.key, quantity: request.quantity, dataset: dataset, now: now, fault: fault)
        } _: { [self] result in
            switch result {
            case .reply(let reply):
                if case .soldOut(let counter) = reply { work[product].soldOut = (counter, simulation.now + 20_000) }
                perform(run, run.machine.reserveReplied(reply))
            case .notRun, .keyInUse: perform(run, run.machine.reserveFailed(sent: false))
            case .unknown: perform(run, run.machine.reserveFailed(sent: true))
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

    /// Sends batches one after the other on one connection, then frees it.
    private func send(_ batches: [[Member]]) {
        guard let batch = batches.first else {
            freeConnections += 1
            pump()
            return
        }
        let requests = batch.map(\.request)
        let fault = fault
        simulation.ledger(self, "commit") { (ledger, stale) throws(LedgerModel.KeyInUse) in
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
                simulation.ledger(self, "increase") { (ledger, _) throws(LedgerModel.KeyInUse) in
                    try ledger.increase([request], fault: fault)
                } _: { [self] result in
                    switch result {
                    case .reply(let replies): perform(run, run.machine.committed(replies[0]))
                    case .notRun(let why): perform(run, run.machine.commitFailed(.notRun(why)))
                    case .unknown: perform(run, run.machine.commitFailed(.unknown))
                    case .keyInUse: perform(run, run.machine.commitFailed(.notRun(.lockTimeout)))
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

    private func bump(_ product: Int, _ done: @escaping () -> Void) {
        simulation.ledger(self, "bump") { ledger, _ in
            ledger.bump(Simulation.id(product))
        } _: { [self] result in
            if case .reply = result { done() } else { after(50_000) { [self] in bump(product, done) } }
        }
    }

    // MARK: What leaves in batches

    private func tell(_ product: Int, _ entry: GateModel.ApplyEntry, _ done: @escaping (ApplyReply?) -> Void) {
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

    /// Settles and releases may be sent again; then the sweep is left to find the reservation.
    private func again(_ product: Int, _ what: StaticString, left: Int, _ body: @escaping (inout GateModel) -> Void) {
        redis(product, what) { gate, _ in
            body(&gate)
        } _: { [self] result in
            if case .reply = result { return }
            if left > 1 { after(20_000) { [self] in again(product, what, left: left - 1, body) } }
        }
    }

    // MARK: Resyncs

    func ask(_ product: Int, forced: Bool) {
        guard !work.isEmpty else { return }
        if fault == .askDroppedWhileRunning, work[product].isRunning { return }
        follow(product, work[product].schedule.asked(forced: forced, at: UInt64(simulation.now)))
    }

    private func resync(_ product: Int, forced: Bool, then: @escaping (Bool) -> Void) {
        if work[product].isRunning { work[product].laterWaiters.append(then) } else { work[product].waiters.append(then) }
        ask(product, forced: forced)
    }

    private func follow(_ product: Int, _ action: ResyncSchedule.Action) {
        switch action {
        case .none: break
        case .wait(let until):
            after(Int(until) - simulation.now) { [self] in
                follow(product, work[product].schedule.timerFired(at: UInt64(simulation.now)))
            }
        case .run(let forced):
            work[product].isRunning = true
            work[product].wasLocked = false
            let machine = PatchedResync(forced: forced, fault: fault)
            var begun = machine
            let action = begun.began()
            resync(product, begun, action)
        }
    }

    private func resync(_ product: Int, _ machine: PatchedResync, _ action: Resync.Action) {
        var machine = machine
        let next = { [self] (event: (inout PatchedResync) -> Resync.Action) in
            let action = event(&machine)
            resync(product, machine, action)
        }
        let fault = fault
        switch action {
        case .look:
            let marker = simulation.newMarker()
            redis(product, "look") { gate, dataset in
                gate.look(newMarker: marker, dataset: dataset, fault: fault)
            } _: { result in
                if case .reply(let view) = result { next { $0.looked(view) } } else { next { $0.stepFailed() } }
            }
        case .readFence:
            simulation.ledger(self, "read fence") { ledger, _ in
                ledger.product(Simulation.id(product))?.fence
            } _: { result in
                if case .reply(let fence) = result { next { $0.fenceRead(fence) } } else { next { $0.stepFailed() } }
            }
        case .bump:
            simulation.ledger(self, "resync bumps") { ledger, _ in
                ledger.bump(Simulation.id(product))
            } _: { result in
                if case .notRun(.lockTimeout) = result { self.work[product].wasLocked = true }
                if case .reply(let state) = result { next { $0.bumped(state) } } else { next { $0.stepFailed() } }
            }
        case .raise(let above):
            simulation.ledger(self, "resync raises") { ledger, _ in
                ledger.raise(Simulation.id(product), above: above)
            } _: { result in
                if case .notRun(.lockTimeout) = result { self.work[product].wasLocked = true }
                if case .reply(let state?) = result { next { $0.raised(state) } } else { next { $0.stepFailed() } }
            }
        case .install(let read, let state):
            redis(product, "install") { gate, dataset in
                gate.install(state, read: read, dataset: dataset, fault: fault)
            } _: { result in
                if case .reply(let reply) = result { next { $0.installReplied(reply) } } else { next { $0.stepFailed() } }
            }
        case .finish:
            let succeeded = machine.outcome?.hasSucceeded ?? false
            work[product].isRunning = false
            if succeeded { work[product].isDirect = false }
            let waiters = work[product].waiters
            work[product].waiters = work[product].laterWaiters
            work[product].laterWaiters = []
            follow(product, work[product].schedule.ended(succeeded: succeeded, at: UInt64(simulation.now)))
            for waiter in waiters { waiter(succeeded) }
        }
    }

    // MARK: Sweep and audit

    private func sweep() {
        guard fault != .sweepOff else { return }
        for product in simulation.products {
            let (now, fault) = (milliseconds, fault)
            redis(product, "overdue") { gate, _ in
                (gate.fence, gate.overdue(now: now, bound: Self.sweepBound))
            } _: { [self] result in
                guard case .reply(let (fence, overdue)) = result, !overdue.isEmpty else { return }
                if fault == .sweepReleases {
                    let entries = overdue.map {
                        GateModel.ReleaseEntry(key: $0.key, held: Held(fence: fence, token: $0.token), isAbandoned: false)
                    }
                    redis(product, "sweep") { gate, _ in
                        _ = gate.release(entries, fault: fault)
                    } _: { _ in
                    }
                } else {
                    ask(product, forced: true)
                }
            }
        }
    }

    private func audit() {
        guard fault != .auditOff, !simulation.plan.isAuditless else { return }
        for product in simulation.products {
            quietLook(product) { [self] differs in
                guard differs else { return }
                after(1_000_000) { [self] in
                    quietLook(product) { [self] differs in
                        if differs { ask(product, forced: true) }
                    }
                }
            }
        }
    }

    /// Redis, PostgreSQL, then Redis again unchanged, nothing pending: whether the two differ.
    private func quietLook(_ product: Int, _ done: @escaping (Bool) -> Void) {
        let look: (@escaping (GateView) -> Void) -> Void = { [self] found in
            redis(product, "quiet look") { gate, dataset in
                gate.look(newMarker: "", dataset: dataset)
            } _: { result in
                if case .reply(let view) = result { found(view) }
            }
        }
        look { [self] first in
            simulation.ledger(self, "quiet read") { ledger, _ in
                ledger.product(Simulation.id(product))
            } _: { result in
                guard case .reply(let row?) = result else { return }
                look { second in
                    guard first == second, first.pending == 0 else { return }
                    let expected = row.isOnSale ? row.stock : nil
                    done(!first.isLoaded || first.fence != row.fence || first.counter != expected)
                }
            }
        }
    }
}
