import Eventually
import Glibc
import Synchronization
import Testing

@testable import BlockingThreads

@Suite("Threads, queues and wakes", .timeLimit(.minutes(3)))
struct ThreadTests {
    /// What the thread has taken, batch by batch.
    private final class Taken: Sendable {
        let batches = Mutex<[[Int]]>([])
        let end = ThreadEnd()
        let release = WakeSignal()
        let thread = Mutex<UInt?>(nil)

        var all: [Int] { batches.withLock { $0.flatMap { $0 } } }
    }

    /// A thread that takes everything from a queue; it stops at `held` until it is released.
    private func consume(_ queue: ThreadQueue<Int>, held: Int? = nil) throws -> Taken {
        let taken = Taken()
        try BlockingThread.start(name: "test-thread") {
            taken.thread.withLock { $0 = UInt(pthread_self()) }
            while let items = queue.takeAll() {
                taken.batches.withLock { $0.append(items) }
                if let held, items.contains(held) { taken.release.wait() }
            }
            taken.end.reached()
        }
        return taken
    }

    @Test("the body runs on a thread of its own, under its name, of which the system keeps 15 bytes")
    func name() async throws {
        let end = ThreadEnd()
        let name = Mutex("")
        let thread = Mutex<UInt?>(nil)
        try BlockingThread.start(name: "a-name-of-20-letters") {
            thread.withLock { $0 = UInt(pthread_self()) }
            if let file = fopen("/proc/thread-self/comm", "r") {
                var line = [CChar](repeating: 0, count: 64)
                if fgets(&line, 64, file) != nil {
                    let text = String(decoding: line.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
                    name.withLock { $0 = text }
                }
                fclose(file)
            }
            end.reached()
        }
        await end.wait()
        #expect(name.withLock { $0 } == "a-name-of-20-le")
        #expect(thread.withLock { $0 } != nil)
    }

    @Test("everything pushed by many is taken once, in each pusher's order, and what waits at the stop is taken too")
    func queueTakesAll() async throws {
        let queue = ThreadQueue<Int>()
        let taken = try consume(queue)
        await withTaskGroup(of: Void.self) { group in
            for pusher in 0..<4 {
                group.addTask { for item in 0..<1000 { #expect(queue.push(pusher * 1000 + item) == .accepted) } }
            }
        }
        queue.shutdown()
        #expect(queue.isStopped)
        #expect(queue.push(0) == .stopped)
        await taken.end.wait()
        let all = taken.all
        #expect(all.sorted() == Array(0..<4000))
        for pusher in 0..<4 {
            let own = all.filter { $0 / 1000 == pusher }
            #expect(own == own.sorted())
        }
    }

    @Test("a full queue refuses, and its items come in one go")
    func queueRefusesAtItsLimit() async throws {
        let queue = ThreadQueue<Int>()
        let taken = try consume(queue, held: 0)
        #expect(queue.push(0, limit: 2) == .accepted)
        #expect(try await eventually { taken.all == [0] })
        #expect(queue.push(1, limit: 2) == .accepted)
        #expect(queue.push(2, limit: 2) == .accepted)
        #expect(queue.push(3, limit: 2) == .full)
        #expect(queue.count == 2)
        taken.release.signal()
        #expect(try await eventually { taken.batches.withLock { $0 } == [[0], [1, 2]] })
        queue.shutdown()
        await taken.end.wait()
    }

    @Test("signals before the sleep count as one, and a wait without one ends")
    func wakeSignal() {
        let signal = WakeSignal()
        signal.signal()
        signal.signal()
        signal.wait()
        #expect(!signal.wait(for: .milliseconds(1)))
        signal.signal()
        #expect(signal.wait(for: .seconds(60)))
    }

    @Test("a signalled descriptor is readable until it is reset, however often it was signalled")
    func wakeDescriptor() throws {
        let wake = try WakeDescriptor()
        func isReadable() -> Bool {
            var entry = pollfd(fd: wake.descriptor, events: Int16(POLLIN), revents: 0)
            return poll(&entry, 1, 0) == 1
        }
        #expect(!isReadable())
        wake.signal()
        wake.signal()
        #expect(isReadable())
        wake.reset()
        #expect(!isReadable())
        wake.signal()
        // Returns at once, and takes the signal back.
        wake.sleep(until: .now + .seconds(170))
        #expect(!isReadable())
        wake.sleep(until: .now + .milliseconds(1))
    }

    @Test("whoever asks for a thread's end after it returns at once, whoever asked before when it comes")
    func threadEnd() async throws {
        final class Ended: Sendable {
            let count = Atomic(0)
        }
        let end = ThreadEnd()
        let ended = Ended()
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<3 {
                group.addTask {
                    await end.wait()
                    ended.count.add(1, ordering: .relaxed)
                }
            }
            #expect(ended.count.load(ordering: .relaxed) == 0)
            end.reached()
        }
        #expect(ended.count.load(ordering: .relaxed) == 3)
        await end.wait()
    }

    @Test("an actor's jobs run one after the other on the executor's thread")
    func executor() async throws {
        actor Counter {
            let executor: ThreadExecutor
            var count = 0
            var threads: Set<UInt> = []
            nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

            init(_ executor: ThreadExecutor) { self.executor = executor }

            func add() {
                count += 1
                threads.insert(UInt(pthread_self()))
            }
        }
        let counter = Counter(try ThreadExecutor(name: "executor"))
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<100 { group.addTask { await counter.add() } }
        }
        #expect(await counter.count == 100)
        #expect(await counter.threads.count == 1)
    }

    // MARK: The monitor

    @Test("who waits is woken by an update that gives what is wanted, and by no other")
    func monitorWakes() async {
        let monitor = AsyncMonitor(0)
        let waiter = Task { await monitor.wait(until: .now + .seconds(120)) { $0 >= 2 ? $0 : nil } }
        monitor.update { $0 = 1 }
        monitor.update { $0 = 2 }
        #expect(await waiter.value == 2)
    }

    @Test("a wait ends at its deadline, and with its task")
    func monitorEnds() async {
        let monitor = AsyncMonitor(0)
        #expect(await monitor.wait(until: .now + .milliseconds(5)) { $0 > 0 ? $0 : nil } == nil)
        let waiter = Task { await monitor.wait(until: .now + .seconds(120)) { $0 > 0 ? $0 : nil } }
        waiter.cancel()
        #expect(await waiter.value == nil)
        monitor.withLock { $0 = 3 }
        #expect(await monitor.wait(until: .now) { $0 > 0 ? $0 : nil } == 3)
    }

    @Test("a failure is thrown as the caller's own error")
    func translation() {
        struct Own: Error, Equatable { var text: String }
        let failure = #expect(throws: Own.self) {
            try ThreadUnavailable.translated(by: { Own(text: $0.description) }) { () throws(ThreadUnavailable) in
                throw ThreadUnavailable("no thread could be started", 11)
            }
        }
        #expect(failure?.text == "no thread could be started (error 11)")
    }
}
