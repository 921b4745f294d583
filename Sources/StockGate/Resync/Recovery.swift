// What the breaker runs before it lets calls through again: every gated product is made safe, the hottest first.
//
// It passes as soon as every product is either installed, or sold directly and void in Redis: one that is locked or broken, and one for which the
//   first half of the time did not suffice. Those go on being installed in the background. A product for which Redis holds another ledger's data is never
//   sold through Redis.
// What was done is kept when an attempt fails, until one passes: no fence is raised twice for one outage, but where something was sold directly since.
// Bounds: the breaker's time limit, and `chunk` products a round; the breaker runs one recovery at a time.

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
    private let products: GatedProducts
    private let breaker: CircuitBreaker
    private let redis: RedisClient
    private let driver: ResyncDriver
    private let coordinator: ResyncCoordinator
    private let outage: Outage
    private let pruning: Pruning
    private let events: EventLog
    private let started = Latch<Void>()
    /// Sees whether the breaker uses the recovery that was done last.
    private let deciding = Mutex<Task<Void, Never>?>(nil)

    init(
        configuration: EngineConfiguration,
        products: GatedProducts,
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

    /// It is known which products are gated: recoveries may run. Returns when the first one has ended, and what it leaves is said.
    func start() async {
        started.open(())
        _ = await breaker.recoveryEnded()
        await deciding.withLock { $0 }?.value
    }

    /// Whether Redis answers within the time that a request gives it.
    func isRedisAnswering() async -> Bool { (try? await redis.send(RedisCommand("PING"))) != nil }

    /// Makes every product safe; waits for `start` first. The breaker's time limit bounds it all.
    func run() async throws {
        try await started.value()
        let began = ContinuousClock.now
        outage.recoveryBegan()
        do {
            try await redis.waitUntilConnected(timeout: configuration.backgroundTimeout)
            await pruning.makeRoom(within: min(.seconds(3), configuration.breaker.recoveryGateTimeLimit / 4))
            let left = try await installAll(until: began + configuration.breaker.recoveryGateTimeLimit / 2)
            try await void(left.map(\.product))
            try Task.checkCancellation()
            outage.recoveryDone()
            let took = ContinuousClock.now - began
            // Made before the breaker hears that the recovery is done, so that whoever waits for its end finds it.
            deciding.withLock { $0 = Task { await self.decide(left, took: took) } }
        } catch {
            outage.recoveryFailed()
            let why =
                switch error {
                case let error as RecoveryFailed: error.why
                case is CancellationError:
                    "it was not done within \(configuration.breaker.recoveryGateTimeLimit), or is not wanted any more"
                case let error as RedisError: "Redis cannot be reached: \(error)"
                default: String(describing: error).firstLine
                }
            events.say(why.withoutScript, of: .recovery, .recoveryFailed(why: why))
            throw RecoveryFailed(why: why)
        }
    }

    /// Sees whether the breaker uses the recovery; if its time was over as it ended, the next one goes on with what is done already.
    private func decide(_ left: [Left], took: Duration) async {
        // What cannot be told is taken for used: then nothing that was done counts for a next recovery, and what is left is tried again.
        let isUsed = await breaker.recoveryEnded() ? breaker.isLastRecoveryUsed ?? true : true
        guard let number = outage.decided(isUsed: isUsed), isUsed else { return }
        events.isOver(.recovery)
        events.isOver(.redis)
        for (product, failure) in left {
            if let failure { events.say(failure.news, of: .product(product.id), .leftDirect(product.id, why: failure.words)) }
        }
        let all = products.all
        events.tell(.recovered(products: all.count - left.count, direct: left.count, took: took))
        for (product, _) in left { coordinator.ask(product, forced: true) }
        // What was heard of since its install is behind now.
        for product in all where product.state.withLock({ !$0.standing.isDirect && $0.standing.need(in: number) != .nothing }) {
            coordinator.ask(product, forced: false)
        }
    }

    // MARK: Installing

    /// A product that the recovery passes without, and why; nil: there was no time.
    private typealias Left = (product: GatedProduct, failure: ResyncFailure?)

    /// A product that is owed an install, or a look.
    private typealias Owed = (product: GatedProduct, isForced: Bool, heat: UInt32)

    /// Installs what is owed, and returns what is left. `end`: no further product is begun then.
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
            // Redis restarted meanwhile: what was installed is gone, and all is owed again.
            if outage.number != number, ContinuousClock.now < end { continue }
            // Their rows may be free by now, or hot: a queue of group commits is waited for, somebody's open transaction is not for long.
            let wait = min(ResyncDriver.lockWait * 2, configuration.breaker.recoveryGateTimeLimit / 5)
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
        let results = await driver.resync(entries, lockWaitsUntil: lockWaitsUntil)
        var failed: [(Owed, ResyncFailure)] = []
        var ends: ResyncFailure?
        for one in owed {
            let result = results[one.product.id] ?? .untried
            coordinator.note(result, one.product, in: number, since: marks[one.product.id] ?? 0)
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
        let number = outage.number
        for chunk in (left.filter { !$0.state.withLock { $0.standing.isVoided(in: number) } }).chunks(ofCount: configuration.resyncChunk) {
            try Task.checkCancellation()
            let failures = await driver.void(chunk.map(\.id))
            for product in chunk where failures[product.id] == nil {
                product.state.withLock { $0.standing.voided(in: number) }
            }
            if let failure = failures.values.first { throw RecoveryFailed(why: failure.words) }
        }
    }
}
