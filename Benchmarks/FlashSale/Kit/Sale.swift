import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// One sale from the first order to the audit.
///
/// The load runs on one event loop; beside it tasks take servers away and give them back, look at the breaker and at Redis, and tell the story.
/// Bounds: `settings.limit` for sending, 20 s more for what is under way, `settings.settle` for coming to rest.
/// Whatever was taken away is given back, also when the sale is cancelled or fails.
public struct Sale: Sendable {
    /// Why a sale could not be held at all.
    public struct Failure: Error, CustomStringConvertible {
        /// What happened.
        public let description: String
    }

    private let settings: SaleSettings
    private let stack: StackScript?
    private let source: any AuditSource
    private let console: Console
    private let eventLoop: any EventLoop
    private let log = SaleLog()

    /// - Parameters:
    ///   - stack: takes servers away; needed only with disruptions.
    ///   - source: both databases and Redis.
    ///   - eventLoop: where the load runs.
    public init(settings: SaleSettings, stack: StackScript?, source: any AuditSource, console: Console, eventLoop: any EventLoop) {
        self.settings = settings
        self.stack = stack
        self.source = source
        self.console = console
        self.eventLoop = eventLoop
    }

    /// Holds the sale and audits it.
    /// - Throws: `Failure`, `PlanError` or what a store throws if the sale cannot be held or audited. Broken books are a result, not an error.
    public func run() async throws -> SaleResult {
        let gateway = try HTTPEndpoint(settings.gateway)
        let (product, units) = try await putOnSale(HTTPEndpoint(settings.productServer))
        try await look(at: product, through: gateway)
        try await waitUntilGated(product)

        let watch = try await BreakerWatch.make(url: settings.productAdmin, eventLoop: eventLoop, log: log)
        let load = try await Load.make(plan: plan(product: product, units: units), endpoint: gateway, eventLoop: eventLoop)
        console.line(opening(product: product, units: units))
        let reachedLimit = try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await watch.run() }
            group.addTask { try await probeRedis(product) }
            group.addTask { try await show(load) }
            defer { group.cancelAll() }
            return try await hold(load, units: units)
        }
        let end = try await load.peek()
        // One more look, so that what the breaker did last is in the story.
        let lastLook = try await BreakerWatch.make(url: settings.productAdmin, eventLoop: eventLoop, log: log)
        await lastLook.look(withEvents: true)
        tellTheEnd(end, units: units)
        for line in log.linesToTell(all: true) { console.story(line.rendered) }

        if settings.isAsync { try await Drain.untilSent(source, bound: settings.settle) }
        let hasSettled = try await Audit.settle(source, product: product, bound: settings.settle)
        if !hasSettled { console.story("          not at rest after \(settings.settle.inSeconds) s: audited as it is") }
        if let command = settings.beforeAudit {
            console.line("before the audit: \(command)")
            let output = try await StackScript.shell(command, environment: ["PRODUCT_ID": String(product)])
            if !output.isEmpty { console.line(output) }
        }
        var figures = end.figures
        var outbox: OutboxTotals?
        if settings.isAsync {
            let drain = try await Drain.read(source, product: product, accepted: figures.acceptedOrders)
            outbox = try await source.outbox(of: product)
            figures.learn(drain)
            console.story(drained(drain))
        }
        return SaleResult(
            product: product,
            load: figures,
            duration: end.elapsed,
            transitions: log.transitions,
            story: log.storyLines,
            hasSettled: hasSettled,
            audit: try await Audit.run(source, product: product, load: figures, outbox: outbox),
            reachedLimit: reachedLimit
        )
    }

    // MARK: Before the sale

    private func putOnSale(_ server: HTTPEndpoint) async throws -> (product: Int64, units: Int) {
        let caller = try await HTTPCaller.make(endpoint: server, eventLoop: eventLoop, timeout: .seconds(10))
        defer { caller.close() }
        let headers = settings.serviceToken.map { [("Authorization", "Bearer \($0)")] } ?? []
        let answer: HTTPAnswer
        do {
            if let product = settings.product {
                answer = try await caller.call(.GET, "/products/\(product)", headers: headers)
            } else {
                let product = "{\"name\":\"Flash sale\",\"price\":39000,\"stock\":\(settings.units),\"stockStrategy\":\"REDIS_FIRST\"}"
                answer = try await caller.call(.POST, "/products", json: product, headers: headers)
            }
        } catch {
            throw Failure(description: "the product server at \(settings.productServer): \(error). Are the servers up?")
        }
        struct Product: Decodable {
            var id: Int64
            var stock: Int
        }
        guard (200..<300).contains(answer.status),
            let product = try? JSONDecoder().decode(Product.self, from: Data(answer.body.readableBytesView))
        else {
            throw Failure(description: "the product cannot be put on sale: \(answer.status) \(String(buffer: answer.body).prefix(300))")
        }
        return (product.id, product.stock)
    }

    /// A sale whose buyers find nothing is none: the product must be there where they order.
    private func look(at product: Int64, through gateway: HTTPEndpoint) async throws {
        let caller = try await HTTPCaller.make(endpoint: gateway, eventLoop: eventLoop, timeout: .seconds(10))
        defer { caller.close() }
        do {
            let answer = try await caller.call(.GET, "/product-service/products/\(product)")
            guard answer.status != 200 else { return }
            throw Failure(description: "the gateway at \(settings.gateway) does not show the product: \(answer.status)")
        } catch let failure as HTTPFailure {
            throw Failure(description: "the gateway at \(settings.gateway): \(failure). Are the servers up?")
        }
    }

    private func waitUntilGated(_ product: Int64) async throws {
        let deadline = ContinuousClock.now + .seconds(15)
        while ContinuousClock.now < deadline {
            if let redis = await source.redisStock(of: product), redis.counter != nil, redis.fence != nil { return }
            try await Task.sleep(for: .milliseconds(50))
        }
        throw Failure(description: "Redis holds no counter of product \(product) after 15 s: it is not gated")
    }

    private func plan(product: Int64, units: Int) -> OrderPlan {
        var budget: UnitBudget?
        // An open loop keeps the rate it was given; there is nothing to budget for without an outage.
        if case .concurrency = settings.arrivals, !settings.isUnbudgeted, !settings.disruptions.isEmpty {
            budget = UnitBudget(units: units, disruptions: settings.disruptions)
        }
        return OrderPlan(
            product: product,
            quantity: settings.quantity,
            buyers: settings.buyers,
            orders: settings.orders,
            units: units,
            arrivals: settings.arrivals,
            timeout: settings.timeout,
            retry: RetryPolicy(limit: settings.retries),
            seed: settings.seed,
            // The time makes a run's keys its own, also with the same seed.
            run: "sale-\(product)-\(String(UInt64(Date.now.timeIntervalSince1970 * 1000), radix: 36))-\(settings.seed)",
            budget: budget,
            isAsync: settings.isAsync
        )
    }

    private func opening(product: Int64, units: Int) -> String {
        let pace =
            switch settings.arrivals {
            case .concurrency(let buyers): "\(buyers) at a time"
            case .rate(let rate, let inFlight):
                "\(rate.perSecond.grouped) a second (Poisson, seed \(settings.seed)), at most \(inFlight) in flight"
            }
        return "Flash sale of product \(product): \(units.grouped) units, at least \(settings.orders.grouped) orders "
            + "by \(settings.buyers.grouped) buyers, \(pace)\(settings.isAsync ? ", accepted first and decided over the broker" : "")"
    }

    /// What buyers are told at once.
    private var promise: String { settings.isAsync ? "accepted" : "confirmed" }

    private func drained(_ drain: Drain) -> String {
        "          the last accepted order was decided \(Self.decimal(drain.seconds)) s after the last was accepted: "
            + "\(drain.confirmed.grouped) confirmed, \(drain.soldOut.grouped) sold out, \(drain.failed.grouped) failed, \(drain.open.grouped) open"
    }

    // MARK: The sale

    /// Returns whether the sale was ended by its limit.
    private func hold(_ load: Load, units: Int) async throws -> Bool {
        let course = Course(disruptions: settings.disruptions)
        let limit = settings.limit
        let reachedLimit = LimitFlag()
        try await load.open()
        log.open()
        log.tell("sale opens", at: .zero)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                do {
                    try await withThrowingTaskGroup(of: Void.self) { disruptions in
                        for (index, disruption) in settings.disruptions.enumerated() {
                            disruptions.addTask { try await disrupt(disruption, index: index, course: course, load: load, units: units) }
                        }
                        try await disruptions.waitForAll()
                    }
                    try await load.allowFinish()
                } catch {
                    // A sale whose outage cannot be made shows nothing: it ends here.
                    try await load.abandon()
                    throw error
                }
            }
            group.addTask {
                try await Task.sleep(for: limit)
                reachedLimit.set()
                log.tell("the longest time for a sale, \(Self.decimal(limit.inSeconds)) s, is over: no more orders")
                try await load.stop()
                try await Task.sleep(for: .seconds(20))
                try await load.abandon()
            }
            try await withTaskCancellationHandler {
                try await load.finished()
            } onCancel: {
                Task { try await load.abandon() }
            }
            group.cancelAll()
            while let result = await group.nextResult() {
                if case .failure(let error) = result, !(error is CancellationError) { throw error }
            }
        }
        try Task.checkCancellation()
        return reachedLimit.isSet
    }

    private func disrupt(_ disruption: Disruption, index: Int, course: Course, load: Load, units: Int) async throws {
        guard let stack else { throw Failure(description: "taking servers away needs the stack script (--stack)") }
        let verbs = disruption.kind == .kill ? ("kill", "start") : ("pause", "resume")
        // Asked for now, so that the killing itself is not late.
        let pid = (try? await stack.run(["status", disruption.server])).flatMap { Self.pid(of: disruption.server, in: $0) }
        guard try await wait(for: disruption.start, load: load) else {
            log.tell("\(disruption.server) is not taken away: the sale was over before")
            return
        }
        try await course.begin(index, load: load)
        let before = try await load.peek()
        let beganAt = log.now
        let words = disruption.kind == .kill ? "killed" : "paused"
        do {
            try await stack.run([verbs.0, disruption.server])
            let sold = before.figures.confirmed * settings.quantity
            let number = pid.map { " (pid \($0))" } ?? ""
            log.tell("\(disruption.server)\(number) \(words), with \(Self.percent(sold, of: units)) of the units sold", at: beganAt)
            // Cancelled or not, the way back is taken.
            switch disruption.end {
            case .after(let length): try await Task.sleep(for: max(.zero, length - (log.now - beganAt)))
            case .at(let moment): _ = try await wait(for: moment, load: load)
            }
        } catch {
            await giveBack(disruption, verb: verbs.1, stack: stack)
            throw error
        }
        let after = try await load.peek()
        await giveBack(disruption, verb: verbs.1, stack: stack)
        let backAt = log.now
        let sold = after.figures.confirmed - before.figures.confirmed
        let seconds = (after.elapsed - before.elapsed).inSeconds
        var text = "\(disruption.server) is back; meanwhile \(sold.grouped) orders were \(promise) in \(Self.decimal(seconds)) s"
        if let pace = Self.ownPace(from: before.figures, to: after.figures) { text += ", at the machine's own pace \(pace.grouped)/s" }
        log.tell(text, at: backAt)
        try await course.giveBack(index, load: load)
        if disruption.server == "redis" { try await waitUntilClosed(since: backAt) }
        log.recovered()
        try await course.recover(index, load: load)
    }

    private func giveBack(_ disruption: Disruption, verb: String, stack: StackScript) async {
        do {
            try await stack.run([verb, disruption.server])
        } catch {
            log.tell("\(disruption.server) does not come back: \(error)")
        }
    }

    /// Waits for a moment of the sale; false if the sale is over and it cannot come any more.
    private func wait(for moment: Moment, load: Load) async throws -> Bool {
        while true {
            let progress = try await load.progress()
            if moment.isReached(elapsed: progress.elapsed, soldFraction: progress.sold) { return true }
            if log.now > settings.limit { return false }
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    /// Redis is back; the sale goes on until the breaker is CLOSED and has been for a moment. At most 30 s.
    private func waitUntilClosed(since: Duration) async throws {
        guard settings.productAdmin != nil else { return }
        var closedLooks = 0
        while log.now < since + .seconds(30) {
            try await Task.sleep(for: .milliseconds(250))
            closedLooks = log.breakerState == "CLOSED" ? closedLooks + 1 : 0
            // Four looks: a pause that the breaker has not felt yet would otherwise pass for recovered.
            if closedLooks >= 4 { return }
        }
        log.tell("the breaker is \(log.breakerState ?? "unknown") 30 s after Redis came back")
    }

    private func probeRedis(_ product: Int64) async throws {
        while !Task.isCancelled {
            log.redis(isAlive: await source.redisStock(of: product) != nil)
            try await Task.sleep(for: .milliseconds(300))
        }
    }

    // MARK: Telling

    private func show(_ load: Load) async throws {
        var last: LoadGenerator.Snapshot?
        let interval = console.isTerminal ? Duration.milliseconds(500) : .seconds(1)
        while !Task.isCancelled {
            try await Task.sleep(for: .milliseconds(100))
            for line in log.linesToTell(all: false) { console.story(line.rendered) }
            guard (last.map { log.now - $0.elapsed } ?? interval) >= interval else { continue }
            let now = try await load.snapshot()
            if let last { console.live(liveLine(now, since: last)) }
            last = now
        }
    }

    private func liveLine(_ now: LoadGenerator.Snapshot, since last: LoadGenerator.Snapshot) -> String {
        let seconds = max((now.elapsed - last.elapsed).inSeconds, 0.001)
        let rate = Int(Double(now.figures.orders - last.figures.orders) / seconds)
        let redis = log.redisIsAlive.map { $0 ? "up" : "down" } ?? "?"
        var line =
            "  \(Self.decimal(now.elapsed.inSeconds)) s  \(rate.grouped) orders/s  \(promise) \(now.figures.confirmed.grouped)"
            + "  sold out \(now.figures.soldOut.grouped)  errors \(now.figures.errors)  p99 \(Self.decimal(now.interval.milliseconds(at: 99))) ms"
            + "  breaker \(log.breakerState ?? "?")  redis \(redis)"
        if now.figures.shed > 0 { line += "  shed \(now.figures.shed.grouped)" }
        if case .perSecond(let rate) = now.limit { line += "  (held to \(Int(rate).grouped)/s)" }
        return line
    }

    private func tellTheEnd(_ end: LoadGenerator.Snapshot, units: Int) {
        let sold = end.figures.confirmed * settings.quantity
        if let last = end.figures.lastConfirmedAt {
            log.tell(
                settings.isAsync
                    ? "the last order is accepted"
                    : sold >= units ? "the last unit is sold" : "the last confirmed order; \(max(0, units - sold).grouped) units are left",
                at: last
            )
            if !settings.isAsync, let recovered = log.recoveredAt, last < recovered {
                let what = sold >= units ? "the last unit went" : "the last order was confirmed"
                log.tell("note: \(what) before the outage was over; nothing was sold after it", at: last)
            }
        }
        log.tell("sale closes", at: end.elapsed)
    }

    private static func ownPace(from before: LoadFigures, to after: LoadFigures) -> Int? {
        let time = zip(after.phases, before.phases).reduce(Duration.zero) { $0 + $1.0.ownPaceTime - $1.1.ownPaceTime }
        let orders = zip(after.phases, before.phases).reduce(0) { $0 + $1.0.ownPaceConfirmed - $1.1.ownPaceConfirmed }
        return time.inSeconds < 0.1 ? nil : Int(Double(orders) / time.inSeconds)
    }

    /// The third column of the status table.
    static func pid(of server: String, in table: String) -> Int? {
        for line in table.split(separator: "\n") {
            let columns = line.split(separator: " ")
            if columns.count > 2, columns[0] == server || columns[0] == "\(server)-1", let pid = Int(columns[2]) { return pid }
        }
        return nil
    }

    private static func percent(_ part: Int, of whole: Int) -> String {
        "\(part * 100 / max(whole, 1)) %"
    }

    static func decimal(_ value: Double) -> String {
        let tenths = Int((value * 10).rounded())
        return "\(tenths / 10).\(abs(tenths % 10))"
    }
}

/// Set once by the task that ends a sale at its limit.
private final class LimitFlag: Sendable {
    private let flag = Mutex(false)

    var isSet: Bool { flag.withLock { $0 } }

    func set() {
        flag.withLock { $0 = true }
    }
}

/// Which outages are under way, and so which stage and phase the sale is in.
private actor Course {
    private let count: Int
    private var begun: Set<Int> = []
    private var active: [Int: UnitBudget.Stage] = [:]

    init(disruptions: [Disruption]) {
        count = disruptions.count
    }

    func begin(_ index: Int, load: Load) async throws {
        begun.insert(index)
        active[index] = .down(index)
        try await enter(load)
    }

    func giveBack(_ index: Int, load: Load) async throws {
        active[index] = .recovering(index)
        try await enter(load)
    }

    func recover(_ index: Int, load: Load) async throws {
        active[index] = nil
        try await enter(load)
    }

    private func enter(_ load: Load) async throws {
        // The outage that began last decides.
        if let current = active.keys.max(), let stage = active[current] {
            try await load.enter(stage, phase: .outage)
        } else if let next = (0..<count).first(where: { !begun.contains($0) }) {
            try await load.enter(.approaching(next), phase: .after)
        } else {
            try await load.enter(.open, phase: .after)
        }
    }
}
