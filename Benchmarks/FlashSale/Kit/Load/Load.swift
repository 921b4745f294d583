import NIOCore

/// The generators of a sale as tasks see them: every call hops to each one's event loop.
struct Load: Sendable {
    private struct Part: Sendable {
        let eventLoop: any EventLoop
        let generator: NIOLoopBound<LoadGenerator>
        let whenFinished: EventLoopFuture<Void>

        func call<Value: Sendable>(_ body: @escaping @Sendable (LoadGenerator) -> Value) async throws -> Value {
            let generator = self.generator
            return try await eventLoop.submit { body(generator.value) }.get()
        }
    }

    private let parts: [Part]
    let shared: SharedLoad
    private let units: Int

    /// One generator on one event loop.
    static func make(plan: OrderPlan, endpoint: HTTPEndpoint, eventLoop: any EventLoop) async throws -> Load {
        try await make(plan: plan, endpoints: [endpoint], eventLoops: [eventLoop])
    }

    /// A generator on each event loop, its places spread over the endpoints. More event loops than places are not used.
    static func make(plan: OrderPlan, endpoints: [HTTPEndpoint], eventLoops: [any EventLoop]) async throws -> Load {
        let shared = SharedLoad()
        let used = Array(eventLoops.prefix(max(1, plan.arrivals.places)))
        var parts: [Part] = []
        for (index, eventLoop) in used.enumerated() {
            let part = try await eventLoop.submit {
                let generator = LoadGenerator(
                    plan: plan,
                    endpoints: endpoints,
                    eventLoop: eventLoop,
                    shared: shared,
                    index: index,
                    of: used.count
                )
                return Part(
                    eventLoop: eventLoop,
                    generator: NIOLoopBound(generator, eventLoop: eventLoop),
                    whenFinished: generator.whenFinished
                )
            }.get()
            parts.append(part)
        }
        return Load(parts: parts, shared: shared, units: max(plan.units, 1))
    }

    private func each(_ body: @escaping @Sendable (LoadGenerator) -> Void) async throws {
        for part in parts { try await part.call(body) }
    }

    func open() async throws { try await each { $0.open() } }
    func enter(_ stage: UnitBudget.Stage, phase: SalePhase) async throws { try await each { $0.enter(stage, phase: phase) } }
    func allowFinish() async throws { try await each { $0.allowFinish() } }
    func stop() async throws { try await each { $0.stop() } }
    func abandon() async throws { try await each { $0.abandon() } }

    /// Everything that was recorded so far.
    func peek() async throws -> LoadGenerator.Snapshot {
        var whole = try await parts[0].call { $0.peek() }
        for part in parts.dropFirst() {
            let more = try await part.call { $0.peek() }
            whole.figures.add(more.figures)
            whole.elapsed = max(whole.elapsed, more.elapsed)
        }
        if case .perSecond(let rate) = whole.limit { whole.limit = .perSecond(rate * Double(parts.count)) }
        return whole
    }

    /// What happened since the last look.
    func look() async throws -> LoadGenerator.Look {
        var whole = try await parts[0].call { $0.look() }
        for part in parts.dropFirst() {
            let more = try await part.call { $0.look() }
            whole.interval.add(more.interval)
            whole.totals.add(more.totals)
            whole.elapsed = max(whole.elapsed, more.elapsed)
        }
        if case .perSecond(let rate) = whole.limit { whole.limit = .perSecond(rate * Double(parts.count)) }
        return whole
    }

    /// Units sold so far, as a part of those on sale.
    var soldFraction: Double { Double(shared.unitsSold) / Double(units) }

    func finished() async throws {
        for part in parts { try await part.whenFinished.get() }
    }
}
