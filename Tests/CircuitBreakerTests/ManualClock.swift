@testable import CircuitBreaker
import Synchronization

/// Time that moves when the test says so.
final class ManualClock: CircuitBreakerClock {
    private struct Sleeper {
        let id: UInt64
        let until: Int64
        let continuation: CheckedContinuation<Void, any Error>
    }

    private struct State {
        var now: Int64 = 0
        var sleepers: [Sleeper] = []
        var lastID: UInt64 = 0
        var cancelled: Set<UInt64> = []
    }

    private let state = Guarded(State())

    func now() -> CircuitBreakerInstant { CircuitBreakerInstant(nanoseconds: state.withLock { $0.now }) }

    var sleeperCount: Int { state.withLock { $0.sleepers.count } }

    func advance(by duration: Duration) {
        let due = state.withLock { state in
            state.now = CircuitBreakerInstant(nanoseconds: state.now).advanced(by: duration).nanoseconds
            let due = state.sleepers.filter { $0.until <= state.now }
            state.sleepers.removeAll { $0.until <= state.now }
            return due
        }
        for sleeper in due { sleeper.continuation.resume() }
    }

    func sleep(until instant: CircuitBreakerInstant) async throws {
        let id = state.withLock { state in
            state.lastID += 1
            return state.lastID
        }
        try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
                let answer: Result<Void, any Error>? = state.withLock { state in
                    if state.cancelled.remove(id) != nil { return .failure(CancellationError()) }
                    if state.now >= instant.nanoseconds { return .success(()) }
                    state.sleepers.append(Sleeper(id: id, until: instant.nanoseconds, continuation: continuation))
                    return nil
                }
                if let answer { continuation.resume(with: answer) }
            }
        } onCancel: {
            let sleeper = state.withLock { state -> Sleeper? in
                guard let index = state.sleepers.firstIndex(where: { $0.id == id }) else {
                    state.cancelled.insert(id)
                    return nil
                }
                return state.sleepers.remove(at: index)
            }
            sleeper?.continuation.resume(throwing: CancellationError())
        }
    }
}

/// Waits until the condition holds; false after a minute.
func eventually(_ condition: () async -> Bool) async -> Bool {
    let deadline = ContinuousClock.now + .seconds(60)
    while ContinuousClock.now < deadline {
        if await condition() { return true }
        await Task.yield()
    }
    return false
}

/// A recovery whose end the test decides.
final class TestRecovery: Sendable {
    struct Refused: Error {}

    private struct State {
        var waiting: [CheckedContinuation<Void, any Error>] = []
        var starts = 0
        var running = 0
        var mostRunning = 0
    }

    private let state = Guarded(State())

    var starts: Int { state.withLock { $0.starts } }
    var running: Int { state.withLock { $0.running } }
    var mostRunning: Int { state.withLock { $0.mostRunning } }

    /// Waits for ``answer(_:)``, deaf to cancellation.
    func pass() async throws {
        defer { state.withLock { $0.running -= 1 } }
        try await withCheckedThrowingContinuation { continuation in
            state.withLock {
                $0.starts += 1
                $0.running += 1
                $0.mostRunning = max($0.mostRunning, $0.running)
                $0.waiting.append(continuation)
            }
        }
    }

    func answer(_ passes: Bool) {
        let waiting = state.withLock { state in
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in waiting { continuation.resume(with: passes ? .success(()) : .failure(Refused())) }
    }
}
