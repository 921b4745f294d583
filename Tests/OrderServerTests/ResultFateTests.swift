import MessageBroker
import PostgresClient
import PrivateServers
import ServerKit
import Synchronization
import Testing

@testable import OrderServer

/// Results come in batches, and share nothing but the statement: what one of them meets with is its own.
extension OutboxTests {
    private func accepted(_ bed: TestBed, _ count: Int) async throws -> [Int64] {
        var ids: [Int64] = []
        for _ in 0..<count { ids.append(try id(try await accept(bed, 1))) }
        return ids
    }

    @Test("a result that the database refuses goes to the dead letters alone; those beside it are written, and nothing comes again")
    func refusedByTheDatabase() async throws {
        try await run { bed, publisher, results in
            let ids = try await accepted(bed, 6)
            _ = try await bed.pool.query(
                """
                create function refuse() returns trigger language plpgsql as $$ begin
                    if new.id = \(ids[2]) then raise exception 'not this one' using errcode = 'check_violation'; end if;
                    return new;
                end $$
                """
            )
            _ = try await bed.pool.query("create trigger refuse before update on orders for each row execute function refuse()")
            for id in ids { results.put(result("COMMITTED", id)) }
            try await results.waitUntilAcknowledged(6)
            #expect(try await bed.count("select count(*) from orders where status = 'CONFIRMED'") == 5)
            #expect(try await bed.count("select count(*) from orders where status = 'PENDING' and id = \(ids[2])") == 1)
            let letters = publisher.sent.filter { $0.exchange == "stock.dead" }
            #expect(letters.map { $0.headers["reason"] } == ["NOT_WRITTEN"])
            #expect(letters.first.map { String(decoding: $0.body, as: UTF8.self) } == result("COMMITTED", ids[2]))
            #expect(results.requeued == 0)
            // It leaves its place aside behind its acknowledgement.
            try await bed.wait(metric: "stockgate_order_results_poison_total 1")
            try await bed.wait(metric: "stockgate_order_results_aside 0")
        }
    }

    @Test("while one order's row is locked, the results of all others are written; its own follows when the row is free")
    func lockedRow() async throws {
        try await run { bed, publisher, results in
            let ids = try await accepted(bed, 6)
            var configuration = try PostgresConfiguration.patient(bed.databaseURL)
            configuration.applicationName = "holder"
            let holder = try PostgresConnection(configuration: configuration)
            let held = ids[2]
            let holding = Task {
                try? await holder.query("select pg_sleep(90) from (select 1 from orders where id = $1 for update) as held", [.int(held)])
            }
            let sleeping = "select count(*) from pg_stat_activity where application_name = 'holder' and wait_event = 'PgSleep'"
            try await bed.wait(sleeping, for: 1)
            for id in ids.prefix(5) { results.put(result("COMMITTED", id)) }
            try await results.waitUntilAcknowledged(4)
            // And those that come later.
            results.put(result("COMMITTED", ids[5]))
            try await results.waitUntilAcknowledged(5)
            #expect(try await bed.count(sleeping) == 1, "the row is locked all the while")
            #expect(try await bed.count("select count(*) from orders where status = 'CONFIRMED'") == 5)
            try await bed.wait(metric: "stockgate_order_results_aside 1")
            _ = try await bed.pool.query("select pg_cancel_backend(pid) from pg_stat_activity where application_name = 'holder'")
            _ = await holding.value
            try await results.waitUntilAcknowledged(6)
            #expect(try await bed.count("select count(*) from orders where status = 'CONFIRMED' and version = 2") == 6)
            #expect(results.requeued == 0 && !publisher.sent.contains { $0.exchange == "stock.dead" })
            await holder.close()
        }
    }

    @Test("a late success whose stock cannot be given back yet holds up no other result")
    func lateSuccessAside() async throws {
        try await run { bed, _, results in
            let ids = try await accepted(bed, 3)
            // Its first run failed, its second one too; what comes is the success of the first.
            _ = try await bed.pool.query("update orders set run = 2, status = 'FAILED', fail_reason = 'X' where id = \(ids[0])")
            bed.product.state.withLock { state in
                state.taken["DEC-\(ids[0])"] = 1
                state.stock[1] = 99
                state.faults = Array(repeating: .status(503, "UNAVAILABLE"), count: 10_000)
            }
            results.put(result("COMMITTED", ids[0]), result("COMMITTED", ids[1]))
            try await results.waitUntilAcknowledged(1)
            results.put(result("COMMITTED", ids[2]))
            try await results.waitUntilAcknowledged(2)
            #expect(try await bed.count("select count(*) from orders where status = 'CONFIRMED'") == 2)
            #expect(bed.product.stock(1) == 99)
            bed.product.state.withLock { $0.faults = [] }
            try await results.waitUntilAcknowledged(3)
            #expect(bed.product.stock(1) == 100)
            #expect(results.requeued == 0)
        }
    }

    @Test("poison waits aside while the broker does not take its dead letter; nothing is sent back for it")
    func poisonAside() async throws {
        try await run { bed, publisher, results in
            let ids = try await accepted(bed, 2)
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)
            publisher.set { $0.isConnected = false }
            results.put("{", result("COMMITTED", ids[0]), #"{"version":2}"#, result("COMMITTED", ids[1]))
            try await results.waitUntilAcknowledged(2)
            #expect(try await bed.count("select count(*) from orders where status = 'CONFIRMED'") == 2)
            #expect(results.requeued == 0)
            publisher.set { $0.isConnected = true }
            try await results.waitUntilAcknowledged(4)
            #expect(publisher.sent.count { $0.exchange == "stock.dead" } == 2)
        }
    }

    @Test("a message that came back twice is written alone, after those that come for the first time")
    func suspectsAlone() async throws {
        try await run { bed, _, results in
            let ids = try await accepted(bed, 5)
            results.state.withLock { $0.isHeld = true }
            for id in ids.prefix(2) { results.put(result("COMMITTED", id), redelivered: true, headers: ["x-delivery-count": 2]) }
            results.put(result("COMMITTED", ids[2]), redelivered: true, headers: ["x-delivery-count": 1])
            results.put(result("COMMITTED", ids[3]), result("COMMITTED", ids[4]), headers: ["x-delivery-count": .integer(.min)])
            results.state.withLock { $0.isHeld = false }
            try await results.waitUntilAcknowledged(5)
            #expect(results.state.withLock { $0.acknowledgements } == [[3, 4, 5], [1], [2]])
            #expect(try await bed.count("select count(*) from orders where status = 'CONFIRMED'") == 5)
        }
    }
}
