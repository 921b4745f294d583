public import StrictJSON
import Synchronization

/// What a dependency is to the server right now.
public enum HealthState: String, Sendable {
    /// The dependency works.
    case up = "UP"
    /// The dependency works badly or not at all, and the server can do without it: the server is ready.
    case degraded = "DEGRADED"
    /// The dependency fails, and the server needs it: the server is not ready.
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

/// A named question to a dependency. One question is out at a time, and a caller who comes meanwhile shares its answer. No answer in time counts as
/// `timeoutState`.
public final class HealthCheck: Sendable {
    /// What became of the last question.
    private enum State {
        // -> asking
        case idle
        // -> idle: it was answered; hanging: its time is over. Those who wait for the answer.
        case asking(number: UInt64, [FirstAnswer])
        // -> idle: it was answered after all
        case hanging
    }

    /// The dependency's name.
    public let name: String
    private let timeout: Duration
    private let timeoutState: HealthState
    private let ask: @Sendable () async -> HealthReport
    private let state = Mutex((State.idle, asked: UInt64(0)))

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

    /// Asks, within the timeout, or waits for the answer to a question that is out and has time left. After that time, while the question still hangs, the
    /// answer is `timeoutState` at once: a check that ignores its cancellation costs one task, not one each probe.
    public func report() async -> HealthReport {
        let answer = FirstAnswer()
        enum Step { case ask(UInt64), share, giveUp }
        let step = self.state.withLock { state -> Step in
            switch state.0 {
            case .idle:
                state.asked &+= 1
                state.0 = .asking(number: state.asked, [answer])
                return .ask(state.asked)
            case .asking(let number, let answers):
                state.0 = .asking(number: number, answers + [answer])
                return .share
            case .hanging: return .giveUp
            }
        }
        switch step {
        case .ask(let number): begin(number)
        case .share: break
        case .giveUp: return HealthReport(timeoutState, detail: ["reason": "an earlier check has not ended"])
        }
        return await answer.wait()
    }

    private func begin(_ number: UInt64) {
        let question = Task {
            let report = await ask()
            for answer in take(number, andLeave: .idle) { answer.give(report) }
        }
        let deadline = Task {
            guard (try? await Task.sleep(for: timeout)) != nil else { return }
            let late = take(number, andLeave: .hanging)
            for answer in late { answer.give(HealthReport(timeoutState, detail: ["reason": "no answer in time"])) }
            question.cancel()
        }
        Task {
            await question.value
            deadline.cancel()
        }
    }

    /// Takes those who wait for a question's answer; nobody, if they were told before.
    private func take(_ number: UInt64, andLeave next: State) -> [FirstAnswer] {
        self.state.withLock { state in
            switch (state.0, next) {
            case (.asking(number, let answers), _):
                state.0 = next
                return answers
            case (.hanging, .idle):
                // Nothing was asked since the question began to hang, so nobody waits.
                state.0 = .idle
                return []
            default: return []
            }
        }
    }

    /// How many wait for an answer.
    var waiting: Int {
        state.withLock { state in
            if case .asking(_, let answers) = state.0 { answers.count } else { 0 }
        }
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
