// Removes from Redis the settled marks that are older than their retention. It works in small steps, so that a reserve never waits for long. Products that were
// gated once and are known to Redis alone are pruned too: a scan finds them by the names of their marks. A product rests until its oldest mark can be beyond
// its retention, but for `longestRest` at most: what Redis holds may change in other ways, too.
//
// Bounds: one call of pruning takes at most `RedisGate.maximumPruned` marks of its products. One scan has at most `maximumSteps` steps of SCAN, each over about
//   `stepSize` of the server's keys, whoever owns them.
// Stop of a scan: the cursor is back at the beginning, the steps are used up, or the time is over. The next scan goes on where this one stopped.

import Algorithms
import CircuitBreaker
import NIOCore
import RedisClient
import Synchronization

final class Pruning: Sendable {
    static let maximumSteps = 200
    static let stepSize: Int64 = 1000

    private struct State: Sendable {
        var cursor = "0"
        var told: String?
    }

    private let products: ShardProducts
    private let gates: RedisGates
    private let redis: RedisClient
    private let tag: @Sendable () -> String
    private let breaker: CircuitBreaker
    private let events: EventLog
    private let metrics: EngineMetrics
    private let chunk: Int
    private let longestRest: TimeAmount
    private let state = Mutex(State())

    /// - Parameters:
    ///   - tag: a hash tag that no product has, of a slot that the server serves.
    ///   - chunk: products in one round at most.
    ///   - longestRest: how long a product that has nothing to prune is left alone at most.
    init(
        products: ShardProducts,
        gates: RedisGates,
        redis: RedisClient,
        tag: @escaping @Sendable () -> String,
        breaker: CircuitBreaker,
        events: EventLog,
        metrics: EngineMetrics,
        chunk: Int,
        longestRest: TimeAmount
    ) {
        self.products = products
        self.gates = gates
        self.redis = redis
        self.tag = tag
        self.breaker = breaker
        self.events = events
        self.metrics = metrics
        self.chunk = max(1, chunk)
        self.longestRest = longestRest
    }

    /// Prunes every mark that is due now. Does nothing while the breaker is open.
    func run() async {
        guard !breaker.isOpen else { return }
        let now = NIODeadline.now()
        let due = products.all.filter { $0.state.withLock { $0.pruneRest <= now } }
        await prune(due.map(\.id), pause: .milliseconds(5)) { !Task.isCancelled }
        do throws(RedisError) {
            try await scan { found in
                await prune(products.unknown(among: found), pause: .milliseconds(5)) { !Task.isCancelled }
            }
        } catch {
            if isNews(error) { events.tell(.trouble("products that are not gated any more are not pruned in Redis: \(error)")) }
        }
    }

    /// Prunes before a recovery if Redis is out of memory: such a Redis refuses the writes of an install, but still runs a pruning.
    func makeRoom(within time: Duration) async {
        guard await isOutOfMemory() else { return }
        let before = metrics.prunedMarks.count
        let end = ContinuousClock.now + time
        await prune(products.ids, pause: .zero) { ContinuousClock.now < end }
        try? await scan(until: end) { found in await prune(found, pause: .zero) { ContinuousClock.now < end } }
        events.tell(.trouble("Redis is out of memory; \(metrics.prunedMarks.count &- before) marks past their retention were pruned"))
    }

    private func isOutOfMemory() async -> Bool {
        do {
            // A write that changes nothing, to learn whether Redis refuses writes: XX sets only a key that exists, and no product has this one.
            _ = try await redis.send(RedisCommand("SET", .string("sg:{\(tag())}:memory"), "1", "XX"))
            return false
        } catch {
            return error.serverError?.kind == .outOfMemory
        }
    }

    /// Prunes these products in small steps, until nothing is left to prune or `goesOn` says no.
    private func prune(_ ids: [ProductID], pause: Duration, while goesOn: () -> Bool) async {
        var left = ids
        while !left.isEmpty, goesOn() {
            var more: [ProductID] = []
            for chunk in left.chunks(ofCount: chunk) { more += await step(Array(chunk)) }
            left = more
            if !left.isEmpty, pause > .zero { try? await Task.sleep(for: pause) }
        }
    }

    /// One bounded step for each product. Returns those that may have more to prune.
    private func step(_ ids: [ProductID]) async -> [ProductID] {
        let now = NIODeadline.now()
        let results = await gates.together(ids) { gate, ids, answer in
            gate.prunes(ids.map { GateKeys($0) }, answer: answer)
        }
        var (more, pruned): ([ProductID], Int64) = ([], 0)
        for (id, result) in zip(ids, results) {
            guard case .success(let step) = result else { continue }
            pruned += step.removed
            if step.more { more.append(id) }
            let longest = longestRest.nanoseconds / 1_000_000
            let rest = max(0, min(step.nextAfter ?? longest, longest))
            products[id]?.state.withLock { $0.pruneRest = now + .milliseconds(rest) }
        }
        metrics.prunedMarks.add(UInt64(max(0, pruned)))
        return more
    }

    /// Whether this error differs from the one that was reported last.
    private func isNews(_ error: RedisError) -> Bool {
        let text = String(describing: error)
        return state.withLock { state in
            defer { state.told = text }
            return state.told != text
        }
    }

    /// Continues the scan over the names of all keys, and gives `found` the products whose marks it meets.
    private func scan(until end: ContinuousClock.Instant? = nil, found: ([ProductID]) async -> Void) async throws(RedisError) {
        for _ in 0..<Self.maximumSteps {
            if Task.isCancelled || end.map({ ContinuousClock.now >= $0 }) ?? false { return }
            let cursor = state.withLock { $0.cursor }
            let reply = try await redis.send(
                RedisCommand("SCAN", .string(cursor), "MATCH", .string(GateKeys.marksPattern), "COUNT", .integer(Self.stepSize))
            )
            guard let parts = reply.array, parts.count == 2, let next = parts[0].string, let names = parts[1].array else {
                throw RedisError(.protocolViolation, detail: "SCAN replied something else")
            }
            state.withLock { $0.cursor = next }
            let products = names.compactMap { $0.string.flatMap(GateKeys.product(ofMarks:)) }
            if !products.isEmpty { await found(products) }
            if next == "0" { return state.withLock { $0.told = nil } }
        }
    }
}
