/// Runs an actor's jobs on one thread of its own, which ends when the executor is released.
public final class ThreadExecutor: SerialExecutor {
    // The item keeps the executor alive while its job waits and runs: the thread itself holds only the queue.
    private let queue = ThreadQueue<(job: UnownedJob, executor: ThreadExecutor)>()

    /// Starts the thread.
    ///
    /// - Parameter name: see ``BlockingThread/start(name:_:)``.
    public init(name: String) throws(ThreadUnavailable) {
        let queue = queue
        try BlockingThread.start(name: name) {
            while let items = queue.takeAll() {
                for item in items {
                    item.job.runSynchronously(on: item.executor.asUnownedSerialExecutor())
                }
            }
        }
    }

    deinit { queue.shutdown() }

    /// Puts a job behind the others.
    public func enqueue(_ job: consuming ExecutorJob) {
        // The queue takes it: only `deinit` ends the queue, and then nobody is left who could enqueue.
        _ = queue.push((UnownedJob(job), self))
    }

    /// The executor as an actor names it.
    public func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }
}
