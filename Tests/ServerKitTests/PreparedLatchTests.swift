import Eventually
import Synchronization
import Testing

@testable import ServerKit

@Suite("The latch of a prepared server", .timeLimit(.minutes(1)))
struct PreparedLatchTests {
    /// Begins so many waits; returns when all of them wait.
    private func begin(_ count: Int, _ latch: PreparedLatch, _ passed: Atomic<Int>.Box) async throws -> [Task<Void, Never>] {
        let tasks = (0..<count).map { _ in
            Task {
                await latch.wait()
                passed.count.wrappingAdd(1, ordering: .sequentiallyConsistent)
            }
        }
        try await eventually("\(count) wait, and not \(latch.waiting)", every: .milliseconds(1)) { latch.waiting == count }
        return tasks
    }

    @Test("everybody waits until it opens, and nobody after that")
    func opens() async throws {
        let (latch, passed) = (PreparedLatch(), Atomic<Int>.Box())
        let tasks = try await self.begin(5, latch, passed)
        #expect(passed.value == 0)
        latch.open()
        for task in tasks { await task.value }
        #expect(passed.value == 5)
        await latch.wait()
        latch.open()
        await latch.wait()
        #expect(latch.waiting == 0)
    }

    @Test("whoever is cancelled passes alone, the others go on waiting")
    func cancelled() async throws {
        let (latch, passed) = (PreparedLatch(), Atomic<Int>.Box())
        let tasks = try await begin(3, latch, passed)
        tasks[1].cancel()
        await tasks[1].value
        #expect(passed.value == 1)
        #expect(latch.waiting == 2)
        latch.open()
        for task in tasks { await task.value }
        #expect(passed.value == 3)
    }

    @Test("whoever was cancelled before he came does not wait")
    func cancelledBefore() async {
        let latch = PreparedLatch()
        let task = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            await latch.wait()
        }
        await task.value
        #expect(latch.waiting == 0)
    }

    @Test("a cancellation and the opening at the same time resume each once")
    func race() async {
        for _ in 0..<500 {
            let latch = PreparedLatch()
            let task = Task { await latch.wait() }
            async let opening: Void = latch.open()
            task.cancel()
            await opening
            await task.value
            #expect(latch.waiting == 0)
        }
    }
}

extension Atomic<Int> {
    /// Shared by the tasks of one test.
    final class Box: Sendable {
        let count = Atomic<Int>(0)
        var value: Int { count.load(ordering: .sequentiallyConsistent) }
    }
}
