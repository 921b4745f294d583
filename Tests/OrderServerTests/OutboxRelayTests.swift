import Eventually
import MessageBroker
import NIOHTTP1
import PostgresClient
import ServerKit
import StrictJSON
import Synchronization
import Testing

@testable import OrderServer

/// What the relays do with several servers, one of two connections, and at their bounds.
extension OutboxTests {
    /// The orders that a command carries, as it says.
    private func orders(_ command: OutgoingMessage) throws -> [Int64] {
        guard case .array(let orders) = try JSONDocument(command.body).value["orders"] ?? .null else {
            throw TestBed.Failure(description: "no orders")
        }
        return try orders.map {
            guard case .int(let id) = $0["orderId"] ?? .null else { throw TestBed.Failure(description: "no order's id") }
            return id
        }
    }

    private func product(_ command: OutgoingMessage) throws -> Int64 {
        guard case .int(let id) = try JSONDocument(command.body).value["productId"] ?? .null else {
            throw TestBed.Failure(description: "no product's id")
        }
        return id
    }

    private func broker(_ bed: TestBed) async throws -> JSONValue {
        // A check that a busy machine was late with has no dependencies to show.
        try await bed.waitUntilReady("/readyz?verbose")["dependencies"]["broker"] ?? .null
    }

    @Test("two relays: the orders of a product leave in the order in which their server accepted them")
    func productOrder() async throws {
        try await run(servers: 2) { bed, publisher, _ in
            // Each client waits for its answer before its next order: what it sends is accepted in that order.
            let accepted = try await withThrowingTaskGroup(of: (Int, [Int64]).self) { group in
                for client in 0..<6 {
                    group.addTask {
                        var ids: [Int64] = []
                        for _ in 0..<40 {
                            let body = #"{"productId":\#(client % 3 + 1),"quantity":1}"#
                            ids.append(try id(try await bed.send(.POST, "/v2/orders", body, to: client % 2)))
                        }
                        return (client, ids)
                    }
                }
                return try await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
            }
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)
            var published: [Int64: [Int64]] = [:]
            for command in publisher.commands { published[try product(command), default: []] += try orders(command) }
            for (client, ids) in accepted {
                let own = Set(ids)
                #expect(published[Int64(client % 3 + 1)]?.filter(own.contains) == ids, "client \(client)")
            }
            #expect(published.values.reduce(0) { $0 + $1.count } == 240)
        }
    }

    @Test("behind a command that fails the later ones of its product wait, with two relays too; other products of its lane do not")
    func productOrderAfterFailure() async throws {
        // More attempts than a slow machine makes while the others are accepted: given up, the command would hold nobody up any more.
        try await run(servers: 2, settings: ["OUTBOX_ATTEMPTS": "1000", "OUTBOX_BACKOFF_MAX": "100ms"]) { bed, publisher, _ in
            let isProductOne = { @Sendable (message: OutgoingMessage) in
                String(decoding: message.body, as: UTF8.self).contains(#""productId":1,"#)
            }
            let box = Box(refuses: true)
            publisher.set { state in
                state.outcomes = { isProductOne($0) && box.refuses.load(ordering: .sequentiallyConsistent) ? .rejected : .confirmed }
            }
            let first = try id(try await accept(bed))
            try await bed.wait("select count(*) from outbox where product_id = 1 and status = 'FAILED'", for: 1)
            var later: [Int64] = []
            for _ in 0..<3 { later.append(try id(try await accept(bed))) }
            for product in [17, 2] { _ = try await accept(bed, product: product) }
            try await bed.wait("select count(*) from outbox where product_id in (2, 17) and status = 'SENT'", for: 2)
            try await bed.wait("select count(*) from outbox where product_id = 1 and attempts >= 3", for: 1)
            let before = try publisher.commands.filter(isProductOne).flatMap(orders)
            #expect(before.allSatisfy { $0 == first })
            box.refuses.store(false, ordering: .sequentiallyConsistent)
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)
            let all = try publisher.commands.filter(isProductOne).flatMap(orders)
            #expect(Array(all.drop { $0 == first }) == later)
        }
    }

    private final class Box: Sendable {
        let refuses: Atomic<Bool>
        init(refuses: Bool) { self.refuses = Atomic(refuses) }
    }

    @Test("without the connection of events commands leave, and events wait; the other way round as well")
    func separateConnections() async throws {
        let events = ScriptedPublisher()
        try await run(events: events) { bed, publisher, results in
            events.set { $0.isConnected = false }
            let id = try self.id(try await accept(bed))
            try await bed.wait("select count(*) from outbox where product_id is not null and status = 'SENT'", for: 1)
            results.put(result("COMMITTED", id))
            try await bed.wait("select count(*) from orders where status = 'CONFIRMED'", for: 1)
            #expect(try await bed.count("select count(*) from outbox where product_id is null and status = 'NEW' and attempts = 0") == 2)
            let health = try await broker(bed)
            #expect(health["state"] == "DEGRADED")
            #expect(health["detail"]?["eventsConnected"] == .bool(false))
            #expect(health["detail"]?["commandsConnected"] == .bool(true))

            events.set { $0.isConnected = true }
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)
            #expect(Set(events.sent.map(\.exchange)) == ["order.events"])
            #expect(Set(publisher.sent.map(\.exchange)) == ["stock.commands"])

            publisher.set { $0.isConnected = false }
            _ = try await accept(bed)
            try await bed.wait("select count(*) from outbox where product_id is null and status = 'SENT'", for: 3)
            let waiting = try await bed.count(
                "select count(*) from outbox where product_id is not null and status = 'NEW' and attempts = 0"
            )
            #expect(waiting == 1)
        }
    }

    @Test("events that are held up by their broker hold no command up")
    func slowEvents() async throws {
        let events = ScriptedPublisher()
        try await run(events: events) { bed, _, _ in
            events.set { $0.isHeld = true }
            for _ in 0..<5 { _ = try await accept(bed) }
            try await bed.wait(
                "select coalesce(sum(cardinality(order_ids)), 0)::bigint from outbox where product_id is not null and status = 'SENT'",
                for: 5
            )
            #expect(try await bed.count("select count(*) from outbox where product_id is null and status = 'SENT'") == 0)
            events.set { $0.isHeld = false }
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)
        }
    }

    @Test("the backlog and what was dropped are shown")
    func figures() async throws {
        // Counted once, at the beginning: from there on the number is this process' own.
        try await run(settings: ["OUTBOX_LIMIT": "50", "EVENT_LIMIT": "3", "OUTBOX_POLL": "60s"]) { bed, publisher, _ in
            _ = try await accept(bed)
            try await bed.wait("select count(*) from outbox where status = 'SENT'", for: 2)
            try await eventually("nothing waits") {
                let detail = try await broker(bed)["detail"]
                return detail?["waitingEvents"] == .int(0) && detail?["waitingOrders"] == .int(0)
            }
            #expect(try await broker(bed)["state"] == "UP")
            publisher.set { $0.isConnected = false }
            for _ in 0..<5 { _ = try await accept(bed) }
            let health = try await broker(bed)
            #expect(health["state"] == "DEGRADED")
            #expect(health["detail"]?["waitingOrders"] == .int(5))
            #expect(health["detail"]?["maximumWaitingOrders"] == .int(50))
            #expect(health["detail"]?["waitingEvents"] == .int(3))
            let text = try await bed.text("/metrics")
            #expect(text.contains("\nstockgate_order_events_dropped_total 2\n"))
            #expect(text.contains("\nstockgate_outbox_backlog_orders 5\n"))
            #expect(text.contains("\nstockgate_broker_connected{end=\"publisher\"} 0\n"))
            publisher.set { $0.isConnected = true }
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)
            try await eventually("UP again") { try await broker(bed)["detail"]?["waitingOrders"] == .int(0) }
            #expect(try await broker(bed)["state"] == "UP")
        }
    }

    @Test("pruning takes at most so many rows at a time, and only what is sent, old and, of commands, looked at")
    func prune() async throws {
        try await run(settings: ["ASYNC_RECOVERY_AGE": "1h"]) { bed, publisher, _ in
            publisher.set { $0.isConnected = false }
            _ = try await bed.pool.query(
                """
                insert into outbox (id, lane, topic, product_id, order_ids, payload, status, sent_at, checked_at)
                select n, case when n % 2 = 0 then 16 else 1 end, 'x', case when n % 2 = 0 then null else 1 end, '{}', '',
                  case when n > 2504 then 'DEAD' else 'SENT' end, now() - interval '30 minutes', case when n > 2500 then null else now() end
                from generate_series(1, 2506) n
                """
            )
            _ = try await bed.pool.query("update outbox set sent_at = now() where id = 1")
            let store = OutboxStore(pool: bed.pool)
            var steps: [Int] = []
            for _ in 0..<4 { steps.append(try await store.prune(age: .seconds(60), limit: RecoveryService.Outbox.pruneStep)) }
            // Left: one just sent, two commands not looked at, two dead ones.
            #expect(steps == [1_000, 1_000, 501, 0])
            #expect(try await bed.count("select count(*) from outbox") == 5)
        }
    }

    @Test("a server without the broker's connection tells another's relay, which need not look for itself")
    func notify() async throws {
        let connected = ScriptedPublisher()
        let settings = ["OUTBOX_POLL": "60s"]
        try await TestBed.run(
            settings: settings,
            endpoints: MessageEndpoints(publisher: connected, events: connected, results: ScriptedResults())
        ) { bed in
            let away = ScriptedPublisher()
            away.set { $0.isConnected = false }
            let endpoints = MessageEndpoints(publisher: away, events: away, results: ScriptedResults())
            let other = try await bed.start(settings, endpoints: endpoints)
            do {
                // Until both listen, a look of theirs at the beginning could find the row.
                try await bed.wait(
                    "select count(*) from pg_stat_activity where datname = current_database() and query ilike 'listen%'",
                    for: 2
                )
                let began = ContinuousClock.now
                #expect(try await TestBed.send(other.peer, .POST, "/v2/orders", #"{"productId":1,"quantity":1}"#).status == 202)
                try await bed.wait("select count(*) from outbox where status = 'SENT'", for: 2)
                #expect(ContinuousClock.now - began < .seconds(40))
                #expect(connected.commands.count == 1)
                #expect(away.sent.isEmpty)
            } catch {
                await other.stop()
                throw error
            }
            await other.stop()
        }
    }
}
