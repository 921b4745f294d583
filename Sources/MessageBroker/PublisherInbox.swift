import Synchronization

/// The messages of one call, and the callback for their outcomes.
struct PublishBatch: Sendable {
    let messages: [OutgoingMessage]
    let deadline: ContinuousClock.Instant
    private(set) var outcomes: [PublishOutcome]
    private(set) var remaining: Int
    /// Messages before this index are written or given up.
    var next = 0
    private let continuation: CheckedContinuation<Result<[PublishOutcome], BrokerError>, Never>

    init(
        _ messages: [OutgoingMessage],
        deadline: ContinuousClock.Instant,
        _ continuation: CheckedContinuation<Result<[PublishOutcome], BrokerError>, Never>
    ) {
        self.messages = messages
        self.deadline = deadline
        self.continuation = continuation
        outcomes = Array(repeating: .unknown, count: messages.count)
        remaining = messages.count
    }

    mutating func settle(_ index: Int, _ outcome: PublishOutcome) {
        outcomes[index] = outcome
        remaining -= 1
    }

    func answer() { continuation.resume(returning: .success(outcomes)) }
}

/// Takes batches from callers and keeps them for the thread.
final class PublisherInbox: Sendable {
    private enum Intake {
        /// -> open, closed
        case shut(BrokerError, retryAt: ContinuousClock.Instant?)
        /// -> shut, closed
        case open
        /// Final.
        case closed
    }

    private struct State {
        var intake = Intake.shut(BrokerError(code: .notConnected, message: "the first attempt to connect runs"), retryAt: nil)
        var batches: [PublishBatch] = []
        /// Messages that are accepted and not yet answered.
        var count = 0
    }

    private let state = Mutex(State())

    var count: Int { state.withLock { $0.count } }
    var isEmpty: Bool { state.withLock { $0.batches.isEmpty } }

    /// Accepts a batch. Returns nil, or the reason of a refusal.
    func push(_ batch: PublishBatch, limit: Int) -> BrokerError? {
        state.withLock { state in
            switch state.intake {
            case .closed: return BrokerError(code: .closed, message: "the publisher was closed")
            case .shut(let failure, let retryAt):
                return BrokerError(
                    code: .notConnected,
                    message: failure.message,
                    retryAfter: retryAt.map { max(.zero, $0 - .now) }
                )
            case .open:
                guard state.count + batch.messages.count <= limit else {
                    return BrokerError(code: .overloaded, message: "\(state.count) messages wait already, of at most \(limit)")
                }
                state.batches.append(batch)
                state.count += batch.messages.count
                return nil
            }
        }
    }

    func takeAll() -> [PublishBatch] {
        state.withLock { state in
            if state.batches.isEmpty { return [] }
            defer { state.batches = [] }
            return state.batches
        }
    }

    func answered(_ messages: Int) { state.withLock { $0.count -= messages } }

    func open() {
        state.withLock { state in
            if case .shut = state.intake { state.intake = .open }
        }
    }

    func shut(_ failure: BrokerError, retryAt: ContinuousClock.Instant?) {
        state.withLock { state in
            if case .closed = state.intake { return }
            state.intake = .shut(failure, retryAt: retryAt)
        }
    }

    func close() { state.withLock { $0.intake = .closed } }
}
