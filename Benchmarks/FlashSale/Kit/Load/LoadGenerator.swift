import NIOCore

/// How orders are sent.
public enum Arrivals: Equatable, Sendable {
    /// Closed loop: that many buyers, each orders again as soon as it was answered.
    case concurrency(Int)
    /// Open loop: a Poisson process that does not wait for answers; latency counts from the intended moment, so a server
    /// that stalls cannot hide the buyers it kept waiting. At most `inFlight` orders are under way: an arrival beyond that is `shed` and counted.
    case rate(ArrivalRate, inFlight: Int)
}

/// The orders to send.
public struct OrderPlan: Sendable {
    /// The hot product.
    public var product: Int64
    /// Units an order asks for.
    public var quantity: Int
    /// Buyers that orders are spread over.
    public var buyers: Int
    /// Orders to send at least.
    public var orders: Int
    /// Units on sale: for the budget.
    public var units: Int
    /// Closed or open loop.
    public var arrivals: Arrivals
    /// For one attempt.
    public var timeout: Duration
    /// After an unclear answer.
    public var retry: RetryPolicy
    /// Chooses arrivals, buyers and jitter.
    public var seed: UInt64
    /// Makes this run's idempotency keys its own. Printable ASCII.
    public var run: String
    /// Slows a closed loop; nil never does.
    public var budget: UnitBudget?
    /// Whether orders are accepted first and decided later.
    public var isAsync = false
    /// Sent with every order.
    public var headers: [HeaderField] = []
    /// Where orders go; nil for the order server's own path behind the gateway.
    public var path: String?

    /// Where orders go.
    var orderPath: String { path ?? (isAsync ? "/order-service/v2/orders" : "/order-service/orders") }
}

/// Sends the orders of a sale.
///
/// Everything happens on one event loop, without locks. A *place* is a connection and the order it carries; an order
/// keeps its place through its repeats, so the places bound the orders in flight, and nothing else queues.
/// It stops sending when `plan.orders` were sent and `mayFinish` was said, or at `stop`. It is finished when, after that, no place is taken.
final class LoadGenerator {
    private struct Order {
        let key: String
        let buyer: Int
        let intended: NIODeadline
        let phase: SalePhase
        var attempt: Int
    }

    private let plan: OrderPlan
    private let endpoint: HTTPEndpoint
    private let eventLoop: any EventLoop
    private let connections: [HTTPConnection]
    private var orders: [Order?]
    private var idle: [Int]
    private var generator: SeededGenerator
    private let template: HTTPRequestTemplate
    private let allocator = ByteBufferAllocator()
    private var figures = LoadFigures()
    private var interval = Latencies()

    private var opened = NIODeadline.now()
    private var lastTick = NIODeadline.now()
    private var lastTokens = NIODeadline.now()
    private var nextArrival = NIODeadline.now()
    private var phase = SalePhase.before
    private var stage: UnitBudget.Stage
    private var stageBegan = NIODeadline.now()
    private var limit = UnitBudget.Limit.ownPace
    private var tokens = 0.0
    private var mayFinish = false
    private var isStopped = false
    /// When the last order ended: time stands still from here on.
    private var closed: NIODeadline?
    private var finished: EventLoopPromise<Void>

    init(plan: OrderPlan, endpoint: HTTPEndpoint, eventLoop: any EventLoop) {
        self.plan = plan
        self.endpoint = endpoint
        self.eventLoop = eventLoop
        let places =
            switch plan.arrivals {
            case .concurrency(let buyers): buyers
            case .rate(_, let inFlight): inFlight
            }
        let timeout = TimeAmount(plan.timeout)
        connections = (0..<places).map { _ in
            HTTPConnection(eventLoop: eventLoop, address: endpoint.address, tls: endpoint.tls, timeout: timeout)
        }
        orders = Array(repeating: nil, count: places)
        idle = Array((0..<places).reversed())
        generator = SeededGenerator(seed: plan.seed)
        template = HTTPRequestTemplate(method: "POST", path: plan.orderPath, endpoint: endpoint, fields: plan.headers, isJSON: true)
        stage = plan.budget == nil ? .open : .approaching(0)
        finished = eventLoop.makePromise(of: Void.self)
    }

    deinit {
        // A promise must not be dropped unanswered; answering it twice is harmless.
        finished.succeed(())
    }

    /// Succeeds when no more orders are sent and none is under way.
    var whenFinished: EventLoopFuture<Void> { finished.futureResult }

    /// Opens the sale.
    func open() {
        opened = .now()
        lastTick = opened
        stageBegan = opened
        nextArrival = opened
        armTick()
        if case .rate = plan.arrivals { arrive() } else { fill() }
    }

    /// Enters a stage of the story; the budget follows it.
    func enter(_ stage: UnitBudget.Stage, phase: SalePhase) {
        account()
        self.stage = plan.budget == nil ? .open : stage
        self.phase = phase
        stageBegan = .now()
        tokens = 0
        updateLimit()
    }

    /// Everything the sale must last for is over.
    func allowFinish() {
        mayFinish = true
        finishIfDone()
    }

    /// Sends no further order, whatever the plan says.
    func stop() {
        isStopped = true
        finishIfDone()
    }

    /// Gives up what is still under way: those orders count as errors.
    func abandon() {
        isStopped = true
        close()
        for connection in connections { connection.close() }
        for place in orders.indices {
            guard let order = orders[place] else { continue }
            end(order, at: place, as: .unknown("ABANDONED"))
        }
        finished.succeed(())
    }

    struct Snapshot: Sendable {
        var figures: LoadFigures
        var interval: Latencies
        var elapsed: Duration
        var inFlight: Int
        var limit: UnitBudget.Limit
    }

    /// The figures so far; the interval's latencies begin anew.
    func snapshot() -> Snapshot {
        defer { interval.reset() }
        return peek()
    }

    /// The figures so far.
    func peek() -> Snapshot {
        account()
        return Snapshot(figures: figures, interval: interval, elapsed: elapsed, inFlight: orders.count - idle.count, limit: limit)
    }

    /// The part of the units that buyers were confirmed, and the time since opening.
    var progress: (elapsed: Duration, sold: Double) {
        (elapsed, Double(figures.confirmed * plan.quantity) / Double(max(plan.units, 1)))
    }

    private var isClosed: Bool { closed != nil }
    private var now: NIODeadline { closed ?? .now() }
    private var elapsed: Duration { Duration(now - opened) }

    // MARK: When to send

    private var isSending: Bool { !isStopped && !(mayFinish && figures.sent >= plan.orders) }

    private func armTick() {
        eventLoop.assumeIsolated().scheduleTask(in: .milliseconds(5)) { [weak self] in self?.tick() }
    }

    private func tick() {
        guard closed == nil else { return }
        armTick()
        let before = lastTokens
        lastTokens = .now()
        account()
        updateLimit()
        if case .perSecond(let rate) = limit {
            let seconds = Double((lastTokens - before).nanoseconds) / 1e9
            // At most 20 ms of orders are saved up: a pause of the harness makes no burst.
            tokens = min(tokens + rate * seconds, max(1, rate * 0.02))
        }
        if case .concurrency = plan.arrivals { fill() }
    }

    private func updateLimit() {
        guard let budget = plan.budget else { return }
        limit = budget.limit(
            in: stage,
            sold: figures.confirmed * plan.quantity,
            elapsed: elapsed,
            sinceStage: Duration(.now() - stageBegan)
        )
    }

    /// Closed loop: gives idle places an order, as far as the budget allows.
    private func fill() {
        while isSending, let place = idle.last {
            if case .perSecond = limit {
                guard tokens >= 1 else { return }
                tokens -= 1
            }
            idle.removeLast()
            begin(at: place, intended: .now())
        }
    }

    /// Open loop: one arrival after another, each at its own moment.
    private func arrive() {
        guard case .rate(let rate, _) = plan.arrivals else { return }
        while isSending, nextArrival <= .now() {
            if let place = idle.popLast() {
                begin(at: place, intended: nextArrival)
            } else {
                figures.shed += 1
            }
            nextArrival = nextArrival + .nanoseconds(Int64(generator.interarrival(perSecond: rate.perSecond) * 1e9))
        }
        guard isSending else { return finishIfDone() }
        eventLoop.assumeIsolated().scheduleTask(deadline: nextArrival) { [weak self] in self?.arrive() }
    }

    // MARK: One order

    private func begin(at place: Int, intended: NIODeadline) {
        figures.sent += 1
        let order = Order(
            key: "\(plan.run)-\(figures.sent)",
            buyer: Int(generator.next() % UInt64(max(plan.buyers, 1))) + 1,
            intended: intended,
            phase: phase,
            attempt: 1
        )
        orders[place] = order
        send(order, at: place)
    }

    private func send(_ order: Order, at place: Int) {
        let body = "{\"productId\":\(plan.product),\"quantity\":\(plan.quantity),\"buyerId\":\"buyer-\(order.buyer)\"}"
        let request = template.request(key: order.key, attempt: order.attempt, body: body, allocator: allocator)
        connections[place].send(request) { [weak self] result in self?.answered(result, at: place) }
    }

    private func answered(_ result: Result<HTTPAnswer, HTTPFailure>, at place: Int) {
        guard var order = orders[place] else { return }
        let outcome: AttemptOutcome
        var retryAfter: Duration?
        switch result {
        case .success(let answer):
            outcome =
                plan.isAsync
                ? AttemptOutcome(acceptance: answer.status, body: answer.body.readableBytesView)
                : AttemptOutcome(status: answer.status, body: answer.body.readableBytesView)
            retryAfter = answer.retryAfter
        case .failure(let failure):
            outcome = AttemptOutcome(failure)
        }
        guard case .unknown(let cause) = outcome, !isClosed,
            let wait = plan.retry.wait(afterAttempt: order.attempt, retryAfter: retryAfter, using: &generator)
        else { return end(order, at: place, as: outcome) }
        figures.countRetry(cause)
        order.attempt += 1
        orders[place] = order
        eventLoop.assumeIsolated().scheduleTask(in: TimeAmount(wait)) { [weak self] in
            guard let self, let order = self.orders[place] else { return }
            self.send(order, at: place)
        }
    }

    private func end(_ order: Order, at place: Int, as outcome: AttemptOutcome) {
        let now = NIODeadline.now()
        let microseconds = (now - order.intended).nanoseconds / 1000
        figures.latencies.record(microseconds: microseconds)
        figures.phases[order.phase.rawValue].latencies.record(microseconds: microseconds)
        interval.record(microseconds: microseconds)
        // Counts belong to the phase in which the order ended, so that a phase's rate is what was answered in its time.
        let index = phase.rawValue
        switch outcome {
        case .confirmed(let id):
            figures.phases[index].confirmed += 1
            figures.confirmedOrders.append(id)
            figures.lastConfirmedAt = Duration(now - opened)
        case .accepted(let id):
            figures.phases[index].confirmed += 1
            figures.acceptedOrders.append(id)
            figures.acceptLatencies.record(microseconds: microseconds)
            figures.lastConfirmedAt = Duration(now - opened)
        case .soldOut, .soldOutOrder:
            if case .soldOutOrder(let id) = outcome { figures.refusedOrders.append(id) }
            figures.phases[index].soldOut += 1
            if figures.firstSoldOutAt == nil { figures.firstSoldOutAt = Duration(now - opened) }
        case .failed(let reason):
            figures.phases[index].failed += 1
            figures.countFailure(reason)
        case .unknown(let cause):
            figures.phases[index].errors += 1
            figures.countFailure(cause)
        }
        if case .ownPace = limit {
            figures.phases[index].ownPaceOrders += 1
            switch outcome {
            case .confirmed, .accepted: figures.phases[index].ownPaceConfirmed += 1
            case .soldOut, .soldOutOrder, .failed, .unknown: break
            }
        }
        orders[place] = nil
        idle.append(place)
        if case .concurrency = plan.arrivals { fill() }
        finishIfDone()
    }

    private func finishIfDone() {
        guard !isSending, idle.count == orders.count else { return }
        close()
        for connection in connections { connection.close() }
        finished.succeed(())
    }

    private func close() {
        guard closed == nil else { return }
        account()
        closed = lastTick
    }

    private func account() {
        let now = self.now
        let time = Duration(now - lastTick)
        lastTick = now
        figures.phases[phase.rawValue].time += time
        if case .ownPace = limit { figures.phases[phase.rawValue].ownPaceTime += time }
    }
}
