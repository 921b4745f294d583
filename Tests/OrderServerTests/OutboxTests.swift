import Eventually
import MessageBroker
import NIOHTTP1
import PostgresClient
import PrivateServers
import ServerKit
import StockContract
import StrictJSON
import Synchronization
import Testing

@testable import OrderServer

@Suite("Orders over the broker", .serialized, .timeLimit(.minutes(10)))
struct OutboxTests {
    /// A server over a broker by script.
    func run(
        servers: Int = 1,
        settings: [String: String] = [:],
        stock: [Int64: Int64] = [1: 100],
        events: ScriptedPublisher? = nil,
        adjust: @Sendable (inout OrderServerConfiguration) -> Void = { _ in },
        _ body: (TestBed, ScriptedPublisher, ScriptedResults) async throws -> Void
    ) async throws {
        let publisher = ScriptedPublisher()
        let results = ScriptedResults()
        var all = ["OUTBOX_BACKOFF": "10ms", "OUTBOX_BACKOFF_MAX": "20ms", "OUTBOX_POLL": "20ms"]
        all.merge(settings) { $1 }
        try await TestBed.run(
            servers: servers,
            stock: stock,
            settings: all,
            endpoints: MessageEndpoints(publisher: publisher, events: events ?? publisher, results: results),
            adjust: adjust
        ) { bed in
            try await body(bed, publisher, results)
        }
    }

    func accept(_ bed: TestBed, _ quantity: Int = 3, product: Int = 1, key: String? = nil) async throws -> TestBed.Answer {
        try await bed.send(
            .POST,
            "/v2/orders",
            #"{"productId":\#(product),"quantity":\#(quantity),"buyerId":"u-\"1"}"#,
            headers: key.map { ["idempotency-key": $0] } ?? [:]
        )
    }

    func id(_ answer: TestBed.Answer) throws -> Int64 {
        guard case .int(let id) = answer["id"] else { throw TestBed.Failure(description: "no id: \(answer)") }
        return id
    }

    func result(_ outcome: String, _ ids: Int64..., reason: String = "null") -> String {
        let list = ids.map {
            #"{"orderId":\#($0),"key":"DEC-\#($0)","outcome":"\#(outcome)","reason":\#(reason),"remainingStock":5,"new":1}"#
        }
        return #"{"version":1,"type":"stock.result","commandId":"1","productId":1,"results":[\#(list.joined(separator: ","))],"new":{}}"#
    }

    @Test("accepted: 202 with the PENDING order and its place; the message holds it; the result makes it CONFIRMED")
    func life() async throws {
        try await run { bed, publisher, results in
            let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            let made = try await bed.send(
                .POST,
                "/orders",
                #"{"productId":1,"quantity":3,"buyerId":"u-\"1"}"#,
                headers: ["prefer": "respond-async", "traceparent": trace]
            )
            #expect(made.status == 202)
            #expect(made["status"] == "PENDING")
            let id = try self.id(made)
            #expect(made.headers.first(name: "location") == "/orders/\(id)")
            #expect(made.headers.first(name: "preference-applied") == "respond-async")
            try await bed.wait("select count(*) from outbox where topic = 'stock.decrease' and status = 'SENT' and attempts = 1", for: 1)
            let command = try #require(publisher.commands.first)
            #expect(command.exchange == "stock.commands")
            #expect(command.headers["attempt"] == .integer(1))
            #expect(command.headers["traceparent"] == .string(trace))
            let json = try JSONDocument(command.body).value
            #expect(json["version"] == 1)
            #expect(json["type"] == "stock.decrease")
            #expect(json["messageId"] == .string(command.messageID ?? ""))
            #expect(json["productId"] == 1)
            guard case .array(let orders) = json["orders"] ?? .null else { throw TestBed.Failure(description: "no orders") }
            #expect(orders.count == 1)
            #expect(orders[0]["orderId"] == .int(id))
            #expect(orders[0]["key"] == .string("DEC-\(id)"))
            #expect(orders[0]["quantity"] == 3)
            #expect(orders[0]["buyerId"] == "u-\"1")
            #expect(orders[0]["traceparent"] == .string(trace))

            results.put(result("COMMITTED", id))
            try await bed.wait("select count(*) from orders where status = 'CONFIRMED' and version = 2", for: 1)
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)
            let shown = try await bed.send(.GET, "/orders/\(id)")
            let events = try publisher.sent.filter { $0.exchange == "order.events" }.map { (try JSONDocument($0.body).value, $0) }
            #expect(events.map(\.1.routingKey) == ["order.created", "order.confirmed"])
            // The database writes these; the contract writes the same.
            #expect(try StockCommand(command.body).body == command.body)
            for (_, event) in events {
                let read = try OrderEvent(event.body)
                #expect(read.body == event.body)
                #expect(read.kind.rawValue == event.routingKey && read.messageID == event.messageID)
            }
            for (event, version) in zip(events.map(\.0), [1, 2] as [Int64]) {
                guard case .array(let orders) = event["orders"] ?? .null, let order = orders.first else {
                    throw TestBed.Failure(description: "no orders")
                }
                #expect(order["version"] == .int(version))
                #expect(order["run"] == 1)
                for name in ["id", "productId", "buyerId", "quantity", "createdAt"] { #expect(order[name] == shown[name], "\(name)") }
                if version == 2 { for name in ["status", "failReason", "updatedAt"] { #expect(order[name] == shown[name], "\(name)") } }
            }
            #expect(bed.product.seen.isEmpty)
        }
    }

    @Test("one key: the same order, 202 while it is PENDING and 200 later; another payload is KEY_REUSED; a taken key is in no message")
    func keys() async throws {
        try await run { bed, publisher, results in
            let first = try await accept(bed, key: "k")
            let id = try self.id(first)
            let again = try await accept(bed, key: "k")
            #expect(again.status == 202)
            #expect(again["id"] == first["id"])
            #expect(again.headers.first(name: "idempotency-replayed") == "true")
            #expect(try await accept(bed, 4, key: "k").status == 422)
            // Many at once, half of them with a taken key: one statement writes some and leaves others.
            await withTaskGroup(of: Void.self) { group in
                for n in 0..<100 { group.addTask { _ = try? await accept(bed, key: n % 2 == 0 ? "k" : "k-\(n)") } }
            }
            #expect(try await bed.count("select count(*) from orders") == 51)
            #expect(try await bed.count("select sum(cardinality(order_ids))::bigint from outbox where product_id is not null") == 51)
            #expect(
                try await bed.count(
                    """
                    select count(*) from outbox b, unnest(b.order_ids) as u(id) join orders o on o.id = u.id
                    where o.message_id = b.id and position('"orderId":' || o.id || ',' in b.payload) > 0
                    """
                ) == 51
            )
            results.put(result("COMMITTED", id))
            try await bed.wait("select count(*) from orders where status = 'CONFIRMED'", for: 1)
            let final = try await accept(bed, key: "k")
            #expect(final.status == 200)
            #expect(final["status"] == "CONFIRMED")
            #expect(final.headers.contains(name: "preference-applied") == false)
            _ = publisher
        }
    }

    @Test("a message is SENT only after its confirm; after an unknown outcome it goes again as attempt 2; a refusal too")
    func confirms() async throws {
        try await run { bed, publisher, _ in
            publisher.set { $0.isHeld = true }
            _ = try await accept(bed)
            try await eventually("a message is sent", every: .milliseconds(1)) { !publisher.sent.isEmpty }
            #expect(try await bed.count("select count(*) from outbox where status = 'SENT'") == 0)
            #expect(
                try await bed.count("select count(*) from outbox where status = 'NEW' and attempts = 1") >= 1,
                "counted before it is sent"
            )
            publisher.set { $0.isHeld = false }
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)

            for outcome in [PublishOutcome.unknown, .rejected, .returned(code: 312, text: "NO_ROUTE")] {
                publisher.set { state in
                    state.sent = []
                    state.outcomes = { $0.routingKey == "stock.decrease" && $0.headers["attempt"] == .integer(1) ? outcome : .confirmed }
                }
                _ = try await accept(bed)
                try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)
                let attempts = publisher.commands.map { $0.headers["attempt"] }
                #expect(attempts == [.integer(1), .integer(2)], "\(outcome)")
            }
        }
    }

    @Test("without the broker's connection orders are taken up to the bound, no attempt is counted, and all drains later")
    func disconnected() async throws {
        try await run(settings: ["OUTBOX_LIMIT": "5", "EVENT_LIMIT": "3", "OUTBOX_POLL": "60s"]) { bed, publisher, _ in
            // The relay counts what waits before its first look, and then not for a minute: from there on the number is this process' own.
            _ = try await accept(bed)
            try await bed.wait("select count(*) from outbox where status = 'SENT'", for: 2)
            let counted = ContinuousClock.now + .seconds(60)
            var figures = ""
            while !figures.contains("\nstockgate_outbox_backlog_events 0\n") || !figures.contains("\nstockgate_outbox_backlog_orders 0\n"),
                ContinuousClock.now < counted
            {
                figures = try await bed.text("/metrics")
            }
            _ = try await bed.pool.query("delete from outbox")
            _ = try await bed.pool.query("delete from orders")
            publisher.set { state in
                state.sent = []
                state.isConnected = false
            }
            for _ in 0..<5 { #expect(try await accept(bed).status == 202) }
            let refused = try await accept(bed)
            #expect(refused.status == 503)
            #expect(refused["error"] == "OVERLOADED")
            #expect(refused.headers.contains(name: "retry-after"))
            #expect(try await bed.count("select count(*) from orders") == 5)
            #expect(try await bed.count("select count(*) from outbox where product_id is null") == 3, "events have a bound of their own")
            #expect(try await bed.count("select count(*) from outbox where attempts > 0") == 0)
            try await bed.waitUntilReady()
            publisher.set { $0.isConnected = true }
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)
            #expect(publisher.commands.count == 5)
            #expect(publisher.commands.allSatisfy { $0.headers["attempt"] == .integer(1) })
            #expect(try await accept(bed).status == 202)
        }
    }

    @Test("given up: DEAD, its orders settled by recovery over REST as repeats; requeued it goes again, as a later attempt")
    func dead() async throws {
        try await run(settings: ["OUTBOX_ATTEMPTS": "2"]) { bed, publisher, _ in
            publisher.set { $0.outcomes = { $0.routingKey == "stock.decrease" ? .rejected : .confirmed } }
            let id = try self.id(try await accept(bed))
            try await bed.wait("select count(*) from outbox where status = 'DEAD'", for: 1)
            try await bed.wait("select count(*) from orders where status = 'CONFIRMED'", for: 1)
            #expect(bed.product.seen == ["OUT DEC-\(id) 3"] || bed.product.seen.allSatisfy { !$0.hasSuffix(" 1") })
            let listed = try await bed.send(.GET, "/internal/outbox?status=DEAD", admin: true)
            #expect(listed["totalElements"] == 1)
            let message = try await bed.count("select id from outbox where status = 'DEAD'")
            publisher.set { $0.outcomes = { _ in .confirmed } }
            #expect(try await bed.send(.POST, "/internal/outbox/\(message)/requeue", admin: true)["status"] == "NEW")
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)
            #expect(publisher.commands.last?.headers["attempt"] == .integer(3))
            let again = try await bed.send(.POST, "/internal/outbox/\(message)/requeue", admin: true)
            #expect(again.status == 400)
            #expect(again["error"] == "INVALID_STATE")
            #expect(try await bed.send(.POST, "/internal/outbox/99999999/requeue", admin: true).status == 404)
        }
    }

    @Test("results twice, in reverse order, for nobody, unreadable: each order changes once, a late success is given back")
    func results() async throws {
        try await run { bed, publisher, results in
            let ids = [
                try id(try await accept(bed)), try id(try await accept(bed)), try id(try await accept(bed)),
            ]
            results.put(
                result("COMMITTED", ids[2]),
                result("REFUSED", ids[1], reason: #""INSUFFICIENT_STOCK""#),
                result("COMMITTED", ids[0], 77_777_777),
                result("COMMITTED", ids[0], ids[2]),
                "{",
                redelivered: true
            )
            try await bed.wait("select count(*) from orders where status <> 'PENDING' and version = 2", for: 3)
            #expect(try await bed.count("select count(*) from orders where status = 'FAILED' and fail_reason = 'INSUFFICIENT_STOCK'") == 1)
            try await results.waitUntilAcknowledged(5)
            #expect(results.acknowledged == 5)
            let letter = try #require(publisher.sent.first { $0.exchange == "stock.dead" })
            #expect(letter.headers["reason"] == "MALFORMED")
            // The product server had taken the stock of the order that failed.
            bed.product.state.withLock { state in
                state.taken["DEC-\(ids[1])"] = 3
                state.stock[1] = 97
            }
            results.put(result("COMMITTED", ids[1]))
            #expect(try await eventually(every: .milliseconds(1)) { bed.product.stock(1) == 100 })
            #expect(try await bed.count("select count(*) from orders where id = \(ids[1]) and status = 'FAILED'") == 1)
        }
    }

    @Test("recovery leaves orders alone whose message waits, and takes those up that were sent long ago; sent messages are pruned")
    func recovery() async throws {
        // The message is young for as long as the test says so.
        try await run(settings: ["ASYNC_RECOVERY_AGE": "1h", "OUTBOX_RETENTION": "5s"]) { bed, publisher, _ in
            publisher.set { $0.isConnected = false }
            _ = try await accept(bed)
            try await bed.recoverAll()
            #expect(try await bed.count("select count(*) from saga_work") == 0)
            #expect(bed.product.seen.isEmpty)
            publisher.set { $0.isConnected = true }
            try await bed.wait("select count(*) from outbox where product_id is not null and status = 'SENT'", for: 1)
            _ = try await bed.pool.query("update outbox set sent_at = now() - interval '2 hours' where product_id is not null")
            try await bed.wait("select count(*) from orders where status = 'CONFIRMED'", for: 1)
            #expect(!bed.product.seen.isEmpty && bed.product.seen.allSatisfy { !$0.hasSuffix(" 1") }, "a repeat says that it is one")
            try await bed.wait("select count(*) from outbox", for: 0)
        }
    }

    @Test("an order that no broker takes is settled over HTTP when it is as old as ASYNC_RECOVERY_AGE, and its message never goes")
    func overdue() async throws {
        // A message that was refused would be tried again much later: what counts is when the order was made.
        let settings = ["ASYNC_RECOVERY_AGE": "1h", "OUTBOX_BACKOFF": "60s", "OUTBOX_BACKOFF_MAX": "60s"]
        try await run(settings: settings) { bed, publisher, _ in
            // They are as old as the test says.
            func age(_ column: String) async throws {
                _ = try await bed.pool.query("update outbox set \(column) = now() - interval '2 hours' where product_id is not null")
            }
            publisher.set { $0.isConnected = false }
            let away = try id(try await accept(bed))
            #expect(try await bed.count("select count(*) from outbox where product_id is not null") == 1)
            try await age("created_at")
            try await bed.wait("select count(*) from orders where id = \(away) and status = 'CONFIRMED'", for: 1)
            try await bed.wait("select count(*) from outbox where product_id is not null", for: 0)
            #expect(!bed.product.seen.isEmpty && bed.product.seen.allSatisfy { !$0.hasSuffix(" 1") }, "a repeat says that it is one")
            publisher.set { $0.isConnected = true }
            let sent = try id(try await accept(bed))
            try await bed.wait("select count(*) from outbox where product_id is not null and status = 'SENT'", for: 1)
            #expect(publisher.commands.count == 1)
            // The results do not come in this test; without a result it is recovery's as well.
            try await age("sent_at")
            try await bed.wait("select count(*) from orders where id = \(sent) and status = 'CONFIRMED'", for: 1)
            publisher.set { $0.outcomes = { _ in .rejected } }
            let refused = try id(try await accept(bed))
            try await bed.wait("select count(*) from outbox where product_id is not null and status = 'FAILED'", for: 1)
            try await age("created_at")
            try await bed.wait("select count(*) from orders where id = \(refused) and status = 'CONFIRMED'", for: 1)
            #expect(try await bed.count("select count(*) from outbox where \(refused) = any(order_ids) and product_id is not null") == 0)
            #expect(bed.product.stock(1) == 91)
        }
    }

    @Test("a message whose lane is being published from is left alone, however old it is")
    func overdueInHand() async throws {
        try await run(settings: ["ASYNC_RECOVERY_AGE": "60s"]) { bed, publisher, _ in
            publisher.set { $0.isHeld = true }
            let id = try self.id(try await accept(bed))
            try await bed.wait("select count(*) from outbox where product_id is not null and attempts = 1", for: 1)
            _ = try await bed.pool.query("update outbox set created_at = now() - interval '1 hour' where product_id is not null")
            // Several rounds of recovery wait for the lane meanwhile, and give up.
            try await Task.sleep(for: .milliseconds(1_500))
            #expect(try await bed.count("select count(*) from saga_work") == 0)
            #expect(bed.product.seen.isEmpty)
            publisher.set { $0.isHeld = false }
            try await bed.wait(
                "select count(*) from outbox where \(id) = any(order_ids) and product_id is not null and status = 'SENT'",
                for: 1
            )
        }
    }

    @Test("a lane, or a message, that somebody holds keeps no other order from its recovery", arguments: [true, false])
    func overdueBesideALock(isOfLane: Bool) async throws {
        try await run(settings: ["ASYNC_RECOVERY_AGE": "1h"]) { bed, publisher, _ in
            publisher.set { $0.isConnected = false }
            bed.product.state.withLock { $0.stock[2] = 9 }
            let (held, free) = (try id(try await accept(bed, product: 1)), try id(try await accept(bed, product: 2)))
            try await bed.wait("select count(*) from outbox where product_id is not null", for: 2)
            // The row may be updated under this lock, and is not anybody's to delete.
            let rows = isOfLane ? "outbox_lanes where lane = 1 for update" : "outbox where product_id = 1 for key share"
            let holder = try await RowLock(url: bed.databaseURL, "select 1 from \(rows)")
            // A relay that looked before the broker went may hold the messages for a while.
            var configuration = try PostgresConfiguration.patient(bed.databaseURL)
            configuration.lockTimeout = .seconds(120)
            let patient = try PostgresConnection(configuration: configuration)
            _ = try await patient.query("update outbox set created_at = now() - interval '2 hours' where product_id is not null", [])
            await patient.close()
            try await bed.wait("select count(*) from orders where id = \(free) and status = 'CONFIRMED'", for: 1)
            #expect(try await bed.count("select count(*) from orders where id = \(held) and status = 'PENDING'") == 1)
            await holder.end()
            try await bed.wait("select count(*) from orders where id = \(held) and status = 'CONFIRMED'", for: 1)
        }
    }

    @Test("two servers, one broker: every message is published once and in the order of its product")
    func twoRelays() async throws {
        try await run(servers: 2) { bed, publisher, _ in
            await withTaskGroup(of: Void.self) { group in
                for n in 0..<200 {
                    group.addTask {
                        _ = try? await bed.send(.POST, "/v2/orders", #"{"productId":\#(n % 3 + 1),"quantity":1}"#, to: n % 2)
                    }
                }
            }
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)
            let ids = publisher.commands.compactMap { $0.messageID.flatMap { Int64($0) } }
            #expect(Set(ids).count == ids.count)
            #expect(try await bed.count("select sum(cardinality(order_ids))::bigint from outbox where product_id is not null") == 200)
            #expect(publisher.commands.allSatisfy { $0.headers["attempt"] == .integer(1) })
        }
    }

    @Test("a server that dies between the confirm and the mark leaves a message that goes again as a repeat")
    func diesBeforeMark() async throws {
        try await run { bed, publisher, _ in
            publisher.set { $0.outcomes = { _ in .confirmed } }
            // What such a server leaves: counted, confirmed, not marked.
            publisher.set { $0.isConnected = false }
            _ = try await accept(bed)
            _ = try await bed.pool.query("update outbox set attempts = 1 where product_id is not null")
            publisher.set { $0.isConnected = true }
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)
            #expect(publisher.commands.map { $0.headers["attempt"] } == [.integer(2)])
        }
    }

    @Test("the synchronous path writes events too, but no commands")
    func synchronousEvents() async throws {
        try await run { bed, publisher, _ in
            let made = try await bed.place()
            #expect(made["status"] == "CONFIRMED")
            _ = try await bed.send(.POST, "/orders/\(try id(made))/cancel")
            try await bed.wait("select count(*) from outbox where status = 'SENT'", for: 3)
            #expect(Set(publisher.sent.map(\.routingKey)) == ["order.created", "order.confirmed", "order.cancelled"])
            #expect(try await bed.count("select version from orders") == 3)
        }
    }
}
