import HeapModule
import SeededRandom
import StockGate

// One run of the simulator: virtual time, a network, the two stores, and the checks on them.
//
// Invariant: everything that happens is an event of one queue, and depends on the seed alone: not on a clock, a thread, or the order of a hash table.
// Bounds: `timeLimit` of virtual time, `eventLimit` events. Stop: the clients are done and the audit has had its time, or a promise is broken.

enum CallResult<Reply> {
    case reply(Reply)
    /// The call is known not to have run.
    case notRun(Unavailable)
    /// The call was sent and not answered.
    case unknown
    /// The statement was rolled back because of a key.
    case keyInUse
}

/// A run of the simulator. It has one thread, and every closure is an event of its queue.
final class Simulation {
    struct Event: Comparable {
        var at: Int
        var number: Int
        var run: () -> Void

        static func < (left: Event, right: Event) -> Bool { (left.at, left.number) < (right.at, right.number) }
        static func == (left: Event, right: Event) -> Bool { left.at == right.at && left.number == right.number }
    }

    /// A connection to Redis. Commands arrive in order, and so do their replies.
    struct Link {
        var run = 0
        var lastArrival = 0
        var lastReply = 0
    }

    static let timeLimit = 240_000_000
    static let eventLimit = 200_000
    static let redisTimeout = 200_000

    let plan: SimulationPlan
    var random: SplitMix64
    private(set) var now = 0
    private var queue = Heap<Event>()
    private var scheduled = 0
    private(set) var events = 0
    var operations = 0
    /// Decreases that have begun at any server.
    var attempts: Int64 = 0
    var broken: String?
    private(set) var history: [String] = []
    let isTracing: Bool

    // The stores.
    var ledger = LedgerModel()
    private var ledgerGeneration = 0
    private var isLedgerUp = true
    private var ledgerLossyUntil = 0
    private var ledgerLockedUntil = 0
    var gates: [GateModel]
    private(set) var redisRun = 1
    private var redisFlushes = 0
    private var isRedisUp = true
    private var redisSlowUntil = 0
    private var networkLossyUntil = 0
    private var copies: [(at: Int, gates: [GateModel])] = []
    private var backups: [(at: Int, ledger: LedgerModel)] = []
    /// Keys whose rows a restore lost. Answers about them are void.
    private(set) var lost: Set<String> = []
    private var statements = 0
    /// When the ledger's rows were written, in microseconds. Only kept in runs where order ids are used again.
    var writtenAt: [String: Int] = [:]
    private(set) lazy var orders = SimulatedOrders(self)

    private(set) var servers: [SimulatedServer] = []
    private(set) var clients: [SimulatedClient] = []
    private(set) var strangers: [SimulatedStranger] = []
    var unfinished = 0

    var products: Range<Int> { plan.stocks.indices }
    var isChaos: Bool { now < SimulationPlan.chaos }

    init(_ plan: SimulationPlan, tracing: Bool) {
        self.plan = plan
        isTracing = tracing
        random = SplitMix64(seed: plan.seed ^ 0xA5A5_5A5A_1234_8765)
        gates = plan.stocks.map { _ in GateModel() }
        for (index, stock) in plan.stocks.enumerated() { ledger.add(Self.id(index), stock: stock) }
    }

    static func id(_ product: Int) -> ProductID { ProductID(Int64(product + 1)) }
    static func index(_ product: ProductID) -> Int { Int(product.rawValue) - 1 }

    // MARK: Running

    func run() {
        servers = (0..<plan.servers).map { SimulatedServer(self, number: $0) }
        for server in servers { server.start() }
        clients = plan.clients.enumerated().map { SimulatedClient(self, number: $0.offset, orders: $0.element) }
        for client in clients { client.start() }
        strangers = plan.strangers.map { SimulatedStranger(self, $0) }
        for stranger in strangers { stranger.start() }
        for (number, work) in plan.hands.enumerated() {
            after(work.at) { [unowned self] in byHand(work, number: number) }
        }
        for strike in plan.strikes { after(strike.at) { [unowned self] in self.strike(strike.what) } }
        takeCopy()
        after(SimulationPlan.chaos) { [unowned self] in heal() }
        var quietSince = 0
        while broken == nil, let event = queue.popMin() {
            now = event.at
            events += 1
            event.run()
            if unfinished > 0 || isChaos { quietSince = now }
            if now - quietSince > 20_000_000 { break }
            if events > Self.eventLimit {
                broken = "messages without end: \(events) events in \(now / 1000) ms"
                break
            }
            if now > Self.timeLimit {
                broken = "not settled after \(now / 1_000_000) s: \(unfinished) orders are open"
                break
            }
        }
        queue = Heap()
        if broken == nil { broken = finalViolation() }
        if let broken { log("BROKEN \(broken)") }
        for server in servers { server.end() }
    }

    func after(_ delay: Int, _ run: @escaping () -> Void) {
        scheduled += 1
        queue.insert(Event(at: now + max(delay, 0), number: scheduled, run: run))
    }

    func log(_ line: @autoclosure () -> String) {
        guard isTracing else { return }
        history.append("\(now / 1000).\(String(now % 1000 + 1000).dropFirst()) ms  \(line())")
    }

    /// Whether an event is a routine look of the sweep or the audit, of which a trace would have too many.
    private func isRoutine(_ what: StaticString) -> Bool { ["overdue", "quiet look", "quiet read"].contains("\(what)") }

    // MARK: The network

    /// The delay of a message: short for most, long for a few.
    func delay() -> Int {
        switch random.number(0...99) {
        case 0...89: random.number(50...800)
        case 90...97: random.number(800...20_000)
        default: isChaos ? random.number(20_000...300_000) : random.number(800...20_000)
        }
    }

    func isLost() -> Bool {
        guard isChaos else { return false }
        return random.happens(now < networkLossyUntil ? 0.2 : 0.005)
    }

    /// Sends a command to Redis. `body` gets the product's gate, and the dataset that the connection knows.
    func redis<Reply>(
        _ process: ServerProcess,
        _ product: Int,
        _ what: StaticString,
        _ body: @escaping (inout GateModel, String) -> Reply,
        _ done: @escaping (CallResult<Reply>) -> Void
    ) {
        operations += 1
        let once = Once(process, done)
        guard isRedisUp else {
            after(random.number(10...500)) { once.call(.notRun(.ledgerDown)) }
            return
        }
        let number = random.number(0...1)
        if process.links[number].run != redisRun {
            let isFirst = process.links[number].run == 0
            process.links[number] = Link(run: redisRun, lastArrival: now, lastReply: now)
            if !isFirst { process.reconnected() }
        }
        let run = redisRun
        var slowness = delay()
        if now < redisSlowUntil { slowness += random.number(0...500_000) }
        let arrival = max(now + slowness, process.links[number].lastArrival + 1)
        process.links[number].lastArrival = arrival
        after(Self.redisTimeout) { once.call(.unknown) }
        if isLost() {
            after(random.number(100...Self.redisTimeout)) { once.call(.unknown) }
            return
        }
        after(arrival - now) { [unowned self] in
            guard run == redisRun, isRedisUp else {
                after(delay()) { once.call(.unknown) }
                return
            }
            let reply = body(&gates[product], "r\(run)")
            if isTracing, !isRoutine(what) { log("redis: product \(product + 1) \(what) for server \(process.server.number): \(reply)") }
            guard !isLost() else { return }
            let back = max(now + delay(), process.links[number].lastReply + 1)
            process.links[number].lastReply = back
            after(back - now) { once.call(.reply(reply)) }
        }
    }

    /// Sends a statement to PostgreSQL. `body` is the statement, which may write rows under these keys. `stale` are the rows as they were before the statement
    /// got its lock.
    func ledger<Reply>(
        _ process: ServerProcess,
        _ what: StaticString,
        writes keys: [String] = [],
        _ body: @escaping (inout LedgerModel, _ stale: [LedgerModel.Row]?) throws(LedgerModel.KeyInUse) -> Reply,
        _ done: @escaping (CallResult<Reply>) -> Void
    ) {
        operations += 1
        let once = Once(process, done)
        guard isLedgerUp else {
            after(random.number(10...500)) { once.call(.notRun(.ledgerDown)) }
            return
        }
        let generation = ledgerGeneration
        let isLossy = isChaos && now < ledgerLossyUntil
        var isCut = false
        if isChaos, random.happens(isLossy ? 0.3 : 0.004) {
            // The connection is lost, either before the statement arrives, or while the statement waits for its lock and then still runs.
            after(random.number(100...100_000)) { once.call(.unknown) }
            if random.happens(0.3) { return }
            isCut = true
        }
        after(delay()) { [unowned self] in
            guard generation == ledgerGeneration else {
                after(delay()) { once.call(.unknown) }
                return
            }
            let stale = plan.fault == .lookupBeforeLock ? ledger.rows : nil
            var wait = random.number(0...500)
            if isChaos, now < ledgerLockedUntil {
                if random.happens(0.3) {
                    after(200_000) { once.call(.notRun(.lockTimeout)) }
                    return
                }
                wait += random.number(0...200_000)
            }
            if isCut { wait += random.number(0...1_500_000) }
            after(wait) { [unowned self] in
                guard generation == ledgerGeneration else {
                    after(delay()) { once.call(.unknown) }
                    return
                }
                let reply: CallResult<Reply>
                do throws(LedgerModel.KeyInUse) {
                    reply = .reply(try body(&ledger, stale))
                } catch {
                    reply = .keyInUse
                }
                if isTracing, !isRoutine(what) {
                    log("ledger: \(what) for server \(process.server.number)\(isCut ? " (client gone)" : ""): \(reply)")
                }
                wrote(keys)
                statements += 1
                check(thoroughly: statements % 16 == 0)
                guard !isCut else { return }
                if isLost() {
                    after(delay()) { once.call(.unknown) }
                } else {
                    after(delay()) { [unowned self] in once.call(generation == ledgerGeneration ? reply : .unknown) }
                }
            }
        }
    }

    // MARK: Disasters

    private func strike(_ what: SimulationPlan.Disaster) {
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
        case .redisSlow(let length): redisSlowUntil = now + length
        case .ledgerRestarts(let down):
            ledgerGeneration += 1
            isLedgerUp = false
            after(down) { [unowned self] in isLedgerUp = true }
        case .ledgerRestored(let age, let down):
            guard let backup = backups.last(where: { $0.at <= now - age })?.ledger else { return }
            let gone = ledger.lostKeys(restoring: backup)
            lost.formUnion(gone)
            for key in gone { writtenAt[key] = nil }
            ledger = backup
            // Backups from after the one that was restored belong to a history that is gone.
            backups.removeAll { $0.at > now - age }
            ledgerGeneration += 1
            isLedgerUp = false
            after(down) { [unowned self] in isLedgerUp = true }
        case .ordersRestored(let count): orders.restore(behind: count)
        case .sequenceBehind(let count): orders.fallBehind(count)
        case .ledgerLossy(let length): ledgerLossyUntil = now + length
        case .networkLossy(let length): networkLossyUntil = now + length
        case .ledgerLocked(let length): ledgerLockedUntil = now + length
        }
    }

    private func restartRedis(with held: [GateModel], down: Int) {
        gates = held
        redisRun += 1
        isRedisUp = false
        after(down) { [unowned self] in isRedisUp = true }
    }

    private func copy(age: Int) -> [GateModel] {
        copies.last { $0.at <= now - age }?.gates ?? gates.map { _ in GateModel() }
    }

    private func takeCopy() {
        copies.append((now, gates))
        backups.append((now, ledger))
        if isChaos { after(100_000) { [unowned self] in takeCopy() } }
    }

    /// A name for a product's marker that was never used before.
    func newMarker() -> String { "m\(redisRun).\(redisFlushes).\(random.number(0...999_999))" }

    private func heal() {
        log("HEAL")
        isRedisUp = true
        isLedgerUp = true
        redisSlowUntil = 0
        for server in servers { server.heal() }
    }

    private func byHand(_ work: SimulationPlan.HandWork, number: Int) {
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

/// Passes one result to a process that lives and is not paused. Only the first result counts.
final class Once<Reply> {
    private var done: ((CallResult<Reply>) -> Void)?
    private let process: ServerProcess?

    init(_ process: ServerProcess?, _ done: @escaping (CallResult<Reply>) -> Void) {
        self.process = process
        self.done = done
    }

    func call(_ result: CallResult<Reply>) {
        guard let done else { return }
        self.done = nil
        if let process { process.deliver { done(result) } } else { done(result) }
    }
}
