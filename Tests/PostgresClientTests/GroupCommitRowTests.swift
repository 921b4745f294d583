import Eventually
import PostgresClient
import PrivateServers
import Testing

/// Members of locked rows, over a real server.
@Suite("Group commit: locked rows", .serialized, .timeLimit(.minutes(3)))
struct GroupCommitRowTests {
    private struct Member: RowMember {
        var row: Int64
        var grace: Duration?
        var waitsUntil: ContinuousClock.Instant?
        var done: @Sendable (GroupFailure?) -> Void
    }

    /// Adds one to each member's row, in one statement.
    private func group(_ table: StaticString, patience: Duration) throws -> (group: GroupCommit<Member>, rows: LockedRows) {
        var configuration = try SharedServer.configuration()
        let rows = try LockedRows(configuration: configuration, table: table, id: "id")
        configuration.lockTimeout = GroupWrite.rowWait
        let group = GroupCommit<Member>(
            worker: try PostgresWorker(configuration: configuration, name: "group"),
            capacity: 100,
            maximumBatch: 100,
            rowWaits: .init(rows: rows, patience: patience, comesBackExempt: true)
        ) { group, session, members in
            GroupWrite.run(members, patience: patience) { (part) throws(PostgresError) in
                _ = try session.query("update \(table) set n = n + 1 where id = any($1)", [.ints(part.map(\.row))])
                for member in part { member.done(nil) }
            } putOut: { part in
                (try? group.putOut(of: part, session)) ?? nil
            } fail: { part, _ in
                for member in part { member.done(.stopped) }
            }
        } fail: { members, why in
            for member in members { member.done(why) }
        }
        return (group, rows)
    }

    private func add(_ row: Int64, _ group: GroupCommit<Member>, grace: Duration? = nil) async -> GroupFailure? {
        await withCheckedContinuation { continuation in
            group.addOrWait(Member(row: row, grace: grace) { continuation.resume(returning: $0) })
        }
    }

    @Test("the member of a locked row waits apart and comes back when it is free; the others are written meanwhile")
    func comesBack() async throws {
        let pool = PostgresPool(configuration: try SharedServer.configuration(), maximumConnections: 1)
        _ = try await pool.query("create table group_rows_back (id bigint primary key, n bigint not null default 0)")
        _ = try await pool.query("insert into group_rows_back select g from generate_series(1, 10) g")
        let (group, rows) = try self.group("group_rows_back", patience: .seconds(120))
        let lock = try await RowLock(url: SharedServer.url(), "select 1 from group_rows_back where id = 3 for update")
        let stuck = Task { await add(3, group) }
        let others = await withTaskGroup(of: GroupFailure?.self) { tasks in
            for row in 4...10 { tasks.addTask { await add(Int64(row), group) } }
            return await tasks.reduce(into: []) { $0.append($1) }
        }
        #expect(others.allSatisfy { $0 == nil })
        // Known to be locked by now, or soon: whoever is in a hurry is told so once it has been for a while.
        try await eventually("row 3 is known to be locked", every: .milliseconds(1)) { rows.isLocked(3) }
        #expect(await add(3, group, grace: .zero) == .rowLocked)
        await lock.end()
        #expect(await stuck.value == nil)
        #expect(try await pool.query("select sum(n)::bigint from group_rows_back").one().decode(0, as: Int64.self) == 8)
        await group.shutdown()
        await rows.shutdown()
        await pool.shutdown()
    }

    @Test("patience ends, and the watch's end ends the wait")
    func ends() async throws {
        let pool = PostgresPool(configuration: try SharedServer.configuration(), maximumConnections: 1)
        _ = try await pool.query("create table group_rows_end (id bigint primary key, n bigint not null default 0)")
        _ = try await pool.query("insert into group_rows_end select g from generate_series(1, 10) g")
        let lock = try await RowLock(url: SharedServer.url(), "select 1 from group_rows_end where id = 3 for update")
        let (hasty, hastyRows) = try self.group("group_rows_end", patience: .milliseconds(300))
        #expect(await add(3, hasty) == .rowLocked)
        let (group, rows) = try self.group("group_rows_end", patience: .seconds(120))
        let stuck = Task { await add(3, group) }
        try await eventually("one waits for the row", every: .milliseconds(1)) { rows.snapshot().waiting != 0 }
        await rows.shutdown()
        #expect(await stuck.value == .stopped)
        await lock.end()
        for group in [hasty, group] { await group.shutdown() }
        await hastyRows.shutdown()
        #expect(try await pool.query("select sum(n)::bigint from group_rows_end").one().decode(0, as: Int64.self) == 0)
        await pool.shutdown()
    }
}
