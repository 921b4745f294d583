// What the breaker runs before it lets calls through to Redis again: every gated product is made safe, the hottest first.
//
// A recovery passes as soon as every product is either installed in Redis, or sold directly and void in Redis. Sold directly are products that are locked or
// broken, and those for which the first half of the time was too short; they are installed in the background later. Products for which Redis holds another
// ledger's data are never sold through Redis. When an attempt fails, its work is kept for the next one, until one passes. So a fence is raised once for an
// outage, except where a product was sold directly since.
// Bounds: the breaker's time limit, and `chunk` products a round. The breaker runs one recovery at a time.

import Algorithms
import CircuitBreaker
import RedisClient
import Synchronization

/// Why a recovery failed, in words for the log.
struct RecoveryFailed: Error, CustomStringConvertible {
    let why: String
    var description: String { why }
}

final class Recovery: Sendable {
    private let configuration: EngineConfiguration
    private let products: ShardProducts
    private let breaker: CircuitBreaker
    private let redis: RedisClient
    private let driver: ResyncDriver
    private let coordinator: ResyncCoordinator
    private let outage: Outage
    private let pruning: Pruning
    private let events: EventLog
    private let started = Latch<Void>()
    /// The task that waits for the breaker's decision about the last recovery that passed.
    private let deciding = Mutex<Task<Void, Never>?>(nil)

    init(
        configuration: EngineConfiguration,
        products: ShardProducts,
        breaker: CircuitBreaker,
        redis: RedisClient,
        driver: ResyncDriver,
        coordinator: ResyncCoordinator,
        outage: Outage,
        pruning: Pruning,
        events: EventLog
    ) {
        self.configuration = configuration
        self.products = products
        self.breaker = breaker
        self.redis = redis
        self.driver = driver
        self.coordinator = coordinator
        self.outage = outage
        self.pruning = pruning
        self.events = events
    }

    /// Lets recoveries run, once it is known which products are gated.
    func begin() { started.open(()) }

    /// As `begin`. Returns when the first recovery has ended and its result has been reported.
    func start() async {
        begin()
        _ = await breaker.recoveryEnded()
        await deciding.withLock { $0 }?.value
    }

    /// Whether Redis answers within the time that a request gives it.
    func isRedisAnswering() async -> Bool { (try? await redis.send(RedisCommand("PING"))) != nil }

    /// Makes every product safe, after `start` was called. The breaker's time limit bounds the whole run.
    func run() async throws {
        try await started.value()
        let began = ContinuousClock.now
        outage.recoveryBegan()
        do {
            try await redis.waitUntilConnected(timeout: configuration.backgroundTimeout)
            await pruning.makeRoom(within: min(.seconds(3), configuration.breaker.recoveryTimeLimit / 4))
            let left = try await installAll(until: began + configuration.breaker.recoveryTimeLimit / 2)
            try await void(left.map(\.product))
            try Task.checkCancellation()
            outage.recoveryDone()
            let took = ContinuousClock.now - began
            // The task is made before the breaker hears that the recovery has passed, so that `start` finds it when the recovery has ended.
            deciding.withLock { $0 = Task { await self.decide(left, took: took) } }
        } catch {
            outage.recoveryFailed()
            let why =
                switch error {
                case let error as RecoveryFailed: error.why
                case is CancellationError:
                    "it was not done within \(configuration.breaker.recoveryTimeLimit), or is not wanted any more"
                case let error as RedisError: "Redis cannot be reached: \(error)"
                default: String(describing: error).firstLine
                }
            events.say(why.withoutScript, of: .recovery, .recoveryFailed(why: why))
            throw RecoveryFailed(why: why)
        }
    }

    /// Waits for the breaker's decision, and reports the result. If the breaker timed out as the recovery ended, the next recovery goes on from the work of
    /// this one.
    private func decide(_ left: [Left], took: Duration) async {
        // An unknown decision is treated as *used*: the next recovery repeats all work, and the products that are left are tried again.
        let isUsed = await breaker.recoveryEnded() ? breaker.isLastRecoveryUsed ?? true : true
        guard let number = outage.decided(isUsed: isUsed), isUsed else { return }
        events.isOver(.recovery)
        events.isOver(.redis)
        for (product, failure) in left {
            if let failure, failure.scope != .slot {
                events.say(failure.news, of: .product(product.id), .leftDirect(product.id, why: failure.words))
            }
        }
        let all = products.all
        events.tell(.recovered(products: all.count - left.count, direct: left.count, took: took))
        for (product, _) in left { coordinator.ask(product, forced: true) }
        // What this recovery left was asked for above: a second forced resync would raise its fence twice.
        let asked = Set(left.map(\.product.id))
        for product in all where !asked.contains(product.id) {
            let (standing, need) = product.state.withLock { ($0.standing, $0.standing.need(in: number)) }
            if standing.isMoved || (standing.isLeft && !standing.isSpoiled) {
                // The ledger moved after the install, or the product came from another shard after this recovery had begun with its products. It is sold
                // directly until the next install.
                coordinator.ask(product, forced: true)
            } else if !standing.isDirect, need != .nothing {
                // Somebody asked for a resync after the install, so Redis may be behind.
                coordinator.ask(product, forced: false)
            }
        }
    }

    // MARK: Installing

    /// A product that the recovery passes without, and why; nil: there was no time for it.
    private typealias Left = (product: GatedProduct, failure: ResyncFailure?)

    /// A product that must be installed, or at least looked at.
    private typealias Owed = (product: GatedProduct, isForced: Bool, heat: UInt32)

    /// Installs the products that need it, and returns those that are left. After `end` no further product is begun.
    private func installAll(until end: ContinuousClock.Instant) async throws -> [Left] {
        while true {
            let number = outage.number
            let owed = owed(in: number)
            var locked: [Owed] = []
            var left: [Left] = []
            var done = 0
            for chunk in owed.chunks(ofCount: configuration.resyncChunk) {
                guard ContinuousClock.now < end, outage.number == number else { break }
                done += chunk.count
                for (one, failure) in try await install(Array(chunk), in: number, lockWaitsUntil: nil) {
                    if failure.scope == .locked { locked.append(one) } else { left.append((one.product, failure)) }
                }
            }
            // Redis restarted meanwhile: everything that was installed is gone, and must be done again.
            if outage.number != number, ContinuousClock.now < end { continue }
            // These rows may be free by now. If a row is hot, waiting behind its queue of group commits is worthwhile; waiting for another open transaction is
            // not for long.
            let wait = min(ResyncDriver.lockWait * 2, configuration.breaker.recoveryTimeLimit / 5)
            if !locked.isEmpty {
                left += try await install(locked, in: number, lockWaitsUntil: .now + wait).map { ($0.product, $1) }
            }
            return left + owed.dropFirst(done).map { ($0.product, nil) }
        }
    }

    private func owed(in number: UInt64) -> [Owed] {
        let owed = products.all.compactMap { product -> Owed? in
            product.state.withLock { state in
                switch state.standing.need(in: number) {
                case .nothing: nil
                case .look: (product, false, state.heat)
                case .install: (product, true, state.heat)
                }
            }
        }
        return owed.sorted { ($1.heat, $0.product.id.rawValue) < ($0.heat, $1.product.id.rawValue) }
    }

    /// Installs one chunk. Returns the products that failed, each for a reason of its own.
    /// - Throws: `RecoveryFailed` if Redis or the ledger itself fails
    private func install(
        _ owed: [Owed],
        in number: UInt64,
        lockWaitsUntil: ContinuousClock.Instant?
    ) async throws -> [(Owed, ResyncFailure)] {
        try Task.checkCancellation()
        var marks: [ProductID: UInt64] = [:]
        let entries = owed.map { one in
            let standing = one.product.state.withLock { $0.standing }
            marks[one.product.id] = standing.mark
            return ResyncDriver.Entry(
                id: one.product.id,
                isForced: one.isForced,
                isMended: standing.isSpoiled,
                isLeaping: standing.isMoved
            )
        }
        let results = await driver.resync(entries, lockWaitsUntil: lockWaitsUntil)
        var failed: [(Owed, ResyncFailure)] = []
        var ends: ResyncFailure?
        for one in owed {
            let result = results[one.product.id] ?? .untried
            coordinator.note(result, one.product, in: number, since: marks[one.product.id] ?? 0)
            guard let failure = result.failure else { continue }
            switch failure.scope {
            case .redis, .ledger: ends = failure
            case .locked, .row, .keys, .slot: failed.append((one, failure))
            }
        }
        if let ends { throw RecoveryFailed(why: ends.words) }
        return failed
    }

    /// Has Redis stop serving these products to every server, because what it holds for them is from before the outage.
    private func void(_ all: [GatedProduct]) async throws {
        let left = all.filter { product in
            product.state.withLock { state in
                // The product went to another shard while this recovery ran, and that shard installs it.
                guard state.shard?.id == products.shard else { return false }
                state.standing.left()
                return true
            }
        }
        let number = outage.number
        for chunk in (left.filter { !$0.state.withLock { $0.standing.isVoided(in: number) } }).chunks(ofCount: configuration.resyncChunk) {
            try Task.checkCancellation()
            let failures = await driver.void(chunk.map(\.id))
            for product in chunk where failures[product.id] == nil {
                product.state.withLock { $0.standing.voided(in: number) }
            }
            // A node that does not serve the product's slot answers no reserve for it, so there is nothing to void. If it hands the slot's keys to another node, they are
            // of another dataset there, and the product is not loaded.
            if let failure = failures.values.first(where: { $0.scope != .slot }) { throw RecoveryFailed(why: failure.words) }
        }
    }
}
