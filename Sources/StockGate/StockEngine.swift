// The one public face of the engine: decrease, increase, adjust, resync, audit.
//
// Invariant: the five promises of the reservation protocol. What a request and a resync do stands in `Protocol/`.
// Bounds: `maximumInFlight` requests; per gated product one `GatedProduct`; one recovery, one sweep, one audit at a time.

import CircuitBreaker
import DequeModule
import NIOCore
import NIOPosix
import PostgresClient
import RedisClient
import Synchronization

/// The stock engine: a gate in Redis, a ledger in PostgreSQL, and a breaker between them.
public final class StockEngine: Sendable {
    /// How the engine is set.
    public let configuration: EngineConfiguration
    /// The breaker `redisStock` around every Redis call.
    public let breaker: CircuitBreaker
    /// The ledger.
    public let ledger: PostgresLedger
    /// The connections to Redis.
    public let redis: RedisClient
    /// What the engine has done.
    public let counters = EngineCounters()

    let times: EngineTimes
    private let group: any EventLoopGroup
    private let gates: [ObjectIdentifier: RedisGate]
    private let deadlines: [ObjectIdentifier: DeadlineQueue]
    private let products = Mutex<[ProductID: GatedProduct]>([:])
    private let bumps = Mutex<[ProductID: [@Sendable () -> Void]]>([:])
    private let foreign = Mutex(ForeignGates())
    private let pruning = Pruning()
    private let refusals = Mutex<String?>(nil)
    private let stopping = Atomic<Bool>(false)
    private let words = Mutex(EventWords())
    /// Names the outage that runs, or the next one: what a recovery has done counts for this one. Ends when a recovery passes, and when Redis holds another
    /// dataset.
    private let outage = Atomic<UInt64>(1)
    private let isRecovering = Atomic<Bool>(false)
    /// A recovery is done, and the breaker has not been seen to use it yet.
    private let isDeciding = Atomic<Bool>(false)
    private let dataset = Mutex<String?>(nil)
    private let onEvent: @Sendable (EngineEvent) -> Void
    private let resyncs: ResyncDriver
    private let reference: EngineReference

    /// Makes an engine; nothing is connected before `start`.
    public init(
        _ configuration: EngineConfiguration,
        eventLoopGroup: any EventLoopGroup,
        onEvent: @escaping @Sendable (EngineEvent) -> Void = { _ in }
    ) throws(PostgresError) {
        let self_ = EngineReference()
        let times = EngineTimes(configuration)
        let counters = self.counters
        self.configuration = configuration
        self.times = times
        self.group = eventLoopGroup
        self.onEvent = onEvent
        self.ledger = try PostgresLedger(configuration.ledger) { lane, trouble in
            onEvent(.laneChanged(lane, why: trouble.map { String(describing: $0) }))
        } onLockedProducts: { change in
            switch change {
            case .locked(let rows): onEvent(.productsLocked(rows.map { ProductID($0) }))
            case .freed(let row, let after): onEvent(.productUnlocked(ProductID(row), after: after))
            }
        }
        let breaker = CircuitBreaker(
            name: "redisStock",
            settings: configuration.breaker,
            startsBehindGate: true,
            recoveryGate: { try await self_.whenStarted().recover() },
            // Without it a Redis that is back stays half used until enough buyers have come, and in the night nobody comes.
            healthCheck: { await self_.engine?.isRedisAnswering() ?? false }
        )
        let redis = RedisClient(
            settings: configuration.redis,
            eventLoopGroup: eventLoopGroup,
            onConnect: { connection in
                Self.learn(connection, connected: { self_.engine?.connected($0) }, refused: { self_.engine?.refused($0) })
            },
            onDisconnect: { _, error in onEvent(.redisDisconnected(why: String(describing: error))) }
        )
        var gates: [ObjectIdentifier: RedisGate] = [:]
        var deadlines: [ObjectIdentifier: DeadlineQueue] = [:]
        for loop in eventLoopGroup.makeIterator() {
            gates[ObjectIdentifier(loop)] = RedisGate(
                eventLoop: loop,
                client: redis,
                breaker: breaker,
                times: times.gate,
                figures: counters,
                reports: GateReports(
                    trouble: { self_.engine?.redisFailed($0) },
                    spoiled: { self_.engine?.spoiled($0, $1) }
                )
            )
            deadlines[ObjectIdentifier(loop)] = DeadlineQueue(eventLoop: loop)
        }
        self.breaker = breaker
        self.redis = redis
        self.gates = gates
        self.deadlines = deadlines
        self.resyncs = ResyncDriver(ledger: ledger, gates: Array(gates.values), counters: counters, chunk: configuration.resyncChunk)
        self.reference = self_
        self_.engine = self
    }

    var isShutDown: Bool { stopping.load(ordering: .relaxed) }

    // MARK: Life

    /// Reads which products are gated and puts them behind the breaker's recovery gate. Returns when Redis serves them exactly, or when the breaker has
    /// opened because it cannot be reached: then the fallback serves.
    public func start() async throws(PostgresError) {
        await ledger.connectLanes()
        try await refreshLedgerName()
        try await refreshGatedProducts(asking: false)
        reference.open()
        let deadline = ContinuousClock.now + configuration.breaker.recoveryGateTimeLimit + .seconds(1)
        while breaker.snapshot().isRecoveryGateRunning, ContinuousClock.now < deadline {
            try? await Task.sleep(for: .milliseconds(5))
        }
    }

    /// What goes on in the background until the task is cancelled: the sweep, the audit, and the list of gated products.
    public func run() async {
        await withTaskGroup(of: Void.self) { group in
            group.addTask { await self.every(self.configuration.sweepInterval) { await self.sweep() } }
            group.addTask { await self.every(self.configuration.auditInterval) { await self.auditAll() } }
            group.addTask {
                await self.every(self.configuration.gatedRefresh) {
                    do {
                        try await self.refreshLedgerName()
                        try await self.refreshGatedProducts(asking: true)
                    } catch {
                        self.onEvent(.trouble("gated products not read: \(error)"))
                    }
                }
            }
            group.addTask { await self.every(self.configuration.pruneInterval) { await self.prune() } }
            group.addTask {
                await self.resyncs.run { !self.isRedisKept && !self.isRecovering.load(ordering: .acquiring) }
            }
        }
    }

    /// Ends everything. Requests that are still in flight are told *no answer*; their keys decide.
    public func shutDown() async {
        stopping.store(true, ordering: .relaxed)
        breaker.shutdown()
        await ledger.shutDown()
        await redis.close()
    }

    private func every(_ interval: Duration, _ body: () async -> Void) async {
        while !Task.isCancelled {
            do {
                try await Task.sleep(for: interval)
            } catch {
                return
            }
            await body()
        }
    }

    // MARK: Requests

    /// Decreases stock, on an event loop of the engine's group and without a task. `completion` is called once, on that loop.
    ///
    /// - Parameter isPatient: whether it waits for the product's row, up to the ledger's `lockTimeout`. Else it is told *lock timeout* as soon as the row has been locked for a
    ///   tenth of a second: for callers whose other requests wait for this one's answer.
    public func decrease(
        _ request: DecreaseRequest,
        on eventLoop: any EventLoop,
        isPatient: Bool = true,
        completion: @escaping (DecreaseAnswer) -> Void
    ) {
        eventLoop.preconditionInEventLoop()
        guard let gate = gates[ObjectIdentifier(eventLoop)], let queue = deadlines[ObjectIdentifier(eventLoop)] else {
            return completion(.unavailable(.overloaded))  // a loop of another group: never by this project's servers
        }
        var product = products.withLock { $0[request.product] }
        if let known = product {
            let (isDirect, counter) = entering(known, request)
            if isDirect { product = nil }
            if let counter {
                counters.soldOutFromMemory.add(1)
                // As where Redis itself says it: a counter below zero is Redis' fault, and none of the buyer's business.
                return completion(.insufficient(remaining: max(counter, 0)))
            }
        }
        guard enter() else { return completion(.unavailable(.overloaded)) }
        let run = DecreaseRun(
            engine: self,
            gate: gate,
            product: product,
            request: request,
            isPatient: isPatient,
            deadline: .now() + times.answerWithin,
            completion: completion
        )
        queue.append(run)
        run.begin()
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
        guard let gate = gates[ObjectIdentifier(eventLoop)], enter() else { return completion(.unavailable(.overloaded)) }
        IncreaseRun(engine: self, gate: gate, request: request, isPatient: isPatient, completion: completion)
            .begin(answerWithin: times.answerWithin)
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
        // The statement bumped, also for a duplicate whose first sender may have died before it asked.
        if isGated, outcome == .done || outcome == .duplicate {
            forgetSoldOut(product)
            ask(product, forced: outcome == .duplicate)
        }
        return (outcome, remaining)
    }

    private func enter() -> Bool {
        let before = counters.inFlight.wrappingAdd(1, ordering: .relaxed).oldValue
        if before < configuration.maximumInFlight, !isShutDown { return true }
        counters.inFlight.wrappingSubtract(1, ordering: .relaxed)
        counters.overloaded.add(1)
        return false
    }

    func finished() {
        counters.inFlight.wrappingSubtract(1, ordering: .relaxed)
    }

    // MARK: Sold out

    /// Whether the product is sold directly, and the counter if its memory of *sold out* rejects this request.
    private func entering(_ product: GatedProduct, _ request: DecreaseRequest) -> (isDirect: Bool, counter: Int64?) {
        let now = NIODeadline.now().uptimeNanoseconds
        return product.state.withLock { state in
            state.heat &+= 1
            if state.standing.isDirect { return (true, nil) }
            return (false, request.isRepeat ? nil : state.soldOut.rejects(request.quantity, at: now))
        }
    }

    func remember(_ product: GatedProduct, soldOutAt counter: Int64, generation: UInt64) {
        let until = NIODeadline.now().uptimeNanoseconds + times.soldOutMemory
        product.state.withLock { $0.soldOut.saw(counter: counter, generation: generation, until: until) }
    }

    func forgetSoldOut(_ id: ProductID) {
        guard let product = products.withLock({ $0[id] }) else { return }
        product.state.withLock { $0.soldOut.end() }
    }

    // MARK: Which products are gated

    /// The number of gated products that this server knows.
    public var gatedProductCount: Int { products.withLock { $0.count } }

    /// How many of them are sold through the ledger alone now, although the breaker lets calls through. Looks at each of them.
    public var directProductCount: Int {
        products.withLock { Array($0.values) }.count { $0.state.withLock { $0.standing.isDirect } }
    }

    /// A commit's reply says whether its product is gated: changes made through another server are learnt here first.
    func learned(_ id: ProductID, isGated: Bool, told: Fence) {
        guard told > 0 else { return }
        let isKnown = products.withLock { $0[id] != nil }
        if isGated == isKnown { return }
        setGated(id, isGated)
        if isGated { ask(id, forced: false) }
    }

    /// Takes note that a product is gated now, or is not. The ledger knows already, and its fence was raised with the change.
    public func setGated(_ id: ProductID, _ isGated: Bool) {
        products.withLock { products in
            if isGated {
                if products[id] == nil { products[id] = GatedProduct(id, resyncInterval: times.resyncInterval) }
            } else {
                products[id] = nil
            }
        }
        if !isGated { foreign.withLock { _ = $0.saw(id, nil) } }
    }

    private func refreshGatedProducts(asking: Bool) async throws(PostgresError) {
        var gated: Set<ProductID> = []
        var after: Int64 = 0
        // Pages of 10,000 until one is not full: the number of products bounds it.
        while true {
            let page = try await ledger.gatedProducts(after: after, limit: 10_000)
            gated.formUnion(page)
            guard page.count == 10_000, let last = page.last else { break }
            after = last.rawValue
        }
        let known = products.withLock { Set($0.keys) }
        for id in known.subtracting(gated) { setGated(id, false) }
        for id in gated.subtracting(known) {
            setGated(id, true)
            if asking { ask(id, forced: false) }
        }
    }

    // MARK: Whose data Redis holds

    /// The ledger's name, as Redis' data carries it; empty until `start`, and where the role may not ask.
    public var ledgerName: String { resyncs.ledgerName }

    /// Gated products that are sold without Redis, because it holds another ledger's data for them.
    public var foreignProductCount: Int { foreign.withLock { $0.products.count } }

    /// The database behind the address may be another one after a restore.
    private func refreshLedgerName() async throws(PostgresError) {
        let name = try await ledger.name()
        guard name != resyncs.ledgerName else { return }
        resyncs.serve(ledger: name)
    }

    /// Takes note of whose data a resync found; nil: this ledger's, or nobody's. One event tells of the first product of an owner, not one of each.
    private func noteOwner(_ theirs: String?, _ product: GatedProduct) {
        switch foreign.withLock({ $0.saw(product.id, theirs) }) {
        case .nothing: break
        case .found(let theirs): onEvent(.foreignLedger(product.id, theirs: theirs, ours: resyncs.ledgerName))
        case .gone: onEvent(.foreignLedgerGone)
        }
    }

    // MARK: Resync

    /// Asks for a resync of a product; it comes soon, one at a time. While the breaker is open nothing comes: its recovery gate resyncs all.
    public func ask(_ id: ProductID, forced: Bool) {
        guard let product = products.withLock({ $0[id] }) else { return }
        ask(product, forced: forced)
    }

    private var isRedisKept: Bool {
        switch breaker.state {
        case .open, .forcedOpen: true
        case .closed, .halfOpen, .disabled, .metricsOnly: false
        }
    }

    private func ask(_ product: GatedProduct, forced: Bool) {
        if isRedisKept || isShutDown || isRecovering.load(ordering: .acquiring) {
            // The recovery brings it, or goes on with it once it has passed.
            product.state.withLock { $0.standing.heard() }
            return endWaits(for: product, loaded: false)
        }
        let now = NIODeadline.now().uptimeNanoseconds
        let action = product.state.withLock { $0.standing.isHeld(at: now) ? nil : $0.schedule.asked(forced: forced, at: now) }
        if let action { follow(action, product) } else { endWaits(for: product, loaded: false) }
    }

    private func follow(_ action: ResyncSchedule.Action, _ product: GatedProduct) {
        switch action {
        case .none: break
        case .wait(let until):
            group.next().scheduleTask(deadline: .uptimeNanoseconds(until)) {
                let now = NIODeadline.now().uptimeNanoseconds
                self.follow(product.state.withLock { $0.schedule.timerFired(at: now) }, product)
            }
        case .run(let forced):
            let (mark, isDirect) = product.state.withLock { ($0.standing.mark, $0.standing.isDirect) }
            resyncs.enqueue(product, forced: forced, isPatient: isDirect) { result in
                self.ended(result, product, since: mark)
            }
        }
    }

    private func ended(_ result: ResyncResult, _ product: GatedProduct, since mark: UInt64) {
        note(result, product, in: nil, since: mark)
        endWaits(for: product, loaded: result.outcome.hasSucceeded && result.outcome.foreignLedger == nil)
        // A failure is tried again, unless the breaker's gate will do it anyway.
        let succeeded = result.outcome.hasSucceeded || isRedisKept || isShutDown
        let now = NIODeadline.now().uptimeNanoseconds
        follow(product.state.withLock { $0.schedule.ended(succeeded: succeeded, at: now) }, product)
    }

    /// Takes note of how a resync ended, and says it.
    private func note(_ result: ResyncResult, _ product: GatedProduct, in outage: UInt64?, since mark: UInt64) {
        guard result.outcome.hasSucceeded else {
            product.state.withLock { $0.soldOut.end() }
            guard let failure = result.failure, outage == nil else { return }
            switch failure.scope {
            case .redis: say(failure.news, of: .redis, .redisFailed(why: failure.words))
            case .ledger: say(failure.words, of: .recovery, .trouble("products not resynced: \(failure.words)"))
            case .locked, .row, .keys:
                // What is sold directly was named when it was left, and nothing is new unless the reason is.
                let isDirect = product.state.withLock { $0.standing.isDirect }
                let event: EngineEvent =
                    isDirect ? .leftDirect(product.id, why: failure.words) : .resyncFailed(product.id, why: failure.words)
                say(failure.news, of: isDirect ? .product(product.id) : .resync(product.id), event)
            }
            return
        }
        if case .installed(let ledger) = result.outcome {
            onEvent(.resynced(product.id, fence: ledger.fence, stock: ledger.stock))
        }
        let theirs = result.outcome.foreignLedger
        product.state.withLock { state in
            state.soldOut.end()
            if theirs == nil {
                _ = state.standing.installed(in: outage, since: mark)
            } else {
                state.standing.foundForeign(in: outage, since: mark)
            }
        }
        noteOwner(theirs, product)
        // The trouble that it was named for is over; through Redis it is not sold.
        guard theirs == nil else { return words.withLock { _ = $0.isOver(.resync(product.id)) } }
        let wasNamed = words.withLock { words in
            _ = words.isOver(.resync(product.id))
            return words.isOver(.product(product.id))
        }
        if wasNamed { onEvent(.gatedAgain(product.id)) }
    }

    private func say(_ text: String, of subject: EventWords.Subject, _ event: EngineEvent) {
        let now = NIODeadline.now().uptimeNanoseconds
        guard let untold = words.withLock({ $0.say(text, of: subject, at: now) }) else { return }
        if untold > 0 { onEvent(.untold(untold)) }
        onEvent(event)
    }

    /// Redis failed a call, in these words.
    private func redisFailed(_ failure: GateFailure) {
        say(failure.words.withoutScript, of: .redis, .redisFailed(why: failure.words))
    }

    /// A script failed over what Redis holds for one product: it is sold directly until its keys are made anew.
    private func spoiled(_ id: ProductID, _ failure: GateFailure) {
        guard let product = products.withLock({ $0[id] }) else { return }
        spoiled(product, failure)
    }

    private func spoiled(_ product: GatedProduct, _ failure: GateFailure) {
        let now = NIODeadline.now().uptimeNanoseconds
        guard let until = product.state.withLock({ $0.standing.spoiled(at: now) }) else { return }
        counters.spoiled.add(1)
        say(failure.words.withoutScript, of: .product(product.id), .leftDirect(product.id, why: failure.words))
        group.next().scheduleTask(deadline: .uptimeNanoseconds(until)) { self.ask(product, forced: true) }
    }

    func awaitResync(of product: GatedProduct, _ waiter: @escaping @Sendable (Bool) -> Void) {
        product.state.withLock { $0.waiters.append(waiter) }
        ask(product, forced: false)
    }

    private func endWaits(for product: GatedProduct, loaded: Bool) {
        let waiters = product.state.withLock { state in
            let waiters = state.waiters
            state.waiters = []
            return waiters
        }
        for waiter in waiters { waiter(loaded) }
    }

    /// Resyncs one product now, for an operator. Works for gated products alone.
    public func resync(_ id: ProductID) async -> Resync.Outcome {
        let product = products.withLock { $0[id] }
        let mark = product?.state.withLock { $0.standing.mark } ?? 0
        let isSpoiled = product?.state.withLock { $0.standing.isSpoiled } ?? false
        let entry = ResyncDriver.Entry(id: id, isForced: true, isMended: isSpoiled)
        let results = await resyncs.resync([entry], lockWaitsUntil: .now + ResyncDriver.lockWait)
        let result = results[id] ?? .untried
        if let product {
            note(result, product, in: nil, since: mark)
        } else if let failure = result.failure {
            say(failure.words, of: .resync(id), .resyncFailed(id, why: failure.words))
        }
        return result.outcome
    }

    /// Whether Redis answers within the time that a request gives it.
    private func isRedisAnswering() async -> Bool { (try? await redis.send(RedisCommand("PING"))) != nil }

    // MARK: Recovery

    /// The breaker's recovery gate: gated products, hottest first, each installed, found newer, or found to be another ledger's in Redis, which is never sold
    /// through Redis.
    ///
    /// It passes as soon as every product is either installed, or sold directly and void in Redis: one that is locked or broken, and one for which the
    /// first half of the time did not suffice. Those go on being installed in the background. What was done is kept when an attempt fails, until one
    /// passes: no fence is raised twice for one outage, but where something was sold directly since.
    private func recover() async throws {
        let began = ContinuousClock.now
        isRecovering.store(true, ordering: .releasing)
        // Nobody saw whether calls were let through since: what was done may be void.
        if isDeciding.exchange(false, ordering: .acquiringAndReleasing) { outage.wrappingAdd(1, ordering: .releasing) }
        do {
            try await redis.waitUntilConnected(timeout: configuration.backgroundTimeout)
            await makeRoom()
            let left = try await installAll(until: began + configuration.breaker.recoveryGateTimeLimit / 2)
            try await void(left.map(\.product))
            try Task.checkCancellation()
            isDeciding.store(true, ordering: .releasing)
            let took = ContinuousClock.now - began
            Task { await self.decide(left, took: took) }
        } catch {
            isRecovering.store(false, ordering: .releasing)
            let why =
                switch error {
                case let error as RecoveryFailed: error.why
                case is CancellationError:
                    "it was not done within \(configuration.breaker.recoveryGateTimeLimit), or is not wanted any more"
                case let error as RedisError: "Redis cannot be reached: \(error)"
                default: String(describing: error).firstLine
                }
            say(why.withoutScript, of: .recovery, .recoveryFailed(why: why))
            throw RecoveryFailed(why: why)
        }
    }

    /// Whether the breaker has used the recovery, or its time was over as it ended: then it goes on with what is done already.
    private func decide(_ left: [Left], took: Duration) async {
        // Ends at once: the breaker's time limit bounds its gate.
        while breaker.snapshot().isRecoveryGateRunning, !isShutDown { try? await Task.sleep(for: .milliseconds(2)) }
        let isUsed = breaker.recentEvents().reversed().lazy.compactMap { event -> Bool? in
            switch event.kind {
            case .recoveryGatePassed: true
            case .recoveryGateFailed: false
            default: nil
            }
        }.first
        guard isDeciding.exchange(false, ordering: .acquiringAndReleasing) else { return }
        let number = outage.load(ordering: .acquiring)
        if isUsed != false { outage.wrappingAdd(1, ordering: .releasing) }
        isRecovering.store(false, ordering: .releasing)
        if isUsed != false { passed(left, in: number, took: took) }
    }

    private typealias Left = (product: GatedProduct, failure: ResyncFailure?)

    /// Installs what is owed, and returns what is left. `end`: no further product is begun then.
    private func installAll(until end: ContinuousClock.Instant) async throws -> [Left] {
        while true {
            let number = outage.load(ordering: .acquiring)
            let owed = owed(in: number)
            var locked: [Owed] = []
            var left: [Left] = []
            var done = 0
            for chunk in Chunks(owed, of: configuration.resyncChunk) {
                guard ContinuousClock.now < end, outage.load(ordering: .acquiring) == number else { break }
                done += chunk.count
                for (one, failure) in try await install(Array(chunk), in: number, lockWaitsUntil: nil) {
                    if failure.scope == .locked { locked.append(one) } else { left.append((one.product, failure)) }
                }
            }
            // Redis restarted meanwhile: what was installed is gone, and all is owed again.
            if outage.load(ordering: .acquiring) != number, ContinuousClock.now < end { continue }
            // Their rows may be free by now, or hot: a queue of group commits is waited for, somebody's open transaction is not for long.
            let wait = min(ResyncDriver.lockWait * 2, configuration.breaker.recoveryGateTimeLimit / 5)
            if !locked.isEmpty {
                left += try await install(locked, in: number, lockWaitsUntil: .now + wait).map { ($0.product, $1) }
            }
            return left + owed.dropFirst(done).map { ($0.product, nil) }
        }
    }

    private typealias Owed = (product: GatedProduct, isForced: Bool, heat: UInt32)

    private func owed(in outage: UInt64) -> [Owed] {
        let all = products.withLock { Array($0.values) }
        let owed = all.compactMap { product -> Owed? in
            product.state.withLock { state in
                switch state.standing.need(in: outage) {
                case .nothing: nil
                case .look: (product, false, state.heat)
                case .install: (product, true, state.heat)
                }
            }
        }
        return owed.sorted { ($1.heat, $0.product.id.rawValue) < ($0.heat, $1.product.id.rawValue) }
    }

    /// Those that failed, each for a reason of its own.
    /// - Throws: `RecoveryFailed` if Redis or the ledger itself fails
    private func install(
        _ owed: [Owed],
        in number: UInt64,
        lockWaitsUntil: ContinuousClock.Instant?
    ) async throws -> [(Owed, ResyncFailure)] {
        try Task.checkCancellation()
        var marks: [ProductID: UInt64] = [:]
        let entries = owed.map { one in
            let (mark, isSpoiled) = one.product.state.withLock { ($0.standing.mark, $0.standing.isSpoiled) }
            marks[one.product.id] = mark
            return ResyncDriver.Entry(id: one.product.id, isForced: one.isForced, isMended: isSpoiled)
        }
        let results = await resyncs.resync(entries, lockWaitsUntil: lockWaitsUntil)
        var failed: [(Owed, ResyncFailure)] = []
        var ends: ResyncFailure?
        for one in owed {
            let result = results[one.product.id] ?? .untried
            note(result, one.product, in: number, since: marks[one.product.id] ?? 0)
            guard let failure = result.failure else { continue }
            switch failure.scope {
            case .redis, .ledger: ends = failure
            case .locked, .row, .keys: failed.append((one, failure))
            }
        }
        if let ends { throw RecoveryFailed(why: ends.words) }
        return failed
    }

    /// No server may sell these through what Redis holds for them: it is from before the outage.
    private func void(_ left: [GatedProduct]) async throws {
        for product in left { product.state.withLock { $0.standing.left() } }
        let number = outage.load(ordering: .acquiring)
        for chunk in Chunks(left.filter { !$0.state.withLock { $0.standing.isVoided(in: number) } }, of: configuration.resyncChunk) {
            try Task.checkCancellation()
            let failures = await resyncs.void(chunk.map(\.id))
            for product in chunk where failures[product.id] == nil {
                product.state.withLock { $0.standing.voided(in: number) }
            }
            if let failure = failures.values.first { throw RecoveryFailed(why: failure.words) }
        }
    }

    /// Says how it went, and goes on with what is left and with what was heard of meanwhile.
    private func passed(_ left: [Left], in number: UInt64, took: Duration) {
        words.withLock { words in
            _ = words.isOver(.recovery)
            _ = words.isOver(.redis)
        }
        for (product, failure) in left {
            if let failure { say(failure.news, of: .product(product.id), .leftDirect(product.id, why: failure.words)) }
        }
        let all = products.withLock { Array($0.values) }
        onEvent(.recovered(products: all.count - left.count, direct: left.count, took: took))
        for (product, _) in left { ask(product, forced: true) }
        // What was heard since an install is behind now.
        for product in all where product.state.withLock({ !$0.standing.isDirect && $0.standing.need(in: number) != .nothing }) {
            ask(product, forced: false)
        }
    }

    /// Raises a product's fence after an apply was lost; many that are lost together share one statement. Tried until it succeeds or the engine ends.
    func bump(_ id: ProductID, _ done: @escaping @Sendable () -> Void) {
        let isFirst = bumps.withLock { bumps in
            bumps[id, default: []].append(done)
            return bumps[id]?.count == 1
        }
        guard isFirst else { return }
        Task {
            var pause = Duration.milliseconds(10)
            while !isShutDown {
                await ledger.untilFree(id)
                // Those that come while the statement runs wait for the next one: theirs must be a bump after their loss.
                let waiting = bumps.withLock { $0[id] ?? [] }
                do throws(PostgresError) {
                    _ = try await ledger.bump([id])
                    let isDone = bumps.withLock { bumps in
                        bumps[id]?.removeFirst(waiting.count)
                        if bumps[id]?.isEmpty ?? true { bumps[id] = nil }
                        return bumps[id] == nil
                    }
                    for done in waiting { done() }
                    if isDone { return }
                    pause = .milliseconds(10)
                } catch {
                    if error.isLockTimeout { ledger.lockedProducts.found([id.rawValue]) }
                    onEvent(.trouble("fence of product \(id) not raised: \(error)"))
                    try? await Task.sleep(for: pause)
                    pause = min(pause * 2, .seconds(1))
                }
            }
        }
    }

    // MARK: Connections

    /// What every connection learns when it is made, and whether Redis knows and permits all that the scripts do.
    private static func learn(
        _ connection: RedisConnection,
        connected: @escaping @Sendable (String) -> Void,
        refused: @escaping @Sendable (GateRefusal) -> Void
    ) -> EventLoopFuture<any Sendable> {
        let deadline = NIODeadline.now() + .seconds(1)
        @Sendable func named(_ command: String, _ reply: EventLoopFuture<RedisValue>) -> EventLoopFuture<RedisValue> {
            reply.flatMapErrorThrowing { throw GateRefusal(command, $0) ?? $0 }
        }
        let loads = GateScript.allCases.map { named("SCRIPT LOAD", connection.send(.scriptLoad($0.source), deadline: deadline)) }
        let infos = ["server", "replication"].map { named("INFO", connection.send(.info($0), deadline: deadline)) }
        let learnt = EventLoopFuture.whenAllSucceed(loads + infos, on: connection.eventLoop).flatMap { replies in
            let scripts = replies.prefix(loads.count).map { $0.string ?? "" }
            let info = replies.dropFirst(loads.count).map { $0.string ?? "" }.joined(separator: "\n")
            let check = RedisCommand.evalSHA(scripts[GateScript.check.rawValue], keys: GateRefusal.keys)
            return named("EVALSHA", connection.send(check, deadline: deadline)).flatMapThrowing { reply -> any Sendable in
                let learnt = try GateConnectionInfo(scripts: scripts, info: info)
                if let refusal = GateRefusal(reply, info: info) { throw refusal }
                connected(learnt.dataset)
                return learnt
            }
        }
        return learnt.flatMapErrorThrowing { error in
            if let refusal = error as? GateRefusal { refused(refusal) }
            throw error
        }
    }

    /// Each connection is refused the same, again and again: told once.
    private func refused(_ refusal: GateRefusal) {
        let text = refusal.description
        let isNews = refusals.withLock { told in
            defer { told = text }
            return told != text
        }
        if isNews { onEvent(.redisRefuses(why: text)) }
    }

    /// Every new connection asks for a look at every gated product: what it finds may be another dataset. While a recovery runs, another dataset is all
    /// that matters: it installs each product anyway.
    private func connected(_ dataset: String) {
        refusals.withLock { $0 = nil }
        onEvent(.redisConnected(dataset: dataset))
        let isAnother = self.dataset.withLock { known in
            defer { known = dataset }
            return known != nil && known != dataset
        }
        if isAnother { outage.wrappingAdd(1, ordering: .releasing) }
        if isRedisKept || isRecovering.load(ordering: .acquiring) { return }
        let all = products.withLock { Array($0.values) }
        for product in all { ask(product, forced: false) }
    }

    // MARK: Sweep and audit

    private func sweep() async {
        let all = products.withLock { Array($0.values) }
        for product in all { product.state.withLock { $0.heat /= 2 } }
        guard !isRedisKept else { return }
        // What Redis holds of the others is void, or another ledger's.
        let swept = all.filter { !$0.state.withLock { $0.standing.isDirect } }
        for chunk in Chunks(swept, of: configuration.resyncChunk) {
            for (product, overdue) in await resyncs.overdue(Array(chunk), bound: times.pendingBound, spoiled: spoiled) where overdue > 0 {
                counters.swept.add(1)
                onEvent(.swept(product.id, overdue: overdue))
                ask(product, forced: true)
            }
        }
    }

    private func auditAll() async {
        guard !isRedisKept else { return }
        let all = products.withLock { Array($0.values) }
        // The data of another ledger may be gone by now. What was left is void, and is known to be.
        let audited = all.filter { !$0.state.withLock { $0.standing.isLeft } }
        for chunk in Chunks(audited, of: configuration.resyncChunk) {
            var suspects: [GatedProduct] = []
            for (product, suspicion) in await resyncs.quietLook(Array(chunk), spoiled: spoiled) {
                let wasForeign = product.state.withLock { state in
                    state.suspicion = suspicion
                    return state.standing.isForeign
                }
                let isForeign = suspicion?.isForeign ?? false
                // No difference to be counted. A resync takes note of the owner, and installs once the other's data is gone.
                if isForeign != wasForeign { ask(product, forced: false) }
                if suspicion != nil, !isForeign { suspects.append(product) }
            }
            guard !suspects.isEmpty else { continue }
            try? await Task.sleep(for: .seconds(1))
            for (product, suspicion) in await resyncs.quietLook(suspects, spoiled: spoiled) {
                guard let suspicion, !suspicion.isForeign, product.state.withLock({ $0.suspicion }) == suspicion else { continue }
                counters.auditFindings.add(1)
                onEvent(
                    .auditFound(
                        product.id,
                        stock: suspicion.stock,
                        counter: suspicion.counter,
                        fence: suspicion.fence,
                        redisFence: suspicion.redisFence
                    )
                )
                ask(product, forced: true)
            }
        }
    }

    // MARK: Pruning

    /// Marks that are older than their retention go: of gated products, and of those that were gated once and that Redis alone still knows.
    private func prune() async {
        guard !isRedisKept else { return }
        await prune(products.withLock { Array($0.keys) }, pause: .milliseconds(5)) { !Task.isCancelled }
        do {
            try await pruning.scan(redis) { [self] found in
                let unknown = products.withLock { known in found.filter { known[$0] == nil } }
                await prune(unknown, pause: .milliseconds(5)) { !Task.isCancelled }
            }
        } catch {
            if pruning.isNews(error) { onEvent(.trouble("products that are not gated any more are not pruned in Redis: \(error)")) }
        }
    }

    /// In small steps, so that no reserve waits for long, until nothing is left.
    private func prune(_ ids: [ProductID], pause: Duration, while goesOn: () -> Bool) async {
        var left = ids
        while !left.isEmpty, goesOn() {
            var more: [ProductID] = []
            for chunk in Chunks(left, of: configuration.resyncChunk) {
                let (rest, pruned) = await resyncs.prune(Array(chunk))
                counters.prunedMarks.add(UInt64(max(0, pruned)))
                more += rest
            }
            left = more
            if !left.isEmpty, pause > .zero { try? await Task.sleep(for: pause) }
        }
    }

    /// Before a recovery: a Redis that is out of memory permits nothing that an install needs, but it does permit pruning.
    private func makeRoom() async {
        guard await isOutOfMemory() else { return }
        let before = counters.prunedMarks.count
        let end = ContinuousClock.now + min(.seconds(3), configuration.breaker.recoveryGateTimeLimit / 4)
        await prune(products.withLock { Array($0.keys) }, pause: .zero) { ContinuousClock.now < end }
        try? await pruning.scan(redis, until: end) { [self] found in await prune(found, pause: .zero) { ContinuousClock.now < end } }
        onEvent(.trouble("Redis is out of memory; \(counters.prunedMarks.count &- before) marks past their retention were pruned"))
    }

    private func isOutOfMemory() async -> Bool {
        do {
            // Writes nothing: no product has this key, and only one that exists would be set.
            _ = try await redis.send(RedisCommand("SET", "sg:{0}:memory", "1", "XX"))
            return false
        } catch {
            return error.serverError?.kind == .outOfMemory
        }
    }

    /// The ledger's sums and what Redis holds, for one product; nil: no such product. Redis that cannot be reached is nil within.
    public func audit(_ id: ProductID) async throws(PostgresError) -> (ledger: LedgerTotals, gate: GateView?)? {
        guard let totals = try await ledger.totals(of: id) else { return nil }
        guard !isRedisKept else { return (totals, nil) }
        return (totals, await resyncs.look(id))
    }
}

/// The products for which Redis holds another ledger's data. Bounded by the gated products.
private struct ForeignGates: Sendable {
    /// What there is to tell.
    enum News: Sendable {
        case nothing
        case found(String)
        case gone
    }

    private(set) var products: Set<ProductID> = []
    private var told: String?

    mutating func saw(_ product: ProductID, _ theirs: String?) -> News {
        guard let theirs else {
            guard products.remove(product) != nil, products.isEmpty else { return .nothing }
            told = nil
            return .gone
        }
        products.insert(product)
        guard told != theirs else { return .nothing }
        told = theirs
        return .found(theirs)
    }
}

struct RecoveryFailed: Error, CustomStringConvertible {
    let why: String
    var description: String { why }
}

/// The engine's durations, in the units of their users.
struct EngineTimes: Sendable {
    let gate: GateTimes
    let answerWithin: TimeAmount
    let resyncWait: TimeAmount
    let pendingBound: TimeAmount
    let soldOutMemory: UInt64
    let resyncInterval: UInt64

    init(_ configuration: EngineConfiguration) {
        self.gate = GateTimes(
            command: TimeAmount(configuration.redis.commandTimeout),
            background: TimeAmount(configuration.backgroundTimeout),
            markRetention: TimeAmount(configuration.markRetention).nanoseconds / 1_000_000
        )
        self.answerWithin = TimeAmount(configuration.answerWithin)
        self.resyncWait = TimeAmount(configuration.resyncWait)
        self.pendingBound = TimeAmount(configuration.pendingBound)
        self.soldOutMemory = UInt64(max(0, TimeAmount(configuration.soldOutMemory).nanoseconds))
        self.resyncInterval = UInt64(max(0, TimeAmount(configuration.resyncInterval).nanoseconds))
    }
}

/// Lets closures that are made before the engine reach it.
private final class EngineReference: Sendable {
    private struct State: Sendable {
        weak var engine: StockEngine?
        var isStarted = false
    }

    private let state = Mutex(State())

    var engine: StockEngine? {
        get { state.withLock { $0.engine } }
        set { state.withLock { $0.engine = newValue } }
    }

    func open() { state.withLock { $0.isStarted = true } }

    /// The engine, once it knows which products are gated. The breaker's time limit on its recovery gate bounds the wait.
    func whenStarted() async throws -> StockEngine {
        while true {
            let engine = state.withLock { $0.isStarted ? $0.engine : nil }
            if let engine { return engine }
            try await Task.sleep(for: .milliseconds(5))
        }
    }
}

/// The requests of one loop in the order of their deadlines, which is the order they came in: all have the same time.
///
/// One timer looks at the head every 20 ms while anything waits; a timer a request would cost more than the request.
// @unchecked Sendable: used on `eventLoop` alone.
private final class DeadlineQueue: @unchecked Sendable {
    private let eventLoop: any EventLoop
    private var runs: Deque<DecreaseRun> = []
    private var isTicking = false

    init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    func append(_ run: DecreaseRun) {
        runs.append(run)
        guard !isTicking else { return }
        isTicking = true
        schedule()
    }

    private func schedule() {
        eventLoop.scheduleTask(in: .milliseconds(20)) { self.tick() }
    }

    private func tick() {
        let now = NIODeadline.now()
        while let first = runs.first, first.isAnswered || first.deadline <= now {
            first.hitDeadline()
            runs.removeFirst()
        }
        if runs.isEmpty { isTicking = false } else { schedule() }
    }
}
