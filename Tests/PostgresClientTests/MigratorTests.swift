import PostgresClient
import PrivateServers
import Testing

@Suite struct MigratorTests {
    private let migrations = [
        Migration(version: 1, name: "first", sql: "CREATE TABLE @ (n bigint); INSERT INTO @ VALUES (1);"),
        Migration(version: 2, name: "second", sql: "INSERT INTO @ VALUES (2)"),
    ]

    /// The migrations for a table of this test's own.
    private func prepared(_ name: String) throws -> (Migrator, [Migration], PostgresConfiguration) {
        let configuration = try SharedServer.configuration()
        let own = migrations.map {
            Migration(version: $0.version, name: $0.name, sql: $0.sql.split(separator: "@").joined(separator: name))
        }
        return (Migrator(configuration: configuration, table: "\(name)_migrations"), own, configuration)
    }

    @Test func severalAtOnceApplyEachOnce() async throws {
        let (migrator, migrations, configuration) = try prepared("at_once")
        let applied = try await withThrowingTaskGroup(of: [Int].self) { group in
            for _ in 0..<4 { group.addTask { try await migrator.apply(migrations) } }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        #expect(applied.sorted() == [1, 2])
        #expect(try await migrator.apply(migrations) == [])
        let rows = try PostgresSession(configuration: configuration).query("SELECT count(*) FROM at_once")
        #expect(try rows.one().decode(0, as: Int64.self) == 2)
    }

    @Test func changedChecksumIsNamedAndNothingIsApplied() async throws {
        var (migrator, migrations, _) = try prepared("changed")
        _ = try await migrator.apply([migrations[0]])
        migrations[0].sql += " "
        let changed = migrations
        let error = await #expect(throws: MigrationError.self) { try await migrator.apply(changed) }
        #expect(error?.code == .changedChecksum)
        #expect(error?.version == 1)
        #expect(error?.description.contains("first") == true)
    }

    @Test func failingMigrationLeavesNothingBehindAndLateOnesAreRefused() async throws {
        let (migrator, migrations, configuration) = try prepared("failing")
        let broken = Migration(version: 2, name: "broken", sql: "INSERT INTO failing VALUES (7); SELECT 1 / 0")
        let error = await #expect(throws: MigrationError.self) { try await migrator.apply([migrations[0], broken]) }
        #expect(error?.version == 2)
        #expect(error?.cause?.sqlState == "22012")
        #expect(try PostgresSession(configuration: configuration).query("SELECT n FROM failing").count == 1)
        _ = try await migrator.apply([migrations[0], Migration(version: 3, name: "third", sql: "SELECT 1")])
        let late = await #expect(throws: MigrationError.self) { try await migrator.apply(migrations) }
        #expect(late?.code == .outOfOrder)
    }
}
