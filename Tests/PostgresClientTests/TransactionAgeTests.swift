import Dispatch
import Eventually
import PrivateServers
import Synchronization
import Testing

@testable import PostgresClient

@Suite("Open transactions", .serialized, .timeLimit(.minutes(5)))
struct TransactionAgeTests {
    private func seen(_ transaction: String, _ age: Duration?) -> TransactionAges.Seen {
        .init(transaction: transaction, who: "of \(transaction)", age: age)
    }

    @Test func theOldestIsTheOldestThatIsKnown() {
        var ages = TransactionAges()
        let start = ContinuousClock.now
        #expect(ages.saw([], at: start) == nil)
        var oldest = ages.saw([seen("a", .seconds(3)), seen("b", .seconds(70))], at: start)
        #expect(oldest?.age == .seconds(70) && oldest?.who == "of b")
        // What the server hides counts from the look that met it first.
        #expect(ages.saw([seen("hidden", nil)], at: start + .seconds(10))?.age == .zero)
        oldest = ages.saw([seen("hidden", nil), seen("a", .seconds(20))], at: start + .seconds(40))
        #expect(oldest?.age == .seconds(30) && oldest?.who == "of hidden")
        // Another transaction of the same connection is a new one, and one that was away is forgotten.
        #expect(ages.saw([seen("hidden 2", nil)], at: start + .seconds(50))?.age == .zero)
        #expect(ages.saw([seen("hidden", nil)], at: start + .seconds(60))?.age == .zero)
        // A clock of the server's that goes back makes no age below zero.
        #expect(ages.saw([seen("a", .seconds(-5))], at: start + .seconds(60))?.age == .zero)
    }

    @Test func openTransactionsAreFoundAlsoByARoleThatMayNotWatchThem() async throws {
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        let configuration = try PostgresConfiguration(url: postgres.url)
        let session = PostgresSession(configuration: configuration)
        defer { session.close() }
        _ = try session.query("create role stranger login")
        let owner = PostgresPool(configuration: configuration, maximumConnections: 1)
        let stranger = PostgresPool(
            configuration: try PostgresConfiguration(url: postgres.url.replacing("postgres@", with: "stranger@")),
            maximumConnections: 1
        )
        #expect(try await owner.openTransactions().isEmpty)
        let pid = Mutex("")
        // A transaction that has a snapshot and does nothing.
        let released = DispatchSemaphore(value: 0)
        let (open, isOpen) = AsyncStream.makeStream(of: Void.self)
        var patient = configuration
        patient.idleInTransactionTimeout = .zero
        let holder = PostgresPool(configuration: patient, maximumConnections: 1)
        let holding = Task {
            try await holder.transaction(timeout: .seconds(200)) { transaction in
                try transaction.execute(script: "set transaction isolation level repeatable read")
                pid.withLock { $0 = (try? transaction.query("select pg_backend_pid()::text").one().decode(0, as: String.self)) ?? "" }
                isOpen.yield()
                released.wait()
            }
        }
        for await _ in open { break }
        let began = pid.withLock { $0 }
        let seen = try await owner.openTransactions()
        #expect(seen.count == 1 && seen.first?.who.contains("pid \(began)") == true)
        #expect((seen.first?.age).map { $0 > .zero } == true)
        let hidden = try await stranger.openTransactions()
        #expect(hidden.count == 1 && hidden.first?.age == nil && hidden.first?.who.contains("pid \(began)") == true)
        // The same transaction has the same name at the next look.
        #expect(try await stranger.openTransactions().map(\.transaction) == hidden.map(\.transaction))
        released.signal()
        try await holding.value
        await holder.shutdown()
        #expect(try await eventually { try await stranger.openTransactions().isEmpty })
        await owner.shutdown()
        await stranger.shutdown()
    }
}
