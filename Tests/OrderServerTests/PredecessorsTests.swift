import Eventually
import Logging
import NIOHTTP1
import PostgresClient
import PrivateServers
import ServerKit
import StrictJSON
import Testing

@testable import OrderServer

/// The server that made an order was killed. Whoever asks for the order again need not wait until no living driver could be at work on it.
@Suite("Orders whose server is gone", .serialized, .timeLimit(.minutes(3)))
struct PredecessorsTests {
    private func insert(_ bed: TestBed, key: String) async throws -> Int64 {
        try await bed.pool.query(
            """
            insert into orders (id, product_id, quantity, buyer_id, status, idempotency_key, created_at, updated_at)
            values (nextval('order_ids'), 1, 1, 'u-1', 'PENDING', $1, now(), now()) returning id
            """,
            [.text(key)]
        ).one().decode(0, as: Int64.self)
    }

    @Test("a repeat of an order that a killed server left goes on with it, however young the order is")
    func aKilledServersOrder() async throws {
        // Waiting would end after a minute, which is longer than the test asks for.
        try await TestBed.run(servers: 0) { bed in
            let first = try await bed.start()
            await first.stop()
            let id = try await insert(bed, key: "k-1")
            let server = try await bed.start(["ORDER_DEADLINE": "60s", "RECOVERY_AGE": "900s"])
            let answer = try await TestBed.send(
                server.peer,
                .POST,
                "/orders",
                #"{"productId":1,"quantity":1,"buyerId":"u-1"}"#,
                headers: ["idempotency-key": "k-1"]
            )
            #expect(answer.status == 200 && answer.isReplayed && answer.id == id && answer["status"] == "CONFIRMED", "\(answer)")
            await server.stop()
        }
    }

    @Test("while another server lives, a young order is its own, whoever made it; one that was made after the beginning is this server's")
    func whoIsAlone() async throws {
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        let configuration = try PostgresConfiguration.patient(postgres.url)
        let pool = PostgresPool(configuration: configuration, maximumConnections: 1)
        func now() async throws -> Timestamp {
            Timestamp(try await pool.query("select clock_timestamp()").one().decode(0, as: PostgresTimestamp.self))
        }
        func start() async throws -> Predecessors {
            let server = try Predecessors(
                configuration,
                patience: .seconds(600),
                prepared: PreparedLatch(isOpen: true),
                logger: Logger(label: "test")
            )
            await server.begin()
            return server
        }
        let ofNobody = try await now()
        let first = try await start()
        #expect(first.areGone(since: ofNobody))
        let ofFirst = try await now()
        #expect(!first.areGone(since: ofFirst))

        let second = try await start()
        let run = Task { try await second.run() }
        #expect(!second.areGone(since: ofFirst) && !second.areGone(since: ofNobody))
        let ofSecond = try await now()
        // Its lock goes with its session.
        await first.shutdown()
        #expect(try await eventually { second.areGone(since: ofFirst) })
        #expect(!second.areGone(since: ofSecond))

        // The exclusive lock was given back, and the shared one is held.
        let third = try await start()
        #expect(!third.areGone(since: ofFirst))
        run.cancel()
        try await run.value
        await second.shutdown()
        await third.shutdown()
        await pool.shutdown()
    }

    @Test("behind a pooler a row tells who lives, and the row of a server that was killed ends by itself")
    func whoIsAloneBehindAPooler() async throws {
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        var configuration = try PostgresConfiguration(url: postgres.url)
        try configuration.use(.transaction)
        _ = try await Migrator(configuration: configuration).apply(OrderStore.migrations)
        let pool = PostgresPool(configuration: configuration, maximumConnections: 1)
        func now() async throws -> Timestamp {
            Timestamp(try await pool.query("select clock_timestamp()").one().decode(0, as: PostgresTimestamp.self))
        }
        func leases() async throws -> Set<String> {
            Set(
                try await pool.query("select server from order_server_leases where held_until > now()").map {
                    try $0.decode(0, as: String.self)
                }
            )
        }
        func start() async throws -> Predecessors {
            let server = try Predecessors(
                configuration,
                patience: .seconds(600),
                prepared: PreparedLatch(isOpen: true),
                logger: Logger(label: "test")
            )
            await server.begin()
            return server
        }
        let ofNobody = try await now()
        let first = try await start()
        #expect(first.areGone(since: ofNobody))
        let ofFirst = try await now()
        // Nobody renews it yet: it lasts for as long as this machine takes.
        _ = try await pool.query("update order_server_leases set held_until = now() + interval '1 hour'")
        let firstLease = try await leases()
        #expect(firstLease.count == 1)

        let second = try await start()
        let run = Task { try await second.run() }
        #expect(!second.areGone(since: ofFirst) && !second.areGone(since: ofNobody))
        let ofSecond = try await now()
        #expect(try await eventually { try await leases().count == 2 })
        // Killed, its lease would end by itself after 15 s; the test lets the time pass at once.
        _ = try await pool.query(
            "update order_server_leases set held_until = now() - interval '1 s' where server = any($1)",
            [.texts(Array(firstLease))]
        )
        #expect(try await eventually { second.areGone(since: ofFirst) })
        #expect(!second.areGone(since: ofSecond))
        // It was taken for gone and lives: it shows itself again, and lets go at its end.
        let running = Task { try await first.run() }
        #expect(try await eventually { try await leases().count == 2 })
        running.cancel()
        try await running.value
        await first.shutdown()
        // The second one renews its own.
        #expect(try await eventually { try await leases().count == 1 })
        #expect(try await leases().isDisjoint(with: firstLease))
        run.cancel()
        try await run.value
        await second.shutdown()
        #expect(try await leases().isEmpty)
        await pool.shutdown()
    }
}
