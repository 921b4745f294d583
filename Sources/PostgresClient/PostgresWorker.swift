import Synchronization

/// A thread that owns a connection and runs jobs on it, without tasks or executors: for a committer that takes everything that waits,
/// runs one statement, completes the callers and looks again.
///
/// Two ways to use it. A committer keeps its own queue and submits one job when that queue becomes non-empty; the job takes all that waits,
/// again and again until nothing does. Or one submitted job is the committer's whole loop, which sleeps in ``WakeSignal/wait(for:)``.
///
/// Bound: `maximumQueued` jobs wait; more are refused.
public final class PostgresWorker: Sendable {
    /// Work that runs on the worker's thread. What it postpones in its session is done before the next job.
    public typealias Job = @Sendable (PostgresSession) -> Void

    private let queue: ThreadQueue<Job>
    private let end: End
    private let maximumQueued: Int

    /// Starts the thread; opens no connection yet.
    ///
    /// - Parameter name: the thread's name, of which the system shows 15 bytes.
    public init(configuration: PostgresConfiguration, name: String = "postgres", maximumQueued: Int = 1024) throws(PostgresError) {
        let queue = ThreadQueue<Job>()
        let end = End()
        self.queue = queue
        self.end = end
        self.maximumQueued = maximumQueued
        try startThread(name: name) {
            let session = PostgresSession(configuration: configuration)
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

    deinit { queue.stop() }

    /// Jobs that wait; those taken by the thread are not counted.
    public var queued: Int { queue.count }

    /// Lets the thread run `job` after those submitted before.
    ///
    /// - Throws: `poolExhausted` at the bound, `shutDown` after ``shutdown()``. The job does not run then.
    public func submit(_ job: @escaping Job) throws(PostgresError) {
        switch queue.push(job, limit: maximumQueued) {
        case .accepted: return
        case .full: throw PostgresError(code: .poolExhausted, message: "\(maximumQueued) jobs wait already")
        case .stopped: throw PostgresError(code: .shutDown, message: "the worker was shut down")
        }
    }

    /// Runs `body` on the thread and waits for what it returns.
    public func perform<T: Sendable>(_ body: @escaping @Sendable (PostgresSession) throws -> T) async throws -> T {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<T, any Error>) in
            do throws(PostgresError) {
                try submit { session in continuation.resume(with: Result { try body(session) }) }
            } catch {
                continuation.resume(throwing: error)
            }
        }
    }

    /// Refuses new jobs, lets those that wait run, closes the connection and returns when the thread has ended its work.
    ///
    /// A loop that runs as a job must be told to end by its owner first.
    public func shutdown() async {
        queue.stop()
        await end.wait()
    }

    /// The thread's end, and who waits for it.
    private final class End: Sendable {
        private enum State {
            case running([CheckedContinuation<Void, Never>])
            case ended
        }

        private let state = Mutex(State.running([]))

        func reached() {
            let waiting = state.withLock { state -> [CheckedContinuation<Void, Never>] in
                guard case .running(let waiting) = state else { return [] }
                state = .ended
                return waiting
            }
            for continuation in waiting { continuation.resume() }
        }

        func wait() async {
            await withCheckedContinuation { continuation in
                let isOver = state.withLock { state in
                    guard case .running(let waiting) = state else { return true }
                    state = .running(waiting + [continuation])
                    return false
                }
                if isOver { continuation.resume() }
            }
        }
    }
}
