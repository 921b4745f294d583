import Eventually
import PrivateServers
import Testing

@testable import PostgresClient

/// A primary whose commits wait for its standby, with a table `t (n bigint primary key)` and a role `plain` that may read and write it.
struct SynchronousPair {
    let primary: PrivatePostgres
    let standby: PrivatePostgres
    /// A session of the superuser.
    let admin: PostgresSession

    /// The primary's address for the role `plain`.
    var plainURL: String { "postgresql://plain@127.0.0.1:\(primary.port)/postgres" }

    static func start() async throws -> SynchronousPair {
        let primary = try PrivatePostgres.start(fsync: false)
        do {
            let standby = try PrivatePostgres.startStandby(of: primary, name: "second")
            let admin = PostgresSession(configuration: try PostgresConfiguration(url: primary.url))
            try admin.execute(script: "create table t (n bigint primary key); create role plain login; grant select, insert on t to plain")
            try admin.execute(script: "alter system set synchronous_standby_names = 'second'")
            _ = try admin.query("select pg_reload_conf()")
            #expect(try await eventually { try admin.query("select from pg_stat_replication where sync_state = 'sync'").count == 1 })
            // Commits wait once the checkpointer has read the setting, which it has done when it has taken a checkpoint.
            try admin.execute(script: "checkpoint")
            return SynchronousPair(primary: primary, standby: standby, admin: admin)
        } catch {
            primary.stop()
            throw error
        }
    }

    func stop() {
        standby.stop()
        primary.stop()
    }
}
