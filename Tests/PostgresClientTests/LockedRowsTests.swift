import Eventually
import PrivateServers
import Synchronization
import Testing

@testable import PostgresClient

@Suite struct LockedRowsTests {
    private let start = ContinuousClock.now

    private func at(_ milliseconds: Int) -> ContinuousClock.Instant { start + .milliseconds(milliseconds) }

    @Test func machineKeepsWaitersWithinItsBounds() {
        var machine = LockedRowsMachine<String>(maximumRows: 2, maximumWaitingForOne: 2, maximumWaiting: 3)
        #expect(machine.arrived("early", for: 1, until: at(10), at: at(0)) == .notLocked)
        machine.found([1, 2], at: at(0))
        machine.found([1, 3], at: at(5))
        #expect(machine.locked.sorted() == [1, 2])
        #expect(!machine.isLocked(3))
        #expect(machine.arrived("a", for: 1, until: at(10), at: at(0)) == .waiting)
        #expect(machine.arrived("b", for: 1, until: at(20), at: at(0)) == .waiting)
        #expect(machine.arrived("c", for: 1, until: at(20), at: at(0)) == .refused)
        #expect(machine.arrived("d", for: 2, until: at(20), at: at(0)) == .waiting)
        #expect(machine.arrived("e", for: 2, until: at(20), at: at(0)) == .refused)
        #expect(machine.waiting == 3)
        #expect(machine.refused == 2)
        #expect(machine.arrived("late", for: 1, until: at(30), at: at(30)) == .tooLate)
        #expect(machine.found == 2)
    }

    @Test func machineHandsOutEachWaiterOnce() {
        var machine = LockedRowsMachine<String>(maximumRows: 9, maximumWaitingForOne: 9, maximumWaiting: 9)
        machine.found([1, 2], at: at(0))
        for (waiter, row, until) in [("a", 1, 10), ("b", 1, 30), ("c", 2, 20)] {
            #expect(machine.arrived(waiter, for: Int64(row), until: at(until), at: at(0)) == .waiting)
        }
        #expect(machine.expired(at: at(10)) == ["a"])
        #expect(machine.expired(at: at(10)).isEmpty)
        #expect(machine.freed([1, 7], at: at(15)).waiters == ["b"])
        #expect(!machine.isLocked(1))
        #expect(machine.waiting == 1)
        #expect(machine.forgetAll() == ["c"])
        #expect(machine.isEmpty)
        #expect(machine.waiting == 0)
        #expect(machine.expired(at: at(100)).isEmpty)
        #expect(machine.timedOut == 1)
    }

    @Test func machineLetsTheHastyWaitForAYoungLockAlone() {
        var machine = LockedRowsMachine<String>(maximumRows: 9, maximumWaitingForOne: 9, maximumWaiting: 9)
        machine.found([1], at: at(0))
        #expect(machine.arrived("young", for: 1, until: at(1000), grace: .milliseconds(100), at: at(50)) == .waiting)
        // Nobody has looked for a while: that says nothing of the row.
        #expect(machine.arrived("unproven", for: 1, until: at(1000), grace: .milliseconds(100), at: at(300)) == .waiting)
        machine.seenLocked([1, 7], at: at(99))
        machine.seenLocked([1], at: at(20))
        #expect(machine.expired(at: at(300)).isEmpty)
        machine.seenLocked([1], at: at(100))
        #expect(machine.arrived("old", for: 1, until: at(1000), grace: .milliseconds(100), at: at(300)) == .tooLate)
        #expect(machine.arrived("patient", for: 1, until: at(1000), at: at(300)) == .waiting)
        #expect(machine.expired(at: at(300)) == ["young", "unproven"])
        #expect(machine.freed([1], at: at(400)).waiters == ["patient"])
        // The hasty one's own time counts, too.
        machine.found([2], at: at(0))
        #expect(machine.arrived("short", for: 2, until: at(10), grace: .milliseconds(100), at: at(0)) == .waiting)
        #expect(machine.expired(at: at(10)) == ["short"])
    }

    @Test func machineGivesEveryRowItsTurnAndAnnouncesItOnce() {
        var machine = LockedRowsMachine<String>(maximumRows: 9, maximumWaitingForOne: 9, maximumWaiting: 9)
        #expect(machine.nextTurn() == nil)
        machine.found([5], at: at(0))
        machine.found([6], at: at(500))
        #expect((0..<4).map { _ in machine.nextTurn() } == [5, 6, 5, 6])
        machine.seenLocked([5, 6], at: at(999))
        #expect(machine.toAnnounce(after: .seconds(1)).isEmpty)
        machine.seenLocked([5, 6], at: at(1000))
        #expect(machine.toAnnounce(after: .seconds(1)) == [5])
        machine.seenLocked([5], at: at(1001))
        #expect(machine.toAnnounce(after: .seconds(1)).isEmpty)
        let freed = machine.freed([5, 6], at: at(1200))
        #expect(freed.announced.map(\.row) == [5])
        #expect(freed.announced.map(\.after) == [.milliseconds(1200)])
    }

    /// What the watch told, in its order.
    private final class Endings: Sendable {
        let all = Mutex<[LockedRows.Ending]>([])
        func waiter() -> LockedRows.Waiter { { ending in self.all.withLock { $0.append(ending) } } }
        var told: [LockedRows.Ending] { all.withLock { $0 } }
    }

    @Test func aWatchedRowIsFoundFreeAndItsWaitersAreCalled() async throws {
        let configuration = try SharedServer.configuration()
        let pool = PostgresPool(configuration: configuration, maximumConnections: 1)
        _ = try await pool.query("create table watched (id bigint primary key)")
        _ = try await pool.query("insert into watched select generate_series(1, 5)")
        let changes = Mutex<[String]>([])
        let rows = try LockedRows(configuration: configuration, table: "watched", id: "id") { change in
            switch change {
            case .locked(let ids): changes.withLock { $0.append("locked \(ids.sorted())") }
            case .freed(let id, _): changes.withLock { $0.append("freed \(id)") }
            }
        }
        let worker = try PostgresWorker(configuration: configuration)
        func locked(_ ids: [Int64]) async throws -> Set<Int64> { try await worker.perform { try rows.locked(among: ids, $0) } }
        let first = try await RowLock(url: SharedServer.url(), "select 1 from watched where id in (2, 4) for update")
        let second = try await RowLock(url: SharedServer.url(), "select 1 from watched where id = 5 for share")
        #expect(try await locked([1, 2, 3, 4, 5, 99]) == [2, 4, 5])
        // Asking has left nothing locked.
        #expect(try await locked([1, 3]) == [])

        rows.found([2, 4, 5])
        let two = Endings()
        let five = Endings()
        let hasty = Endings()
        let now = ContinuousClock.now
        #expect(rows.wait(for: 2, until: now + .seconds(600), two.waiter()) == .waiting)
        #expect(rows.wait(for: 5, until: now + .seconds(600), five.waiter()) == .waiting)
        #expect(rows.wait(for: 2, until: .now + .seconds(2), hasty.waiter()) == .waiting)
        #expect(rows.wait(for: 2, until: now, hasty.waiter()) == .tooLate)
        #expect(rows.wait(for: 1, until: now + .seconds(600), hasty.waiter()) == .notLocked)
        #expect(try await eventually { hasty.told == [.timedOut] })
        #expect(try await eventually { changes.withLock { $0 } == ["locked [2, 4, 5]"] })
        await second.end()
        #expect(try await eventually { five.told == [.free] })
        #expect(two.told.isEmpty)
        #expect(rows.isLocked(2) && rows.isLocked(4) && !rows.isLocked(5))
        await first.end()
        #expect(try await eventually { two.told == [.free] && rows.isEmpty })
        // The waiters are called before the operator is told.
        #expect(try await eventually { changes.withLock { $0.count } >= 4 })
        #expect(changes.withLock { $0.sorted() } == ["freed 2", "freed 4", "freed 5", "locked [2, 4, 5]"])
        #expect(hasty.told == [.timedOut])

        // And once more: the watch has slept meanwhile.
        let third = try await RowLock(url: SharedServer.url(), "select 1 from watched where id = 1 for update")
        rows.found([1])
        let one = Endings()
        #expect(rows.wait(for: 1, until: .now + .seconds(600), one.waiter()) == .waiting)
        await rows.shutdown()
        #expect(one.told == [.shutDown])
        #expect(rows.wait(for: 1, until: .now + .seconds(1), one.waiter()) == .notLocked)
        await third.end()
        await worker.shutdown()
        await pool.shutdown()
    }

    @Test func waitersAreToldWhenTheDatabaseGoesAway() async throws {
        let server = try PrivatePostgres.start(fsync: false)
        defer { server.stop() }
        let configuration = try PostgresConfiguration(url: server.url)
        let pool = PostgresPool(configuration: configuration, maximumConnections: 1)
        _ = try await pool.query("create table watched (id bigint primary key)")
        _ = try await pool.query("insert into watched values (1)")
        let rows = try LockedRows(configuration: configuration, table: "watched", id: "id")
        let lock = try await RowLock(url: server.url, "select 1 from watched where id = 1 for update")
        rows.found([1])
        let endings = Endings()
        #expect(rows.wait(for: 1, until: .now + .seconds(600), endings.waiter()) == .waiting)
        server.kill()
        #expect(try await eventually { !endings.told.isEmpty })
        #expect(endings.told == [.timedOut])
        #expect(rows.isEmpty)
        await lock.end()
        await rows.shutdown()
        await pool.shutdown()
    }
}
