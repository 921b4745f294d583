import Algorithms
import CircuitBreaker
import NIOCore
import Synchronization

/// Looks in Redis for reservations that have been pending for too long, and has their products resynced. Such a reservation belongs to a process that died or
/// hangs.
///
/// Bounds: one step of each product's pending reservations a sweep, `chunk` products at a time.
struct Sweep: Sendable {
    let products: ShardProducts
    let gates: RedisGates
    let resyncs: ResyncCoordinator
    let breaker: CircuitBreaker
    let events: EventLog
    let metrics: EngineMetrics
    /// How many products are looked at together at most.
    let chunk: Int
    /// How long a reservation may be pending.
    let bound: TimeAmount

    /// One sweep over all gated products that are sold through Redis.
    func run() async {
        let all = products.all
        for product in all { product.state.withLock { $0.heat /= 2 } }
        guard !breaker.isOpen else { return }
        // A product that is sold directly is skipped: the reservations that Redis holds for it are void, or another ledger's.
        let swept = all.filter { !$0.state.withLock { $0.standing.isDirect } }
        for chunk in swept.chunks(ofCount: chunk) { await sweep(Array(chunk)) }
    }

    private func sweep(_ products: [GatedProduct]) async {
        let bound = bound
        let results = await gates.together(products) { gate, products, answer in
            gate.overdues(products.map { ($0.keys, $0.state.withLock { $0.sweepCursor }) }, bound: bound) { results in
                answer(results.map { $0.map { Step(cursor: $0.cursor, overdue: $0.overdue) } })
            }
        }
        for (product, result) in zip(products, results) {
            switch result {
            case .success(let step):
                product.state.withLock { $0.sweepCursor = step.cursor }
                guard step.overdue > 0 else { continue }
                metrics.swept.add(1)
                events.tellSome(.swept(product.id, overdue: step.overdue))
                resyncs.ask(product, forced: true)
            case .failure(let failure): if failure.isOfProduct { resyncs.spoiled(product, failure) }
            }
        }
    }

    private struct Step: Sendable {
        let cursor: String
        let overdue: Int64
    }
}
