import PostgresClient
import SeededRandom
import StockGate

/// One life of a server process: the shells around the machines, as values and events.
final class ServerProcess {
    /// A decrease that is under way.
    final class Run {
        var machine: PatchedReservation
        var answer: ((DecreaseAnswer) -> Void)?

        init(_ machine: PatchedReservation, _ answer: @escaping (DecreaseAnswer) -> Void) {
            self.machine = machine
            self.answer = answer
        }
    }

    /// An increase that is under way.
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
        /// The decreases whose reserve goes out with the next call.
        var reserving: [Run] = []
        var soldOut: (counter: Int64, until: Int)?
        /// Whether the product is sold without Redis, because a recovery passed without it.
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
    var isAlive = true
    var isPaused = false
    var deferred: [() -> Void] = []
    var isReady = false
    var breaker = Breaker.closed(failures: 0)
    var work: [ProductWork]
    var committer = Committer<Member>(capacity: 64, maximumBatch: 8) { $0.request.decrease.key }
    var freeConnections = 2
    var open = 0

    var fault: Fault? { simulation.plan.fault }
    var milliseconds: Int64 { Int64(simulation.now / 1000) }

    init(_ server: SimulatedServer) {
        self.server = server
        simulation = server.simulation
        work = simulation.products.map { _ in ProductWork() }
    }

    /// The work that keeps the process from being done; nil: none.
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

    func after(_ delay: Int, _ run: @escaping () -> Void) {
        simulation.after(delay) { [self] in deliver(run) }
    }

    func every(_ interval: Int, _ run: @escaping () -> Void) {
        after(interval + simulation.random.number(0...interval / 4)) { [self] in
            run()
            every(interval, run)
        }
    }

    func reconnected() {
        for product in simulation.products { ask(product, forced: false) }
    }

    // MARK: Redis and its breaker

    func redis<Reply>(
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

    func redisFailed() {
        guard case .closed(let failures) = breaker else { return }
        breaker = failures >= 2 ? .open(until: simulation.now + 500_000) : .closed(failures: failures + 1)
    }

    func admits() -> Bool {
        switch breaker {
        case .closed: return true
        case .halfOpen: return false
        case .open(let until):
            if simulation.now >= until { probe() }
            return false
        }
    }

    /// The recovery of a half-open breaker: every gated product is resynced before calls are let through.
    func probe() {
        breaker = .halfOpen
        recover { [self] passed in breaker = passed ? .closed(failures: 0) : .open(until: simulation.now + 500_000) }
    }

    /// Resyncs every product. If a product's row is locked, the product is voided in Redis and sold directly, and its schedule tries it again.
    func recover(_ done: @escaping (Bool) -> Void) {
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
}
