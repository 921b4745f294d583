import Logging
import NIOPosix
import PostgresClient
import PrivateServers
import ServerKit
import Synchronization
import Testing

@testable import OrderServer

@Suite("Recovery", .serialized, .timeLimit(.minutes(10)))
struct RecoveryTests {
    /// Puts an order into the database as a server leaves it that died.
    private func leave(_ bed: TestBed, _ id: Int64, status: String, cancelling: Bool = false, old: Bool = true) async throws {
        _ = try await bed.pool.query(
            """
            insert into orders (id, product_id, quantity, status, cancel_requested_at, created_at, updated_at)
            select $1, 1, 3, $2, case when $3 then now() end, t, t from (select now() - case when $4 then '1 hour' else '0' end::interval as t) as t
            """,
            [.int(id), .text(status), .bool(cancelling), .bool(old)]
        )
    }

    @Test("an order whose decrement was done, or not, or refused before a crash is settled by its own key")
    func settles() async throws {
        try await TestBed.run(servers: 2, stock: [1: 3], settings: ["RECOVERY_AGE": "2s", "ORDER_DEADLINE": "1s"]) { bed in
            // Done for 5000 and not told; never asked for 5001, which finds nothing left.
            bed.product.state.withLock { state in
                state.taken["DEC-5000"] = 3
                state.stock[1] = 0
            }
            try await leave(bed, 5000, status: "PENDING", old: false)
            try await leave(bed, 5001, status: "PENDING", old: false)
            try await bed.wait("select count(*) from orders where status = 'PENDING'", for: 0)
            #expect(try await bed.count("select count(*) from orders where id = 5000 and status = 'CONFIRMED'") == 1)
            #expect(
                try await bed.count(
                    "select count(*) from orders where id = 5001 and status = 'FAILED' and fail_reason = 'INSUFFICIENT_STOCK'"
                ) == 1
            )
            #expect(bed.product.seen.allSatisfy { !$0.hasSuffix(" 1") }, "a repeat says that it is one")
            try await bed.wait("select count(*) from saga_work", for: 0)
        }
    }

    @Test("orders left before the server started are found at its start")
    func atStart() async throws {
        try await TestBed.run(servers: 1) { bed in
            await bed.servers[0].stop()
            _ = try await bed.pool.query("update recovery_mark set collected_until = '-infinity'")
            for id in 6000..<6300 { try await leave(bed, Int64(id), status: "PENDING") }
            bed.product.state.withLock { $0.stock[1] = 900 }
            let later = try await bed.start(["RECOVERY_BATCH": "64"])
            try await bed.wait("select count(*) from orders where status = 'CONFIRMED'", for: 300)
            #expect(bed.product.stock(1) == 0)
            await later.stop()
        }
    }

    @Test("a recovery mark ahead of the clock, or none at all, hides no order", arguments: [true, false])
    func oddMark(isAhead: Bool) async throws {
        try await TestBed.run(settings: ["RECOVERY_AGE": "1s", "ORDER_DEADLINE": "500ms"]) { bed in
            let change = isAhead ? "update recovery_mark set collected_until = now() + interval '1 day'" : "delete from recovery_mark"
            _ = try await bed.pool.query(change)
            try await leave(bed, 5000, status: "PENDING", old: false)
            try await bed.wait("select count(*) from orders where id = 5000 and status = 'CONFIRMED'", for: 1)
            let mark = "select count(*) from recovery_mark where collected_until between now() - interval '1 hour' and now()"
            try await bed.wait(mark, for: 1)
        }
    }

    @Test("an order whose commit took longer than the mark waits is found when it is there")
    func lateCommit() async throws {
        try await TestBed.run(settings: ["RECOVERY_AGE": "1s", "ORDER_DEADLINE": "500ms"]) { bed in
            // A server's insert, whose commit hangs, and whose server dies.
            var configuration = try PostgresConfiguration.patient(bed.databaseURL)
            configuration.applicationName = "stockgate-order-groups"
            let late = try PostgresConnection(configuration: configuration)
            let insert = """
                with made as (insert into orders (id, product_id, quantity, status) values (5000, 1, 3, 'PENDING') returning 1)
                select pg_sleep(12) from made
                """
            async let committed = late.query(insert, [])
            let old = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and now() - xact_start > interval '8 s'"
            try await bed.wait(old, for: 1)
            // Meanwhile others are found as always.
            try await leave(bed, 5001, status: "PENDING", old: false)
            try await bed.wait("select count(*) from orders where id = 5001 and status = 'CONFIRMED'", for: 1)
            _ = try await committed
            try await bed.wait("select count(*) from orders where id = 5000 and status = 'CONFIRMED'", for: 1)
            #expect(bed.product.stock(1) == 94)
            await late.close()
        }
    }

    @Test("a cancellation that a crash cut off is completed")
    func cancellation() async throws {
        try await TestBed.run { bed in
            bed.product.state.withLock { state in
                state.taken["DEC-5000"] = 3
                state.stock[1] = 0
            }
            try await leave(bed, 5000, status: "CONFIRMED", cancelling: true)
            _ = try await bed.pool.query("insert into saga_work (order_id, due_at) values (5000, now()) on conflict do nothing")
            try await bed.wait("select count(*) from orders where status = 'CANCELLED'", for: 1)
            #expect(bed.product.stock(1) == 3)
        }
    }

    @Test("a success that comes after the order has failed is given back")
    func lateSuccess() async throws {
        // The bed's own server has to leave the order alone: it is younger than what that server settles.
        try await TestBed.run(settings: ["RECOVERY_AGE": "3600s"]) { bed in
            var reader = SettingsReader(environment: [
                "ORDER_DATABASE_URL": bed.databaseURL, "PRODUCT_INTERNAL_URL": bed.product.url, "PRODUCT_TIMEOUT": "20s",
            ])
            let settings = try OrderServerConfiguration(from: &reader)
            let parts = try OrderServerParts(settings, group: .singleton, logger: Logger(label: "test"))
            // Somebody has failed the order while this server's call was out.
            try await leave(bed, 5000, status: "PENDING", old: false)
            guard let order = try await parts.flows.conclusion.store.order(id: 5000) else { throw TestBed.Failure(description: "no order") }
            _ = try await bed.pool.query("update orders set status = 'FAILED', fail_reason = 'INSUFFICIENT_STOCK' where id = 5000")
            #expect(await parts.recovery.recover(OrderStore.Work(order: order, attempt: 2)))
            #expect(bed.product.seen == ["OUT DEC-5000 2", "IN INC-5000 1"])
            #expect(bed.product.stock(1) == 100)
            #expect(try await bed.count("select count(*) from orders where status = 'FAILED'") == 1)
            await parts.stores.shutdown()
        }
    }

    @Test("several servers share the list: every entry is settled, none is claimed by two")
    func shared() async throws {
        try await TestBed.run(servers: 3, stock: [1: 3_000], settings: ["RECOVERY_BATCH": "16"]) { bed in
            for id in 7000..<7200 {
                try await leave(bed, Int64(id), status: "PENDING", old: false)
            }
            _ = try await bed.pool.query("insert into saga_work (order_id, due_at) select id, now() from orders on conflict do nothing")
            try await bed.wait("select count(*) from orders where status = 'CONFIRMED'", for: 200)
            #expect(bed.product.stock(1) == 3_000 - 600)
            #expect(Set(bed.product.seen).count == bed.product.seen.count, "each key was sent once")
        }
    }

    @Test("a server that is stopped in the middle leaves nothing that another does not settle")
    func endsInTheMiddle() async throws {
        try await TestBed.run(
            servers: 2,
            stock: [1: 1_000],
            settings: ["RECOVERY_AGE": "1500ms", "ORDER_DEADLINE": "1s", "PRODUCT_TIMEOUT": "800ms"]
        ) { bed in
            let orders = Task {
                await withTaskGroup(of: Void.self) { group in
                    for _ in 0..<300 { group.addTask { _ = try? await bed.place(1) } }
                }
            }
            try await bed.wait("select count(*) from (select from orders limit 1) as o", for: 1)
            await bed.servers[0].stop()
            await orders.value
            try await bed.wait("select count(*) from orders where status = 'PENDING'", for: 0, within: .seconds(240))
            let confirmed = try await bed.count("select count(*) from orders where status = 'CONFIRMED'")
            #expect(confirmed == 1_000 - bed.product.stock(1))
        }
    }
}
