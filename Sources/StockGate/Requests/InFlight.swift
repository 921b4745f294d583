import Synchronization

/// Lets requests in up to a bound, and none once the engine ends.
///
/// A request that was let in counts until its last message, which may be long after its answer.
final class InFlight: Sendable {
    private let maximum: Int
    private let metrics: EngineMetrics
    private let stopping = Atomic<Bool>(false)

    init(maximum: Int, metrics: EngineMetrics) {
        self.maximum = maximum
        self.metrics = metrics
    }

    /// Whether the engine ends or has ended.
    var isShutDown: Bool { stopping.load(ordering: .relaxed) }

    /// Lets nobody in from now on.
    func shutdown() { stopping.store(true, ordering: .relaxed) }

    /// Lets one request in, which leaves by `leave`; false: it is turned away, and counted.
    func enter() -> Bool {
        let before = metrics.inFlight.wrappingAdd(1, ordering: .relaxed).oldValue
        if before < maximum, !isShutDown { return true }
        leave()
        metrics.overloaded.add(1)
        return false
    }

    /// A request that was let in has had its last message.
    func leave() { metrics.inFlight.wrappingSubtract(1, ordering: .relaxed) }
}
