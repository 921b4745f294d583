// Invariant: one thread takes from one queue; an item pushed is taken exactly once, in the order of pushing, also after `stop`.
// Bound: `push` refuses at its limit. The thread ends when the queue is stopped and empty; it sleeps in the kernel while there is nothing.

import CLibPQ
import Dispatch
import Glibc
import Synchronization

/// A queue with one consuming thread. Waking a sleeping consumer costs one semaphore signal; a busy one is not signalled at all.
final class ThreadQueue<Item: Sendable>: Sendable {
    enum Push { case accepted, full, stopped }

    private struct State {
        var items: [Item] = []
        var isSleeping = false
        var isStopped = false
    }

    private let state = Mutex(State())
    private let wake = DispatchSemaphore(value: 0)

    func push(_ item: Item, limit: Int = .max) -> Push {
        let (push, mustWake) = state.withLock { state -> (Push, Bool) in
            if state.isStopped { return (.stopped, false) }
            if state.items.count >= limit { return (.full, false) }
            state.items.append(item)
            defer { state.isSleeping = false }
            return (.accepted, state.isSleeping)
        }
        if mustWake { wake.signal() }
        return push
    }

    func stop() {
        let mustWake = state.withLock { state in
            state.isStopped = true
            defer { state.isSleeping = false }
            return state.isSleeping
        }
        if mustWake { wake.signal() }
    }

    var isStopped: Bool { state.withLock { $0.isStopped } }

    var count: Int { state.withLock { $0.items.count } }

    /// Everything that waits; sleeps until there is something. Nil: stopped and empty.
    func takeAll() -> [Item]? {
        while true {
            let taken: [Item]?? = state.withLock { state in
                if !state.items.isEmpty {
                    defer { state.items = [] }
                    return state.items
                }
                if state.isStopped { return .some(nil) }
                state.isSleeping = true
                return nil
            }
            if let taken { return taken }
            wake.wait()
        }
    }
}

/// Starts a detached thread.
///
/// - Throws: `connectFailed` if the system has no thread left.
func startThread(name: String, _ body: @escaping @Sendable () -> Void) throws(PostgresError) {
    final class Start: Sendable {
        let name: String
        let body: @Sendable () -> Void
        init(name: String, body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }
    // Retained here, released by the thread that takes it over, or below if there is none.
    let start = Unmanaged.passRetained(Start(name: name, body: body))
    var thread = pthread_t()
    let status = pthread_create(
        &thread,
        nil,
        { argument in
            guard let argument else { return nil }
            let start = Unmanaged<Start>.fromOpaque(argument).takeRetainedValue()
            clibpq_name_thread(start.name)
            start.body()
            return nil
        },
        start.toOpaque()
    )
    guard status == 0 else {
        start.release()
        throw PostgresError(code: .connectFailed, message: "no thread could be started (error \(status))")
    }
    pthread_detach(thread)
}

/// Runs an actor's jobs on one thread of its own, which ends when the executor is released.
final class ThreadExecutor: SerialExecutor {
    // The item keeps the executor alive while its job waits and runs: the thread itself holds only the queue.
    private let queue = ThreadQueue<(job: UnownedJob, executor: ThreadExecutor)>()

    init(name: String) throws(PostgresError) {
        let queue = queue
        try startThread(name: name) {
            while let items = queue.takeAll() {
                for item in items {
                    item.job.runSynchronously(on: item.executor.asUnownedSerialExecutor())
                }
            }
        }
    }

    deinit { queue.stop() }

    func enqueue(_ job: consuming ExecutorJob) {
        // Never stopped while anyone can enqueue: only `deinit` stops it.
        _ = queue.push((UnownedJob(job), self))
    }

    func asUnownedSerialExecutor() -> UnownedSerialExecutor { UnownedSerialExecutor(ordinary: self) }
}
