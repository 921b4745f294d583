// The one public face of the engine: decrease, increase, adjust, resync, audit, start, run, shut down.
//
// Invariant: the five promises of the reservation protocol. What a request and a resync do is defined in `Protocol/`, and carried out in `Requests/` and
//   `Resync/`.
// Bounds: `maximumInFlight` requests; one `GatedProduct` for each gated product; one recovery, one sweep and one audit at a time.

public import NIOCore
public import PostgresClient
import RedisClient

/// The stock engine: a gate in Redis, a ledger in PostgreSQL, and a breaker between them.
public final class StockEngine: Sendable {
    /// How the engine is set.
    public let configuration: EngineConfiguration
    /// The ledger.
    public let ledger: PostgresLedger
    /// Counts of what the engine has done.
    public let metrics = EngineMetrics()

    private let group: any EventLoopGroup
    private let contexts: [ObjectIdentifier: RequestContext]
    let parts: EngineParts

    /// Makes an engine. Nothing is connected before `start`.
    public init(
        _ configuration: EngineConfiguration,
        eventLoopGroup: any EventLoopGroup,
        onEvent: @escaping @Sendable (EngineEvent) -> Void = { _ in }
    ) throws(PostgresError) {
        parts = try EngineParts(configuration, eventLoopGroup: eventLoopGroup, metrics: metrics, onEvent: onEvent)
        self.configuration = configuration
        ledger = parts.ledger
        group = eventLoopGroup
        contexts = parts.contexts
    }

    deinit {
        parts.shards.shutdown()
        parts.shards.forgetAll()
        parts.products.forgetAll()
    }

    // MARK: Life

    /// Reads which products are gated, and has the breaker's recovery install them. Returns when Redis serves them exactly, or when the breaker has opened
    /// because Redis cannot be reached; products are sold through the ledger alone then. In a cluster that is so for each master, and a cluster that does not say
    /// in time which masters it has is not waited for.
    public func start() async throws(PostgresError) {
        await ledger.connectLanes()
        _ = try await refreshProducts()
        parts.shards.begin()
        // A cluster whose map is found later has its recoveries then.
        if case .cluster(let cluster) = parts.redis { try? await cluster.waitForMap(until: .now + configuration.mapWait) }
        await withDiscardingTaskGroup { group in
            for shard in parts.shards.all { group.addTask { await shard.recovery.start() } }
        }
    }

    /// Works in the background until the task is cancelled: resyncs, the sweep, the audit, pruning, and the list of gated products.
    public func run() async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.parts.shards.run() }
            group.addTask {
                await Self.every(self.configuration.gatedRefresh) {
                    do throws(PostgresError) {
                        for id in try await self.refreshProducts() { self.ask(id, forced: false) }
                        self.parts.events.isOver(.gatedProducts)
                    } catch {
                        self.parts.events.say("\(error)", of: .gatedProducts, .trouble("gated products not read: \(error)"))
                    }
                }
            }
        }
    }

    /// Shuts everything down. Requests that are still in flight are told *no answer*; their callers learn the decision by sending the key again.
    public func shutdown() async {
        parts.inFlight.shutdown()
        parts.shards.shutdown()
        await ledger.shutdown()
        for shard in parts.shards.all { await shard.gates.flush() }
        switch parts.redis {
        case .one(let client): await client.shutdown()
        case .cluster(let cluster): await cluster.shutdown()
        }
    }

    /// Reads which products are gated, and returns those that were not known before.
    func refreshProducts() async throws(PostgresError) -> [ProductID] {
        let name = try await ledger.name()
        let isNews = parts.products.belong(to: name)
        // Gates of a master that was found meanwhile may have got the name before.
        if isNews || parts.isCluster { for shard in parts.shards.all { shard.gates.serve(ledger: name) } }
        return try await parts.products.refresh(from: ledger)
    }

    /// Does something, waits, and so on, until the task is cancelled.
    static func every(_ interval: Duration, _ body: () async -> Void) async {
        while !Task.isCancelled {
            do { try await Task.sleep(for: interval) } catch { return }
            await body()
        }
    }

    // MARK: Requests

    /// Decreases stock, on an event loop of the engine's group and without a task. `completion` is called once, on that loop.
    ///
    /// - Parameter isPatient: whether the request waits for the product's row, up to the ledger's `lockTimeout`. Otherwise it is told *lock timeout* once the
    ///   row has been locked for a tenth of a second. That is for callers whose other requests wait for this one's answer.
    public func decrease(
        _ request: DecreaseRequest,
        on eventLoop: any EventLoop,
        isPatient: Bool = true,
        completion: @escaping (DecreaseAnswer) -> Void
    ) {
        eventLoop.preconditionInEventLoop()
        // The event loop belongs to another group. This project's servers never pass such a loop.
        guard let context = contexts[ObjectIdentifier(eventLoop)] else { return completion(.unavailable(.overloaded)) }
        context.decrease(request, isPatient: isPatient, completion: completion)
    }

    /// Decreases stock, from any task.
    public func decrease(_ request: DecreaseRequest) async -> DecreaseAnswer {
        let loop = group.next()
        return await withCheckedContinuation { continuation in
            loop.execute { self.decrease(request, on: loop) { continuation.resume(returning: $0) } }
        }
    }

    /// Gives stock back, on an event loop of the engine's group. `completion` is called once, on that loop. `isPatient` as for a decrease.
    public func increase(
        _ request: IncreaseRequest,
        on eventLoop: any EventLoop,
        isPatient: Bool = true,
        completion: @escaping (IncreaseAnswer) -> Void
    ) {
        eventLoop.preconditionInEventLoop()
        guard let context = contexts[ObjectIdentifier(eventLoop)] else { return completion(.unavailable(.overloaded)) }
        context.increase(request, isPatient: isPatient, completion: completion)
    }

    /// Gives stock back, from any task.
    public func increase(_ request: IncreaseRequest) async -> IncreaseAnswer {
        let loop = group.next()
        return await withCheckedContinuation { continuation in
            loop.execute { self.increase(request, on: loop) { continuation.resume(returning: $0) } }
        }
    }

    /// Changes stock by hand, by a signed quantity.
    public func adjust(
        _ product: ProductID,
        key: String,
        by quantity: Int64,
        maximum: Int64
    ) async throws(PostgresError) -> (outcome: PostgresLedger.AdjustOutcome, remaining: Int64) {
        let (outcome, remaining, isGated) = try await ledger.adjust(product, key: key, by: quantity, maximum: maximum)
        // A duplicate asks too: its first sending raised the fence, and that server may have died before it asked.
        if isGated, outcome == .done || outcome == .duplicate {
            parts.products[product]?.forgetSoldOut()
            ask(product, forced: outcome == .duplicate)
        }
        return (outcome, remaining)
    }

    // MARK: Gated products

    /// Records that a product is gated now, or is not. The ledger's row says so already, and its fence was raised with that change.
    public func setGated(_ id: ProductID, _ isGated: Bool) { parts.products.set(id, isGated: isGated) }

    /// Asks for a resync of a product. It comes soon, one at a time. While the breaker is open none comes, because its recovery resyncs every product.
    public func ask(_ id: ProductID, forced: Bool) { parts.products.ask(id, forced: forced) }

    /// Resyncs one gated product now, for an operator.
    public func resync(_ id: ProductID) async -> Resync.Outcome {
        guard let shard = parts.products.shard(of: id) else { return .failed }
        return await shard.resyncs.resync(id, shard.driver)
    }

    /// The ledger's sums and what Redis holds, for one product. The result is nil if there is no such product; `gate` is nil if Redis cannot be reached.
    public func audit(_ id: ProductID) async throws(PostgresError) -> (ledger: LedgerTotals, gate: GateView?)? {
        guard let shard = parts.products.shard(of: id) else { return try await ledger.totals(of: id).map { ($0, nil) } }
        return try await shard.audit.product(id)
    }
}
