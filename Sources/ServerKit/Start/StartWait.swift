// Invariant: a start waits for what may be there later, and fails at once for what never will be. A stop ends the wait at once, whatever the attempt under way is doing.
// Bounds: `timeout` for all waits of one start together; one attempt at a time, with 100 ms to 1 s between two.

import BlockingThreads
public import Logging

/// Waits, while a server starts, for what that server needs.
public struct StartWait: Sendable {
    /// What is known of a failed attempt: whether it may pass by itself, and why it failed, in one sentence without a secret.
    public typealias Judgement = (isNotThereYet: Bool, words: String)

    /// Why a server does not start.
    public struct Failure: Error, CustomStringConvertible {
        /// One sentence that names the setting.
        public let description: String
    }

    private let timeout: Duration
    private let end: ContinuousClock.Instant
    private let logger: Logger
    private let backoff: Backoff

    /// Begins the time.
    /// - Parameters:
    ///   - timeout: the time for all waits; zero: nothing is waited for
    ///   - minimumPause: between the first two attempts; it doubles
    ///   - maximumPause: between two attempts at most
    public init(
        timeout: Duration,
        logger: Logger,
        minimumPause: Duration = .milliseconds(100),
        maximumPause: Duration = .seconds(1)
    ) {
        self.timeout = timeout
        end = .now + timeout
        self.logger = logger
        backoff = Backoff(minimum: minimumPause, maximum: maximumPause)
    }

    /// Tries until it works. The log says once that something is not there, and once that it is.
    /// - Parameters:
    ///   - name: what is waited for
    ///   - setting: the variable that says where it is
    ///   - judge: nil for an error that says nothing of the awaited service; such an error ends the start as it is
    /// - Throws: ``Failure`` when it can never work, or did not within the time; `CancellationError` at once when the task is cancelled
    public func wait<Value: Sendable>(
        for name: String,
        at setting: String,
        judge: @Sendable (any Error) -> Judgement?,
        _ attempt: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        let began = ContinuousClock.now
        var failures = 0
        var isWaiting = false
        // Ends with the time.
        while true {
            do {
                let value = try await StartWait.abandonable(attempt)
                if isWaiting {
                    logger.notice("\(name) is there: the start goes on", metadata: ["after": "\((.now - began) as Duration)"])
                }
                return value
            } catch {
                if error is CancellationError || Task.isCancelled { throw CancellationError() }
                guard let (isNotThereYet, words) = judge(error) else { throw error }
                guard isNotThereYet else { throw Failure(description: "\(setting) leads to nothing that can be used: \(words)") }
                guard ContinuousClock.now < end else {
                    throw Failure(
                        description: "\(setting): \(name) was not there within START_TIMEOUT (\(timeout.settingText)): \(words)"
                    )
                }
                if !isWaiting {
                    isWaiting = true
                    logger.warning(
                        "\(name) is not there yet: the start waits for it",
                        metadata: ["setting": "\(setting)", "why": "\(words)", "atMost": "\(timeout.settingText)"]
                    )
                }
                try await Task.sleep(for: min(backoff.wholeWait(after: failures), max(end - .now, .milliseconds(1))))
                failures += 1
            }
        }
    }

    /// Leaves an attempt alone when the task is cancelled: one that hangs in a C library cannot be interrupted, and the process is about to end.
    private static func abandonable<Value: Sendable>(_ body: @escaping @Sendable () async throws -> Value) async throws -> Value {
        let (results, continuation) = AsyncStream.makeStream(of: Result<Value, any Error>.self)
        let task = Task {
            do { continuation.yield(.success(try await body())) } catch { continuation.yield(.failure(error)) }
        }
        defer { task.cancel() }
        for await result in results { return try result.get() }
        throw CancellationError()
    }
}
