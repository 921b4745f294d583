// An async step with a limit on its time, run at most once at a time.
//
// Invariant: a run is answered at most once. When a later run starts, or the run is cancelled, its answer is dropped. Two operations never run at once.
// Bounds: one operation runs, and one run waits for it to return, whatever the number of starts. An operation that ignores its cancellation holds up the
// runs behind it, which time out.
// Stops: at the operation's end, at the limit, or when cancelled.

import Synchronization

/// Runs the recovery or the health check for the shell.
final class TimedStep: Sendable {
    /// How a run ended.
    enum End: Sendable {
        case succeeded
        case failed(label: String)
        case timedOut
    }

    private struct State {
        /// The last run that was started, as its caller numbers it.
        var run: UInt64 = 0
        /// The number of its start. The caller's number is not enough, because two starts may have the same one.
        var start: UInt64 = 0
        /// Its timer, while nobody has answered it.
        var timer: Task<Void, Never>?
        /// Whether the last run's operation waits for an earlier one to return.
        var isWaiting = false
        /// The operation that has not returned yet.
        var operation: Task<Void, Never>?
        /// The largest run that is not wanted any more.
        var cancelled: UInt64 = 0
    }

    private let clock: ClockSource
    private let limit: Int64
    private let operation: @Sendable () async throws -> Void
    private let ended: @Sendable (_ run: UInt64, _ end: End) -> Void
    private let state = Guarded(State())

    /// `ended` is called without a lock held.
    init(
        clock: ClockSource,
        limit: Duration,
        operation: @escaping @Sendable () async throws -> Void,
        ended: @escaping @Sendable (_ run: UInt64, _ end: End) -> Void
    ) {
        self.clock = clock
        self.limit = limit.clampedNanoseconds
        self.operation = operation
        self.ended = ended
    }

    /// Starts run `run`. Numbers never shrink; a number that was cancelled already is not started. The time runs from here even when an earlier
    /// operation has to return first.
    func start(run: UInt64) {
        let deadline = clock.now().addingClamped(limit)
        let stale = state.withLock { state -> [Task<Void, Never>] in
            guard run > state.cancelled, run >= state.run else { return [] }
            let stale = [state.timer, state.operation].compactMap { $0 }
            state.run = run
            state.start += 1
            let start = state.start
            // Both tasks hold the step while they run, and end by the limit or by cancellation.
            state.timer = Task {
                do { try await self.clock.sleep(until: deadline) } catch { return }
                self.finish(start, .timedOut)
            }
            state.isWaiting = state.operation != nil
            if !state.isWaiting { launch(start, &state) }
            return stale
        }
        for task in stale { task.cancel() }
    }

    private func launch(_ start: UInt64, _ state: inout State) {
        let task = Task {
            let end: End
            do {
                try await self.operation()
                end = .succeeded
            } catch {
                end = .failed(label: String(describing: error))
            }
            self.operationReturned(start, end)
        }
        state.operation = task
    }

    private func operationReturned(_ start: UInt64, _ end: End) {
        state.withLock { state in
            state.operation = nil
            guard state.isWaiting else { return }
            state.isWaiting = false
            launch(state.start, &state)
        }
        finish(start, end)
    }

    /// Answers the run of this start, when it is the present one and not answered yet.
    private func finish(_ start: UInt64, _ end: End) {
        let answer = state.withLock { state -> (run: UInt64, tasks: [Task<Void, Never>])? in
            guard state.start == start, let timer = state.timer else { return nil }
            state.timer = nil
            state.isWaiting = false
            return (state.run, [timer, state.operation].compactMap { $0 })
        }
        guard let answer else { return }
        for task in answer.tasks { task.cancel() }
        ended(answer.run, end)
    }

    /// The runs up to and including `run` are not wanted any more.
    func cancel(through run: UInt64) {
        let tasks = state.withLock { state -> [Task<Void, Never>] in
            state.cancelled = max(state.cancelled, run)
            guard state.run <= run else { return [] }
            let tasks = [state.timer, state.operation].compactMap { $0 }
            state.timer = nil
            state.isWaiting = false
            return tasks
        }
        for task in tasks { task.cancel() }
    }
}
