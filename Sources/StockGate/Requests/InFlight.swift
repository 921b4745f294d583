import Synchronization

/// Lets requests in up to a bound, and none once the engine shuts down.
///
/// A request counts from when it is let in until its last message, which may be long after its answer.
final class InFlight: Sendable {
    private let maximum: Int
    private let metrics: EngineMetrics
    private let stopping = Atomic<Bool>(false)

    init(maximum: Int, metrics: EngineMetrics) {
        self.maximum = maximum
        self.metrics = metrics
    }

    /// Whether the engine shuts down or has shut down.
    var isShutDown: Bool { stopping.load(ordering: .relaxed) }

    /// Lets no request in from now on.
    func shutdown() { stopping.store(true, ordering: .relaxed) }

    /// Lets one request in, which must call `leave` at its end. Returns false if the request is turned away, which is counted.
    func enter() -> Bool {
        let before = metrics.inFlight.wrappingAdd(1, ordering: .relaxed).oldValue
        if before < maximum, !isShutDown { return true }
        leave()
        metrics.overloaded.add(1)
        return false
    }

    /// A request that was let in has sent its last message.
    func leave() { metrics.inFlight.wrappingSubtract(1, ordering: .relaxed) }
}
