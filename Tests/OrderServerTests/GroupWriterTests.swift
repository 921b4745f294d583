import BlockingThreads
import PostgresClient
import PrivateServers
import Synchronization
import Testing

@testable import OrderServer

/// The groups that a writer makes. Nothing is written: a session connects at its first statement.
@Suite("Group writer")
struct GroupWriterTests {
    private final class Groups: Sendable {
        let sizes = Mutex<[Int]>([])
        /// The first group is held until then.
        let release = WakeSignal()
    }

    private func writer(_ groups: Groups, _ gathering: GroupWriter<Int>.Gathering?) throws -> GroupWriter<Int> {
        try GroupWriter(
            configuration: PostgresConfiguration(url: "postgresql://127.0.0.1:1/none"),
            name: "test",
            maximumQueued: 100,
            maximumBatch: 100,
            gathering: gathering
        ) { _, items in
            let isFirst = groups.sizes.withLock { sizes in
                sizes.append(items.count)
                return sizes.count == 1
            }
            if isFirst { groups.release.wait() }
        }
    }

    private func waits(for expected: [Int], _ groups: Groups) async throws -> Bool {
        let deadline = ContinuousClock.now + .seconds(60)
        while ContinuousClock.now < deadline {
            if groups.sizes.withLock({ $0 == expected }) { return true }
            try await Task.sleep(for: .milliseconds(1))
        }
        return false
    }

    @Test("a few that came while a group was written wait for enough, one that comes to a writer at rest does not")
    func gathersUntilEnough() async throws {
        let groups = Groups()
        let writer = try self.writer(groups, .init(enough: 4, time: .seconds(60)) { _ in true })
        #expect(writer.add(1))
        #expect(try await self.waits(for: [1], groups))
        #expect(writer.add(2))
        groups.release.signal()
        for item in 3...5 { #expect(writer.add(item)) }
        #expect(try await self.waits(for: [1, 4], groups))
        await writer.shutdown()
    }

    @Test("the wait has an end")
    func gathersForATime() async throws {
        let groups = Groups()
        let writer = try self.writer(groups, .init(enough: 4, time: .milliseconds(5)) { _ in true })
        #expect(writer.add(1))
        #expect(try await self.waits(for: [1], groups))
        #expect(writer.add(2))
        groups.release.signal()
        #expect(try await self.waits(for: [1, 1], groups))
        await writer.shutdown()
    }

    @Test("what does not follow such a group goes at once")
    func gathersOnlyWhereItIsWorthIt() async throws {
        let groups = Groups()
        let writer = try self.writer(groups, .init(enough: 4, time: .seconds(60)) { $0.contains(9) })
        #expect(writer.add(1))
        #expect(try await self.waits(for: [1], groups))
        #expect(writer.add(2))
        groups.release.signal()
        #expect(try await self.waits(for: [1, 1], groups))
        await writer.shutdown()
    }
}
