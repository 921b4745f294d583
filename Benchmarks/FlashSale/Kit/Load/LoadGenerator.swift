import DequeModule
import NIOCore
import SeededRandom

/// Sends the orders of a sale, or one thread's part of them.
///
/// Everything happens on one event loop, without locks. A *place* is a connection and the order it carries; an order
/// keeps its place through its repeats, so the places bound the orders in flight. Arrivals of an open loop wait for a place at most as long as the plan's deadline allows,
/// at most `waitingLimit` of them; nothing else queues.
/// It stops sending when the plan's orders were sent or its time is over, and `mayFinish` was said, or at `stop`. It is finished when, after that, no place is taken.
final class LoadGenerator {
    struct Order {
        /// See `ToldAnswers`.
        let number: UInt64
        let key: String
        let buyer: Int
        /// The product's place among the plan's products.
        let product: Int
        let quantity: Int
        var intended: NIODeadline
        let phase: SalePhase
        var attempt: Int
        var step = Step.order
        /// Sent again under the same key when it has ended: nobody was free to send it at the same time.
        var mustRepeat = false
        /// Sent twice at the same time; this one counts.
        var isDoubled = false
        /// The second of the two: it counts for nothing, but its answer must be the first's.
        var isTwin = false
    }

    enum Step: Equatable {
        case view(left: Int)
        case order
        case cancel(Int64)
    }

    /// Arrivals that wait for a place.
    static let waitingLimit = 1_000_000
    /// How often a generator looks at its budget, its deadlines and itself.
    static let tick = TimeAmount.milliseconds(5)

    let plan: OrderPlan
    let shared: SharedLoad
    let eventLoop: any EventLoop
    /// The generator's place among `count`.
    let index: Int
    let count: Int
    let connections: [HTTPConnection]
    let template: HTTPRequestTemplate
    /// The requests for a look, by the product's place.
    let views: [HTTPRequestTemplate]
    let cancelHead: String
    let choice: ProductChoice
    /// The first answers to orders that are sent twice; as many as are in flight.
    var pairs: [UInt64: AttemptOutcome] = [:]
    let allocator = ByteBufferAllocator()
    let deadline: TimeAmount?
    var orders: [Order?]
    var idle: [Int]
    var generator: SplitMix64
    var figures = LoadFigures()
    var interval = IntervalFigures()

    var opened = NIODeadline.now()
    var lastTick = NIODeadline.now()
    var lastTokens = NIODeadline.now()
    var arrivals: ArrivalSequence?
    /// The next arrival; nil when the schedule is over.
    var nextArrival: NIODeadline?
    var waiting: Deque<NIODeadline> = []
    var phase = SalePhase.before
    var stage: UnitBudget.Stage
    var stageBegan = NIODeadline.now()
    var limit = UnitBudget.Limit.ownPace
    var tokens = 0.0
    var mayFinish = false
    var isStopped = false
    /// When the last order ended: time stands still from here on.
    var closed: NIODeadline?
    var watch = ThreadWatch()
    private let finished: EventLoopPromise<Void>

    init(plan: OrderPlan, endpoints: [HTTPEndpoint], eventLoop: any EventLoop, shared: SharedLoad, index: Int, of count: Int) {
        precondition(!endpoints.isEmpty && (0..<count).contains(index), "a generator needs a gateway and a number")
        self.plan = plan
        self.shared = shared
        self.eventLoop = eventLoop
        self.index = index
        self.count = count
        // The first ones take what does not divide evenly.
        let places = max(1, plan.arrivals.places / count + (index < plan.arrivals.places % count ? 1 : 0))
        let timeout = TimeAmount(plan.timeout)
        connections = (0..<places).map { place in
            let endpoint = endpoints[place % endpoints.count]
            return HTTPConnection(eventLoop: eventLoop, address: endpoint.address, tls: endpoint.tls, timeout: timeout)
        }
        orders = Array(repeating: nil, count: places)
        idle = Array((0..<places).reversed())
        generator = SplitMix64(seed: plan.seed &+ UInt64(index) &* 0x9E37_79B9)
        template = HTTPRequestTemplate(method: "POST", path: plan.orderPath, endpoint: endpoints[0], fields: plan.headers, isJSON: true)
        views =
            plan.habits.views == 0
            ? []
            : plan.products.map {
                HTTPRequestTemplate(
                    method: "GET",
                    path: "\(plan.productPath)/\($0)",
                    endpoint: endpoints[0],
                    fields: plan.headers,
                    isJSON: false
                )
            }
        cancelHead =
            "POST \(endpoints[0].prefix)\(plan.orderPath)/{id}/cancel HTTP/1.1\r\nHost: \(endpoints[0].authority)\r\n"
            + plan.headers.map { "\($0.name): \($0.value)\r\n" }.joined() + "Content-Length: 0\r\n\r\n"
        choice = ProductChoice(plan.spread, count: plan.products.count)
        deadline = plan.deadline.map { TimeAmount($0) }
        stage = plan.budget == nil ? .open : .approaching(0)
        if let open = plan.arrivals.open { arrivals = ArrivalSequence(open.schedule, process: open.process, index: index, of: count) }
        figures.told.run = plan.run
        figures.fairness = Fairness(products: plan.products.count)
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
        lastTokens = opened
        stageBegan = opened
        figures.health.threads = 1
        watch.begin(at: opened)
        armTick()
        if arrivals == nil {
            fill()
        } else {
            scheduleArrival()
            arrive()
        }
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

    /// Lets the generator finish: everything that the sale must last for is over.
    func allowFinish() {
        mayFinish = true
        finishIfDone()
    }

    /// Sends no further order, whatever the plan says.
    func stop() {
        isStopped = true
        shedWaiting()
        finishIfDone()
    }

    /// Gives up what is still under way: those orders count as errors.
    func abandon() {
        stop()
        close()
        for connection in connections { connection.close() }
        for place in orders.indices {
            guard let order = orders[place] else { continue }
            if case .cancel = order.step {
                figures.cancellationsFailed += 1
                leave(place)
            } else {
                end(order, at: place, as: .unknown("ABANDONED"))
            }
        }
        finished.succeed(())
    }

    struct Snapshot: Sendable {
        var figures: LoadFigures
        var elapsed: Duration
        var limit: UnitBudget.Limit
    }

    /// The figures so far, whole: a copy of everything that was recorded.
    func peek() -> Snapshot {
        account()
        figures.health.seconds = elapsed.inSeconds
        return Snapshot(figures: figures, elapsed: elapsed, limit: limit)
    }

    struct Look: Sendable {
        var interval: IntervalFigures
        var totals: LoadTotals
        var elapsed: Duration
        var limit: UnitBudget.Limit
    }

    /// What happened since the last look; the interval begins anew.
    func look() -> Look {
        defer { interval = IntervalFigures() }
        var totals = LoadTotals()
        totals.sent = figures.sent
        totals.outcomes = [figures.confirmed, figures.soldOut, figures.failed, figures.errors]
        totals.units = figures.unitsConfirmed
        totals.shed = figures.shed
        totals.stale = figures.stale
        totals.inFlight = orders.count - idle.count
        totals.waiting = waiting.count
        return Look(interval: interval, totals: totals, elapsed: elapsed, limit: limit)
    }

    var isClosed: Bool { closed != nil }
    var now: NIODeadline { closed ?? .now() }
    var elapsed: Duration { Duration(now - opened) }

    /// Whether further orders are to be begun.
    var isSending: Bool {
        guard !isStopped else { return false }
        guard mayFinish else { return true }
        if shared.ordersIssued >= plan.orders { return false }
        if let lasts = plan.lasts, elapsed >= lasts { return false }
        return arrivals == nil || nextArrival != nil
    }

    func finishIfDone() {
        guard !isSending, waiting.isEmpty, idle.count == orders.count else { return }
        close()
        for connection in connections { connection.close() }
        finished.succeed(())
    }

    private func close() {
        guard closed == nil else { return }
        account()
        watch.end(&figures.health)
        closed = lastTick
    }

    // MARK: Time

    private func armTick() {
        let due = NIODeadline.now() + Self.tick
        eventLoop.assumeIsolated().scheduleTask(deadline: due) { [weak self] in self?.tick(due: due) }
    }

    private func tick(due: NIODeadline) {
        guard closed == nil else { return }
        armTick()
        let before = lastTokens
        lastTokens = .now()
        interval.cpuSeconds += watch.look(at: lastTokens, due: due, &figures.health)
        account()
        updateLimit()
        if case .perSecond(let rate) = limit {
            let seconds = Double((lastTokens - before).nanoseconds) / 1e9
            // At most 20 ms of orders are saved up: a pause of the harness makes no burst.
            tokens = min(tokens + rate * seconds, max(1, rate * 0.02))
        }
        if arrivals == nil {
            fill()
        } else {
            dropStale()
            if nextArrival == nil {
                scheduleArrival()
                arrive()
            }
        }
        finishIfDone()
    }

    private func updateLimit() {
        guard let budget = plan.budget else { return }
        limit = budget.limit(in: stage, sold: shared.unitsSold, elapsed: elapsed, sinceStage: Duration(.now() - stageBegan))
        // Each generator sends its part.
        if case .perSecond(let rate) = limit { limit = .perSecond(rate / Double(count)) }
    }

    private func account() {
        let now = self.now
        let time = Duration(now - lastTick)
        lastTick = now
        figures.phases[phase.rawValue].time += time
        if case .ownPace = limit { figures.phases[phase.rawValue].ownPaceTime += time }
    }
}
