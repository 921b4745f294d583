import BlockingThreads
import Eventually
import Synchronization
import Testing

@testable import PostgresClient

/// Groups that write in turn.
@Suite("Turns of groups", .timeLimit(.minutes(3)))
struct GroupTurnsTests {
    private final class Seen: Sendable {
        let order = Mutex<[Int]>([])
        let inside = Atomic<Int>(0)
        let most = Mutex(0)
        let had = Atomic<Int>(0)
    }

    /// Runs on a thread of its own, since a wait for a turn blocks.
    static func onThread<Value: Sendable>(_ body: @escaping @Sendable () -> Value) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            do {
                try BlockingThread.start(name: "turns") { continuation.resume(returning: body()) }
            } catch {
                continuation.resume(throwing: error)
            }
        }
    }

    @Test("the turn is handed on in the order in which it was asked for, and comes back")
    func handedOn() async throws {
        let turns = GroupTurns(patience: .seconds(60))
        #expect(turns.take(WakeSignal()))
        let seen = Seen()
        for number in 1...3 {
            let asked = turns.waiting
            _ = Task {
                try await Self.onThread {
                    guard turns.take(WakeSignal()) else { return }
                    seen.order.withLock { $0.append(number) }
                    turns.end()
                }
            }
            try await eventually("one more waits", every: .milliseconds(1)) { turns.waiting != asked }
        }
        #expect(seen.order.withLock { $0.isEmpty })
        turns.end()
        try await eventually("three turns", every: .milliseconds(1)) { seen.order.withLock { $0.count } >= 3 }
        #expect(seen.order.withLock { $0 } == [1, 2, 3])
        #expect(try await Self.onThread { turns.take(WakeSignal()) })
    }

    @Test("who waits for too long goes on without the turn, and is not called later")
    func patience() async throws {
        let turns = GroupTurns(patience: .milliseconds(20))
        #expect(turns.take(WakeSignal()))
        let signal = WakeSignal()
        #expect(try await Self.onThread { turns.take(signal) } == false)
        #expect(turns.waiting == 0)
        turns.end()
        #expect(try await Self.onThread { turns.take(signal) })
        turns.end()
        #expect(try await Self.onThread { signal.wait(for: .zero) } == false)
    }

    @Test("at most one has the turn, also where the time of those that wait is over in the same moment")
    func oneAtATime() async throws {
        let turns = GroupTurns(patience: .microseconds(50))
        let seen = Seen()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<3 {
                group.addTask {
                    try await Self.onThread {
                        let signal = WakeSignal()
                        for _ in 0..<3_000 where turns.take(signal) {
                            let count = seen.inside.wrappingAdd(1, ordering: .sequentiallyConsistent).newValue
                            seen.most.withLock { $0 = max($0, count) }
                            seen.had.wrappingAdd(1, ordering: .relaxed)
                            seen.inside.wrappingSubtract(1, ordering: .sequentiallyConsistent)
                            turns.end()
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
        #expect(seen.most.withLock { $0 } == 1)
        #expect(seen.had.load(ordering: .relaxed) > 0)
        #expect(try await Self.onThread { turns.take(WakeSignal()) })
    }
}

extension GroupCommitTests {
    @Test("in a rush a group waits for the turn and gathers meanwhile; behind a small group, and with enough members, it waits for nobody")
    func turns() async throws {
        let turns = GroupTurns(rush: 2, enough: 4, patience: .seconds(60))
        let groups = Groups()
        let group = try self.group(groups, turns: turns, held: 3)
        // Somebody else writes.
        #expect(turns.take(WakeSignal()))
        #expect(group.add(1))
        #expect(try await waits(for: [1], groups))
        for item in 2...3 { #expect(group.add(item)) }
        groups.release.signal()
        // There was no rush.
        #expect(try await waits(for: [1, 2], groups))
        #expect(group.add(4))
        groups.release.signal()
        try await eventually("one waits", every: .milliseconds(1)) { turns.waiting != 0 }
        #expect(group.add(5))
        #expect(groups.sizes.withLock { $0 } == [1, 2])
        turns.end()
        #expect(try await waits(for: [1, 2, 2], groups))
        // The next one is somebody else's again, but enough members wait.
        let other = Task { try await GroupTurnsTests.onThread { turns.take(WakeSignal()) } }
        try await eventually("one waits", every: .milliseconds(1)) { turns.waiting != 0 }
        for item in 6...9 { #expect(group.add(item)) }
        groups.release.signal()
        #expect(try await waits(for: [1, 2, 2, 4], groups))
        #expect(try await other.value)
        await group.shutdown()
    }
}
