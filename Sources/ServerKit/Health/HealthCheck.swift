public import StrictJSON
import Synchronization

/// What a dependency is to the server right now.
public enum HealthState: String, Sendable {
    /// It works.
    case up = "UP"
    /// It works badly or not at all, and the server can do without it: the server is ready.
    case degraded = "DEGRADED"
    /// It fails, and the server needs it: the server is not ready.
    case down = "DOWN"
}

/// What a check found.
public struct HealthReport: Sendable, Equatable {
    /// The state.
    public var state: HealthState
    /// Anything that helps whoever reads it.
    public var detail: JSONValue

    /// Makes a report.
    public init(_ state: HealthState, detail: JSONValue = .null) {
        self.state = state
        self.detail = detail
    }
}

/// A named question to a dependency. It is never asked twice at a time, and no answer in time counts as `timeoutState`.
public final class HealthCheck: Sendable {
    /// The dependency's name.
    public let name: String
    private let timeout: Duration
    private let timeoutState: HealthState
    private let ask: @Sendable () async -> HealthReport
    private let isRunning = Mutex(false)

    /// Makes a check.
    /// - Parameters:
    ///   - timeout: how long an answer may take
    ///   - timeoutState: what no answer means
    ///   - ask: asks the dependency; is cancelled when the time is over
    public init(
        _ name: String,
        timeout: Duration = .seconds(1),
        timeoutState: HealthState = .down,
        ask: @escaping @Sendable () async -> HealthReport
    ) {
        self.name = name
        self.timeout = timeout
        self.timeoutState = timeoutState
        self.ask = ask
    }

    /// Asks, within the timeout. While an earlier question still hangs, the answer is `timeoutState` at once: a check that
    /// ignores its cancellation costs one task, not one each probe.
    public func report() async -> HealthReport {
        let mayRun = isRunning.withLock { running in
            defer { running = true }
            return !running
        }
        guard mayRun else { return HealthReport(timeoutState, detail: ["reason": "an earlier check has not ended"]) }
        let answer = FirstAnswer()
        let question = Task {
            let report = await ask()
            isRunning.withLock { $0 = false }
            answer.give(report)
        }
        let deadline = Task {
            try? await Task.sleep(for: timeout)
            answer.give(HealthReport(timeoutState, detail: ["reason": "no answer in time"]))
            question.cancel()
        }
        let report = await answer.wait()
        deadline.cancel()
        return report
    }
}

/// The first of two answers; the other is dropped.
private final class FirstAnswer: Sendable {
    private enum State {
        // -> waiting, given
        case empty
        // -> given
        case waiting(CheckedContinuation<HealthReport, Never>)
        // Final.
        case given(HealthReport)
    }

    private let state = Mutex(State.empty)

    func give(_ report: HealthReport) {
        let continuation: CheckedContinuation<HealthReport, Never>? = self.state.withLock { state in
            switch state {
            case .empty:
                state = .given(report)
                return nil
            case .waiting(let continuation):
                state = .given(report)
                return continuation
            case .given: return nil
            }
        }
        continuation?.resume(returning: report)
    }

    func wait() async -> HealthReport {
        await withCheckedContinuation { continuation in
            let given: HealthReport? = self.state.withLock { state in
                if case .given(let report) = state { return report }
                state = .waiting(continuation)
                return nil
            }
            if let given { continuation.resume(returning: given) }
        }
    }
}
