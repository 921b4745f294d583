import Synchronization

/// Counters of one event loop's connection: written on that loop alone, read from anywhere.
final class LoopCounters: Sendable {
    /// One number that a single thread writes: a load and a store are enough, and cheaper than an atomic addition.
    struct Counter: ~Copyable, Sendable {
        private let value = Atomic<Int>(0)

        var current: Int { value.load(ordering: .relaxed) }

        func increment() { add(1) }

        func add(_ amount: Int) { value.store(value.load(ordering: .relaxed) &+ amount, ordering: .relaxed) }

        func store(_ amount: Int) { value.store(amount, ordering: .relaxed) }
    }

    let connectAttempts = Counter()
    let connects = Counter()
    let disconnects = Counter()
    let connectFailures = Counter()
    let ready = Counter()
    let pending = Counter()
    let timeouts = Counter()
    let lateReplies = Counter()
    let silences = Counter()
    let queueFull = Counter()
    let protocolViolations = Counter()
    let flushes = Counter()
    let bytesSent = Counter()
    let bytesReceived = Counter()
}
