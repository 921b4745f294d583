import BlockingThreads
import Eventually
import Synchronization
import Testing

@testable import PostgresClient

/// A database that answers questions, and does not do what a session is there for.
@Suite(.serialized, .timeLimit(.minutes(2))) struct WorkTroubleTests {
    private static let made = Atomic(0)

    /// A worker, a table that it writes into, and what was told about it.
    private struct Bed {
        let table = "work_trouble_\(WorkTroubleTests.made.wrappingAdd(1, ordering: .relaxed).newValue)"
        let owner: PostgresConnection
        let worker: PostgresWorker
        let news: News

        init() async throws {
            let configuration = try SharedServer.configuration()
            owner = try PostgresConnection(configuration: configuration)
            _ = try await owner.query("create table \(table) (n bigint primary key)")
            let news = News()
            self.news = news
            worker = try PostgresWorker(configuration: configuration) { trouble, isNews in
                if isNews { news.note(trouble?.sqlState ?? "works") }
            }
        }

        /// Has every insert fail with this SQLSTATE.
        func refuse(_ state: String) async throws {
            try await owner.withSession { session in
                try session.execute(
                    script: """
                        create or replace function \(table)_no() returns trigger language plpgsql as
                        $$ begin raise exception 'scripted refusal' using errcode = '\(state)'; end $$;
                        create or replace trigger no before insert on \(table) for each row execute function \(table)_no();
                        """
                )
            }
        }

        func allow() async throws { _ = try await owner.query("drop trigger no on \(table)") }

        /// Does the work as a group does.
        func insert(_ n: Int64) async throws {
            try await worker.perform { [table] session in
                do throws(PostgresError) {
                    _ = try session.query("insert into \(table) values ($1)", [.int(n)])
                    session.worked()
                } catch {
                    session.workFailed(error)
                }
            }
        }

        func count() async throws -> Int64 { try await owner.query("select count(*) from \(table)").one().decode(0, as: Int64.self) }
    }

    final class News: Sendable {
        private let told = Mutex<[String]>([])
        func note(_ what: String) { told.withLock { $0.append(what) } }
        var all: [String] { told.withLock { $0 } }
    }

    @Test(arguments: ["42501", "42883", "53100"])
    func refusedWorkIsTroubleUntilItIsDone(state: String) async throws {
        let bed = try await Bed()
        try await bed.insert(1)
        #expect(bed.worker.monitor.trouble == nil)
        try await bed.refuse(state)
        for n in 2..<20 {
            try await bed.insert(Int64(n))
            // What succeeds meanwhile is no work.
            try await bed.worker.perform { _ = try $0.query("select 1") }
            #expect(await bed.worker.troubleWriting(within: .seconds(20))?.sqlState == state)
        }
        #expect(bed.news.all == [state], "told once")
        try await bed.allow()
        // Nobody comes: the question itself finds out, and writes nothing.
        #expect(try await eventually(within: .seconds(5)) { await bed.worker.troubleWriting() == nil })
        #expect(bed.news.all == [state, "works"])
        #expect(try await bed.count() == 1)
        try await bed.insert(2)
        #expect(try await bed.count() == 2)
        await bed.worker.shutdown()
    }

    /// A limit that one statement exceeds, or a page that cannot be read, is the statement's own as long as others work.
    @Test(arguments: ["54000", "58030", "XX001"])
    func whatMayBeOneStatementsIsTroubleWhereNothingElseWorks(state: String) async throws {
        let bed = try await Bed()
        let own = PostgresError(code: .server(sqlState: state), message: "its own", sqlState: state)
        for n in 1..<4 {
            try await bed.worker.perform { $0.workFailed(own) }
            try await bed.insert(Int64(n))
        }
        #expect(bed.news.all == [])
        try await bed.refuse(state)
        #expect(
            try await eventually {
                try await bed.insert(100)
                return bed.worker.monitor.trouble?.sqlState == state
            },
            "nothing else comes of it for a while"
        )
        #expect(await bed.worker.troubleWriting(within: .seconds(20))?.sqlState == state)
        try await bed.allow()
        #expect(try await eventually(within: .seconds(5)) { await bed.worker.troubleWriting() == nil })
        #expect(bed.news.all == [state, "works"])
        await bed.worker.shutdown()
    }

    @Test func whatIsNotTheDatabasesIsNoTrouble() async throws {
        let bed = try await Bed()
        try await bed.insert(1)
        for _ in 0..<3 { try await bed.insert(1) }
        #expect(bed.news.all == [] && bed.worker.monitor.trouble == nil)
        await bed.worker.shutdown()
    }
}
