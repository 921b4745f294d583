import BlockingThreads
import Eventually
import PostgresClient
import Synchronization
import Testing

/// The groups that are made, and who is refused. Nothing is written: a session connects at its first statement.
@Suite("Group commit", .timeLimit(.minutes(3)))
struct GroupCommitTests {
    final class Groups: Sendable {
        let sizes = Mutex<[Int]>([])
        let taken = Mutex<[Int]>([])
        let failed = Mutex<[(Int, GroupFailure)]>([])
        /// The first groups are held until then, each in its turn.
        let release = WakeSignal()
    }

    func group(
        _ groups: Groups,
        _ gathering: GroupCommit<Int>.Gathering? = nil,
        pace: GroupCommit<Int>.Pace? = nil,
        turns: GroupTurns? = nil,
        held: Int = 1,
        capacity: Int = 100,
        maximumBatch: Int = 100
    ) throws -> GroupCommit<Int> {
        GroupCommit(
            worker: try PostgresWorker(configuration: PostgresConfiguration(url: "postgresql://127.0.0.1:1/none"), name: "test"),
            capacity: capacity,
            maximumBatch: maximumBatch,
            gathering: gathering,
            pace: pace,
            turns: turns
        ) { _, _, items in
            groups.taken.withLock { $0 += items }
            let isHeld = groups.sizes.withLock { sizes in
                sizes.append(items.count)
                return sizes.count <= held
            }
            if isHeld { groups.release.wait() }
        } fail: { items, why in
            groups.failed.withLock { failed in failed += items.map { ($0, why) } }
        }
    }

    func waits(for expected: [Int], _ groups: Groups) async throws -> Bool {
        try await eventually(every: .milliseconds(1)) { groups.sizes.withLock { $0 == expected } }
    }

    func holdsBack(_ group: GroupCommit<Int>) async throws -> Bool {
        try await eventually(every: .milliseconds(1)) { group.isHoldingBack }
    }

    @Test("a few that came while a group was written wait for enough, one that comes to a writer at rest does not")
    func gathersUntilEnough() async throws {
        let groups = Groups()
        let group = try self.group(groups, .init(enough: 4, time: .seconds(60)) { _ in true })
        #expect(group.add(1))
        #expect(try await waits(for: [1], groups))
        #expect(group.add(2))
        groups.release.signal()
        for item in 3...5 { #expect(group.add(item)) }
        #expect(try await waits(for: [1, 4], groups))
        await group.shutdown()
    }

    @Test("the wait has an end")
    func gathersForATime() async throws {
        let groups = Groups()
        let group = try self.group(groups, .init(enough: 4, time: .milliseconds(5)) { _ in true })
        #expect(group.add(1))
        #expect(try await waits(for: [1], groups))
        #expect(group.add(2))
        groups.release.signal()
        #expect(try await waits(for: [1, 1], groups))
        await group.shutdown()
    }

    @Test("what does not follow such a group goes at once")
    func gathersOnlyWhereItIsWorthIt() async throws {
        let groups = Groups()
        let group = try self.group(groups, .init(enough: 4, time: .seconds(60)) { $0.contains(9) })
        #expect(group.add(1))
        #expect(try await waits(for: [1], groups))
        #expect(group.add(2))
        groups.release.signal()
        #expect(try await waits(for: [1, 1], groups))
        await group.shutdown()
    }

    @Test("with a pace: the first goes at once, a few behind it wait for enough, and enough wait for nothing")
    func keepsAPace() async throws {
        let groups = Groups()
        let group = try self.group(groups, pace: .init(interval: .seconds(100), leastPart: 4, rest: .zero) { 4 }, held: 0)
        #expect(group.add(1))
        #expect(try await waits(for: [1], groups))
        for item in 2...4 { #expect(group.add(item)) }
        #expect(try await holdsBack(group))
        #expect(groups.sizes.withLock { $0 } == [1])
        #expect(group.waiting == 3)
        #expect(group.add(5))
        #expect(try await waits(for: [1, 4], groups))
        #expect(groups.taken.withLock { $0 } == Array(1...5))
        await group.shutdown()
    }

    @Test("with a pace: the wait has an end, and one that comes after the interval does not wait")
    func paceEnds() async throws {
        let groups = Groups()
        let group = try self.group(groups, pace: .init(interval: .milliseconds(5), leastPart: 4, rest: .zero) { 4 }, held: 0)
        for item in 1...3 {
            #expect(group.add(item))
            #expect(try await waits(for: Array(repeating: 1, count: item), groups))
            if item == 2 { try await Task.sleep(for: .milliseconds(10)) }
        }
        await group.shutdown()
        #expect(groups.taken.withLock { $0 } == [1, 2, 3])
    }

    @Test("with a pace: a wait that brought enough is repeated")
    func paceGoesOn() async throws {
        let groups = Groups()
        let pace = GroupCommit<Int>.Pace(interval: .seconds(100), leastPart: 1, rest: .seconds(100)) { 2 }
        let group = try self.group(groups, pace: pace, held: 0)
        #expect(group.add(1))
        #expect(try await waits(for: [1], groups))
        for turn in 1...2 {
            #expect(group.add(2))
            #expect(try await holdsBack(group))
            #expect(group.add(3))
            #expect(try await waits(for: [1] + Array(repeating: 2, count: turn), groups))
        }
        await group.shutdown()
    }

    @Test("with a pace: a wait that brought few is not repeated for a while")
    func paceRests() async throws {
        let groups = Groups()
        let pace = GroupCommit<Int>.Pace(interval: .seconds(2), leastPart: 2, rest: .seconds(100)) { 4 }
        let group = try self.group(groups, pace: pace, held: 0)
        #expect(group.add(1))
        #expect(try await waits(for: [1], groups))
        #expect(group.add(2))
        #expect(try await holdsBack(group))
        #expect(try await waits(for: [1, 1], groups))
        // Five that were held back would take ten seconds.
        let began = ContinuousClock.now
        for item in 3...7 {
            #expect(group.add(item))
            #expect(try await waits(for: Array(repeating: 1, count: item), groups))
        }
        #expect(ContinuousClock.now - began < .seconds(9))
        await group.shutdown()
    }

    @Test("with a pace: half of what is under way is enough in a rush, and misses in a row make the rest longer")
    func paceOfHalf() {
        let underWay = Mutex(0)
        let pace = GroupCommit<Int>.Pace.half { underWay.withLock { $0 } }
        for (count, enough) in [(0, 0), (15, 0), (16, 8), (17, 8), (128, 64)] {
            underWay.withLock { $0 = count }
            #expect(pace.enough() == enough, "\(count)")
        }
        #expect([-1, 0, 1, 2, 3, 4, 5, 1_000].map { pace.rest(after: $0) / pace.rest } == [1, 1, 2, 4, 8, 16, 16, 16])
    }

    @Test("with a pace: how many are enough is asked before each group, and none goes at once where few are")
    func paceAsks() async throws {
        let groups = Groups()
        let enough = Mutex(0)
        let pace = GroupCommit<Int>.Pace(interval: .seconds(100), leastPart: 2, rest: .zero) { enough.withLock { $0 } }
        let group = try self.group(groups, pace: pace, held: 0)
        for item in 1...3 {
            #expect(group.add(item))
            #expect(try await waits(for: Array(repeating: 1, count: item), groups))
        }
        enough.withLock { $0 = 3 }
        for item in 4...5 { #expect(group.add(item)) }
        #expect(try await holdsBack(group))
        #expect(group.add(6))
        #expect(try await waits(for: [1, 1, 1, 3], groups))
        await group.shutdown()
    }

    @Test("with a pace: what is held back is written by a shutdown, and failed by a stop")
    func paceAtTheEnd() async throws {
        for stops in [false, true] {
            let groups = Groups()
            let group = try self.group(groups, pace: .init(interval: .milliseconds(200), leastPart: 4, rest: .zero) { 4 }, held: 0)
            #expect(group.add(1))
            #expect(try await waits(for: [1], groups))
            #expect(group.add(2))
            if stops { group.abandon() }
            await group.shutdown()
            #expect(groups.taken.withLock { $0 } == (stops ? [1] : [1, 2]))
            #expect(groups.failed.withLock { $0.map(\.0) } == (stops ? [2] : []))
        }
    }

    @Test("what comes while a group is written goes in batches behind it, and only what comes then is waited for")
    func batches() async throws {
        let groups = Groups()
        // The rest of a round goes at once, though it is fewer than enough.
        let group = try self.group(groups, .init(enough: 3, time: .seconds(60)) { !$0.contains(9) }, maximumBatch: 4)
        #expect(group.add(0))
        #expect(try await waits(for: [1], groups))
        for item in 1...9 { #expect(group.add(item)) }
        #expect(group.waiting == 9)
        groups.release.signal()
        #expect(try await waits(for: [1, 4, 4, 1], groups))
        #expect(groups.taken.withLock { $0 } == Array(0...9))
        #expect(group.waiting == 0)
        await group.shutdown()
    }

    @Test("one more than the capacity fails at once, one that was let in before does not, and the others are written")
    func capacity() async throws {
        let groups = Groups()
        let group = try self.group(groups, capacity: 2)
        #expect(group.add(0))
        #expect(try await waits(for: [1], groups))
        #expect(group.add(1))
        #expect(group.add(2))
        #expect(!group.add(3))
        #expect(group.add(4, isExempt: true))
        #expect(group.refused == 1)
        #expect(groups.failed.withLock { $0.map(\.0) } == [3])
        #expect(groups.failed.withLock { $0.map(\.1) } == [.full])
        groups.release.signal()
        await group.shutdown()
        #expect(groups.taken.withLock { $0 } == [0, 1, 2, 4])
    }

    @Test("a shutdown lets what waits be written; what comes behind it fails at once, and no connection is tried for it")
    func shutdown() async throws {
        let groups = Groups()
        let group = try self.group(groups)
        #expect(group.add(0))
        #expect(try await waits(for: [1], groups))
        #expect(group.add(1))
        groups.release.signal()
        await group.shutdown()
        #expect(groups.taken.withLock { $0 } == [0, 1])
        #expect(groups.failed.withLock { $0.isEmpty })
        // Let in, and failed by the time that `add` returns.
        group.add(2)
        group.add(3)
        #expect(groups.failed.withLock { $0.map(\.0) } == [2, 3])
        #expect(groups.failed.withLock { $0.map(\.1) } == [.stopped, .stopped])
        #expect(groups.taken.withLock { $0 } == [0, 1])
        #expect(group.waiting == 0)
        #expect(GroupFailure.stopped.error.code == .shutDown && !GroupFailure.stopped.error.isOutcomeUnknown)
    }

    @Test("a stop fails what waits and what comes, and leaves what is being written alone")
    func stop() async throws {
        let groups = Groups()
        let group = try self.group(groups)
        #expect(group.add(0))
        #expect(try await waits(for: [1], groups))
        #expect(group.add(1))
        group.abandon()
        #expect(!group.add(2))
        #expect(groups.failed.withLock { $0.map(\.0) } == [1, 2])
        groups.release.signal()
        await group.shutdown()
        #expect(groups.taken.withLock { $0 } == [0])
    }
}
