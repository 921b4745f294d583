import Synchronization

/// A value that becomes available later, and the tasks that wait for it.
///
/// Bounds: one waiter for each running call of `value`. Stop: `open`, `close` or the task's cancellation answers every waiter.
final class Latch<Value: Sendable>: Sendable {
    private struct State: Sendable {
        var value: Value?
        var isClosed = false
        var lastTicket: UInt64 = 0
        var waiters: [UInt64: CheckedContinuation<Value, any Error>] = [:]
    }

    private let state = Mutex(State())

    /// The value, as soon as it is there.
    /// - Throws: `CancellationError` if the latch is closed, or the task cancelled
    func value() async throws -> Value {
        let ticket = state.withLock { state in
            state.lastTicket &+= 1
            return state.lastTicket
        }
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation { continuation in
                let known: Result<Value, any Error>? = state.withLock { state in
                    if let value = state.value { return .success(value) }
                    if state.isClosed || Task.isCancelled { return .failure(CancellationError()) }
                    state.waiters[ticket] = continuation
                    return nil
                }
                if let known { continuation.resume(with: known) }
            }
        } onCancel: {
            state.withLock { $0.waiters.removeValue(forKey: ticket) }?.resume(throwing: CancellationError())
        }
    }

    /// Sets the value and gives it to present and later waiters. Only the first call counts.
    func open(_ value: Value) {
        let waiters = state.withLock { state -> [CheckedContinuation<Value, any Error>] in
            guard state.value == nil, !state.isClosed else { return [] }
            state.value = value
            defer { state.waiters = [:] }
            return Array(state.waiters.values)
        }
        for waiter in waiters { waiter.resume(returning: value) }
    }

    /// Drops the value. Present and later waiters are told that there will be none.
    func close() {
        let waiters = state.withLock { state in
            state.isClosed = true
            state.value = nil
            defer { state.waiters = [:] }
            return Array(state.waiters.values)
        }
        for waiter in waiters { waiter.resume(throwing: CancellationError()) }
    }
}
