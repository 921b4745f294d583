import NIOCore

/// The generator as tasks see it: every call hops to its event loop.
struct Load: Sendable {
    private let eventLoop: any EventLoop
    private let generator: NIOLoopBound<LoadGenerator>
    private let whenFinished: EventLoopFuture<Void>

    static func make(plan: OrderPlan, endpoint: HTTPEndpoint, eventLoop: any EventLoop) async throws -> Load {
        try await eventLoop.submit {
            let generator = LoadGenerator(plan: plan, endpoint: endpoint, eventLoop: eventLoop)
            let bound = NIOLoopBound(generator, eventLoop: eventLoop)
            return Load(eventLoop: eventLoop, generator: bound, whenFinished: generator.whenFinished)
        }.get()
    }

    private init(eventLoop: any EventLoop, generator: NIOLoopBound<LoadGenerator>, whenFinished: EventLoopFuture<Void>) {
        self.eventLoop = eventLoop
        self.generator = generator
        self.whenFinished = whenFinished
    }

    private func call<Value: Sendable>(_ body: @escaping @Sendable (LoadGenerator) -> Value) async throws -> Value {
        let generator = self.generator
        return try await eventLoop.submit { body(generator.value) }.get()
    }

    func open() async throws { try await call { $0.open() } }
    func enter(_ stage: UnitBudget.Stage, phase: SalePhase) async throws { try await call { $0.enter(stage, phase: phase) } }
    func allowFinish() async throws { try await call { $0.allowFinish() } }
    func stop() async throws { try await call { $0.stop() } }
    func abandon() async throws { try await call { $0.abandon() } }
    func snapshot() async throws -> LoadGenerator.Snapshot { try await call { $0.snapshot() } }
    func peek() async throws -> LoadGenerator.Snapshot { try await call { $0.peek() } }
    func progress() async throws -> (elapsed: Duration, sold: Double) { try await call { $0.progress } }
    func finished() async throws { try await whenFinished.get() }
}
