import BlockingThreads
import Synchronization

/// A thread that owns a connection and runs jobs on it, without tasks or executors. It suits a committer, which takes all that waits, runs one statement,
/// answers the callers and looks again.
///
/// There are two ways to use it. A committer keeps its own queue and submits one job when that queue becomes non-empty; the job takes all that waits, until the
/// queue is empty. Or one submitted job is the committer's whole loop, which sleeps in ``WakeSignal/wait(for:)``.
///
/// Bound: `maximumQueued` jobs wait; more are refused.
public final class PostgresWorker: Sendable {
    /// Work that runs on the worker's thread. What it postpones in the session is done before the next job.
    public typealias Job = @Sendable (PostgresSession) -> Void

    /// The recent results of the session's statements.
    public let monitor: PostgresSessionMonitor
    private let isProbing = Atomic(false)
    private let queue: ThreadQueue<Job>
    private let end: ThreadEnd
    private let maximumQueued: Int

    /// Starts the thread. No connection is opened yet.
    ///
    /// - Parameters:
    ///   - name: the thread's name, of which the system shows 15 bytes
    ///   - onTrouble: see ``PostgresSessionMonitor/init(onTrouble:)``
    public init(
        configuration: PostgresConfiguration,
        name: String = "postgres",
        maximumQueued: Int = 1024,
        onTrouble: (@Sendable (_ trouble: PostgresError?, _ isNews: Bool) -> Void)? = nil
    ) throws(PostgresError) {
        let monitor = PostgresSessionMonitor(onTrouble: onTrouble)
        self.monitor = monitor
        let queue = ThreadQueue<Job>()
        let end = ThreadEnd()
        self.queue = queue
        self.end = end
        self.maximumQueued = maximumQueued
        try ThreadUnavailable.translated(by: PostgresError.init) { () throws(ThreadUnavailable) in
            try BlockingThread.start(name: name) {
                let session = PostgresSession(configuration: configuration)
                session.monitor = monitor
                while let jobs = queue.takeAll() {
                    for job in jobs {
                        job(session)
                        session.doPostponed()
                    }
                }
                session.close()
                end.reached()
            }
        }
    }

    deinit { queue.shutdown() }

    /// Queues `job` behind those that were submitted before.
    ///
    /// - Throws: `poolExhausted` at the bound, `shutDown` after ``shutdown()``. The job does not run then.
    public func submit(_ job: @escaping Job) throws(PostgresError) {
        switch queue.push(job, limit: maximumQueued) {
        case .accepted: return
        case .full: throw PostgresError(code: .poolExhausted, message: "\(maximumQueued) jobs wait already")
        case .stopped: throw PostgresError(code: .shutDown, message: "the worker was shut down")
        }
    }

    /// Runs `body` on the thread and returns its result.
    public func perform<T: Sendable>(_ body: @escaping @Sendable (PostgresSession) throws -> T) async throws -> T {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<T, any Error>) in
            do throws(PostgresError) {
                try submit { session in continuation.resume(with: Result { try body(session) }) }
            } catch {
                continuation.resume(throwing: error)
            }
        }
    }

    /// Opens the connection before the first job needs it, and returns when that succeeded or failed. An open connection holds its place at the server.
    public func connect() async throws(PostgresError) {
        do {
            try await perform { try $0.connect() }
        } catch let error as PostgresError {
            throw error
        } catch {
            throw PostgresError(code: .misuse, message: "\(error)")
        }
    }

    /// Asks whether this worker's own session is connected, may write, and does its work. Work that the database refused is tried again, without an effect.
    ///
    /// A busy session is not interrupted: the results of its statements answer the question.
    /// - Parameters:
    ///   - bound: how long to wait for the session's answer
    ///   - rest: a session that does not answer counts as working for this long after its last success
    /// - Returns: nil if the session can write, otherwise what keeps it from that
    public func troubleWriting(within bound: Duration = .milliseconds(700), rest: Duration = .seconds(4)) async -> PostgresError? {
        let trouble = await asked(within: bound, rest: rest)
        // Where one caller's statement may be to blame, others must get their turn: who is never ready meets none who could show that it works.
        guard let trouble, trouble.mayBeOneStatements, monitor.isWorthTrying else { return trouble }
        return nil
    }

    private func asked(within bound: Duration, rest: Duration) async -> PostgresError? {
        if queue.isStopped { return PostgresError(code: .shutDown, message: "the worker was shut down") }
        if monitor.trouble == nil, let last = monitor.lastSuccess, ContinuousClock.now - last < bound / 2 { return nil }
        let (answers, answer) = AsyncStream.makeStream(of: PostgresError?.self, bufferingPolicy: .bufferingOldest(1))
        // Only one question is asked at a time, because it may wait behind a statement that hangs.
        if !isProbing.exchange(true, ordering: .acquiringAndReleasing) {
            do throws(PostgresError) {
                try submit { [isProbing = ProbeEnd(self)] session in
                    defer { isProbing.reached() }
                    do throws(PostgresError) {
                        try session.checkCanWrite()
                        // The monitor judges what comes of it: one failure may be one statement's own.
                        try? session.tryWork()
                        answer.yield(session.monitor?.trouble)
                    } catch {
                        answer.yield(error)
                    }
                    answer.finish()
                }
            } catch {
                isProbing.store(false, ordering: .releasing)
                if error.code == .shutDown { return error }
            }
        }
        let timer = Task {
            try? await Task.sleep(for: bound)
            answer.finish()
        }
        defer { timer.cancel() }
        for await found in answers { return found }
        if let trouble = monitor.trouble { return trouble }
        if let last = monitor.lastSuccess, ContinuousClock.now - last < rest { return nil }
        return PostgresError(code: .timedOut(outcomeUnknown: false), message: "the session gives no answer")
    }

    /// Lets the next question be asked. It keeps the worker alive no longer than the worker's own queue does.
    private struct ProbeEnd: Sendable {
        private weak let worker: PostgresWorker?
        init(_ worker: PostgresWorker) { self.worker = worker }
        func reached() { worker?.isProbing.store(false, ordering: .releasing) }
    }

    /// Refuses new jobs, lets waiting jobs run, closes the connection, and returns when the thread has ended.
    ///
    /// If a job is an endless loop, its owner must end it first.
    public func shutdown() async {
        queue.shutdown()
        await end.wait()
    }
}
