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
        /// The sweep leaves the product alone until then, milliseconds.
        var sweepRest = Int64.min
        /// The decreases whose reserve goes out with the next call.
        var reserving: [Run] = []
        var soldOut: (counter: Int64, until: Int)?
        /// Whether the product is sold without Redis, because a recovery passed without it.
        var isDirect = false
        /// Whether the ledger has gone back since this server's last install.
        var isMoved = false
        /// The node of Redis that this server takes for the product's.
        var node: UInt8 = 0
        /// Whether the last resync failed because the product's row was locked.
        var wasLocked = false
    }

    enum Breaker {
        case closed(failures: Int)
        case open(until: Int)
        case halfOpen
    }

    static let sweepBound: Int64 = 5000
    /// Milliseconds.
    static let longestSweepRest: Int64 = 9000
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
    /// The ledger's timeline as this process knows it; nil until its first session.
    private var timeline: Int?
    var open = 0

    var fault: Fault? { simulation.plan.fault }
    var milliseconds: Int64 { Int64(simulation.now / 1000) }

    init(_ server: SimulatedServer) {
        self.server = server
        simulation = server.simulation
        let simulation = server.simulation
        work = simulation.products.map { product in
            var work = ProductWork()
            work.node = simulation.nodes[product]
            return work
        }
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
        guard simulation.plan.failsOver else { return }
        // A server reads now and then which products are gated, and so finds a failover without a buyer.
        every(1_000_000) { [self] in
            simulation.ledger(self, "quiet read") { ledger, _ in
                ledger.product(Simulation.id(0))
            } _: { _ in
            }
        }
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

    /// A session of the ledger is used, which was opened on this timeline. On a new timeline commits may be lost that Redis has counted: each product is sold
    /// without Redis until it has been installed again.
    func opened(_ timeline: Int) {
        defer { self.timeline = timeline }
        guard let known = self.timeline, known != timeline, fault != .failoverUnnoticed, !work.isEmpty else { return }
        self.timeline = timeline
        for product in simulation.products {
            work[product].isDirect = true
            work[product].isMoved = true
            work[product].soldOut = nil
            ask(product, forced: true)
        }
    }

    // MARK: Redis and its breaker

    func redis<Reply>(
        _ product: Int,
        _ what: StaticString,
        _ body: @escaping (inout GateModel, String) -> Reply,
        _ done: @escaping (CallResult<Reply>) -> Void
    ) {
        redis(product, at: work[product].node, what, body, done)
    }

    func redis<Reply>(
        _ product: Int,
        at node: UInt8,
        _ what: StaticString,
        _ body: @escaping (inout GateModel, String) -> Reply,
        _ done: @escaping (CallResult<Reply>) -> Void
    ) {
        simulation.redis(self, product, node: node, what, body) { [self] result in
            switch result {
            case .reply: if case .closed = breaker { breaker = .closed(failures: 0) }
            // A slot that has moved is no failure of Redis, so the breaker does not count it.
            case .moved: heardOfMove(product)
            case .notRun, .unknown, .keyInUse: redisFailed()
            }
            done(result)
        }
    }

    /// The product may have another node. It is sold directly until it is installed there.
    func heardOfMove(_ product: Int) {
        guard !work.isEmpty, work[product].node != simulation.nodes[product] else { return }
        simulation.log("server \(server.number) hears that product \(product + 1) has moved")
        work[product].node = simulation.nodes[product]
        work[product].soldOut = nil
        guard fault != .movedAsItIs else { return }
        work[product].isDirect = true
        if fault == .moveForgetsLeap { work[product].isMoved = false }
        if fault != .moveUnasked { ask(product, forced: true) }
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
