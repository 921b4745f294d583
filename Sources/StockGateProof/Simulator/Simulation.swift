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
    /// The node of Redis does not serve the product's slot. The call has not run.
    case moved
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
    var ledgerGeneration = 0
    var isLedgerUp = true
    /// The timeline on which the ledger writes. Each failover begins a new one.
    var timeline = 1
    var ledgerLossyUntil = 0
    var ledgerLockedUntil = 0
    var gates: [GateModel]
    var redisRun = 1
    /// Which of two nodes of Redis serves each product's slot.
    var nodes: [UInt8]
    /// What the other node holds for a product, and until when it answers as if it still served the slot; nil: it holds nothing.
    var others: [(gate: GateModel, until: Int)?]
    var redisFlushes = 0
    var isRedisUp = true
    var redisSlowUntil = 0
    var networkLossyUntil = 0
    var copies: [(at: Int, gates: [GateModel])] = []
    var backups: [(at: Int, ledger: LedgerModel)] = []
    /// Keys whose rows a restore lost. Answers about them are void.
    var lost: Set<String> = []
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
        nodes = plan.stocks.map { _ in 0 }
        others = plan.stocks.map { _ in nil }
        for (index, stock) in plan.stocks.enumerated() { ledger.add(Self.id(index), stock: stock) }
    }

    /// The connection's part of the dataset of a product at a node, in a life of Redis.
    static func dataset(_ run: Int, node: UInt8) -> String { node == 0 ? "r\(run)" : "r\(run)n" }

    /// The connection's part of the dataset of the node that serves a product.
    func dataset(_ product: Int) -> String { Self.dataset(redisRun, node: nodes[product]) }

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

    /// Sends a command to a node of Redis. `body` gets the product's gate there, and the dataset that the connection knows.
    func redis<Reply>(
        _ process: ServerProcess,
        _ product: Int,
        node: UInt8,
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
            guard let reply = answer(product, at: node, Self.dataset(run, node: node), body) else {
                after(delay()) { once.call(.moved) }
                return
            }
            if isTracing, !isRoutine(what) { log("redis: product \(product + 1) \(what) for server \(process.server.number): \(reply)") }
            guard !isLost() else { return }
            let back = max(now + delay(), process.links[number].lastReply + 1)
            process.links[number].lastReply = back
            after(back - now) { once.call(.reply(reply)) }
        }
    }

    /// What a node makes of a call; nil if it does not serve the product any more, and knows that.
    private func answer<Reply>(
        _ product: Int,
        at node: UInt8,
        _ dataset: String,
        _ body: (inout GateModel, String) -> Reply
    ) -> Reply? {
        if node == nodes[product] { return body(&gates[product], dataset) }
        guard var other = others[product], now < other.until else { return nil }
        let reply = body(&other.gate, dataset)
        others[product] = other
        return reply
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
        process.opened(timeline)
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
