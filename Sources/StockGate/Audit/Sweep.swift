import Algorithms
import CircuitBreaker
import NIOCore
import Synchronization

/// Looks in Redis for reservations that have been pending for too long, and has their products resynced. Such a reservation belongs to a process that died or
/// hangs. A product whose reservations were all seen rests until the oldest of them could be overdue, or the next one that somebody makes, but for
/// `longestRest` at most: what Redis holds may change in other ways, too.
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
    let longestRest: TimeAmount

    /// One sweep over all gated products that are sold through Redis.
    func run() async {
        let all = products.all
        for product in all { product.state.withLock { $0.heat /= 2 } }
        guard !breaker.isOpen else { return }
        let now = NIODeadline.now()
        // A product that is sold directly is skipped: the reservations that Redis holds for it are void, or another ledger's.
        let swept = all.filter { $0.state.withLock { !$0.standing.isDirect && $0.sweepRest <= now } }
        for chunk in swept.chunks(ofCount: chunk) { await sweep(Array(chunk)) }
    }

    private func sweep(_ products: [GatedProduct]) async {
        let bound = bound
        let now = NIODeadline.now()
        let results = await gates.together(products) { gate, products, answer in
            gate.overdues(products.map { ($0.keys, $0.state.withLock { $0.sweepCursor }) }, bound: bound, answer: answer)
        }
        for (product, result) in zip(products, results) {
            switch result {
            case .success(let step):
                product.state.withLock { state in
                    let sawAll = state.sweepCursor == "0" && step.cursor == "0"
                    state.sweepCursor = step.cursor
                    let rest = SweepRest.milliseconds(
                        sawAll: sawAll,
                        overdue: step.overdue,
                        oldest: step.oldest,
                        bound: bound.nanoseconds / 1_000_000,
                        longest: longestRest.nanoseconds / 1_000_000
                    )
                    state.sweepRest = now + .milliseconds(rest)
                }
                guard step.overdue > 0 else { continue }
                metrics.swept.add(1)
                events.tellSome(.swept(product.id, overdue: step.overdue))
                resyncs.ask(product, forced: true)
            case .failure(let failure): if failure.isOfProduct { resyncs.spoiled(product, failure) }
            }
        }
    }
}
