import MessageBroker
import NIOHTTP1
import PostgresClient
import PrivateServers
import StockContract
import StrictJSON
import Testing

@testable import OrderServer

/// The relay makes an event's message from a draft. Here it is compared with what the contract's writer makes of the same orders.
@Suite("Events from drafts")
struct EventDraftTests {
    private static let texts = [
        "u-001", "\"", "\\", "\\\"", "/", "é한😀\u{2028}", "[1],[2]", "null", "'; drop table orders; --", " ", "\u{FFFD}", "\u{1}\t\n\u{7F}",
    ]
    private static let numbers: [Int64] = [1, 2, 7, 1_000_000_000, .max]

    private func pick<Value>(_ values: [Value], _ index: Int) -> Value { values[index % values.count] }

    private func order(_ index: Int, id: Int64, _ status: OrderStatus, _ moment: Timestamp) -> OrderEvent.Order {
        OrderEvent.Order(
            id: id,
            productID: pick(Self.numbers, index),
            productCode: index % 2 == 0 ? nil : pick(Self.texts, index),
            buyerID: index % 3 == 0 ? nil : pick(Self.texts, index / 2),
            quantity: pick([1, 3, 1_000_000_000], index),
            unitPrice: index % 4 == 0 ? nil : pick([0, 39_000, 1_000_000_000_000], index),
            status: status,
            failReason: status == .failed ? pick(Self.texts, index + 1) : nil,
            run: pick(Self.numbers, index + 1),
            version: pick(Self.numbers, index + 2),
            createdAt: Timestamp(microsecondsSinceEpoch: pick([0, 1_769_851_800_123_456, 951_782_400_000_000], index)),
            updatedAt: moment
        )
    }

    private func add(_ order: OrderEvent.Order, to json: inout JSONWriter) {
        EventDraft.add(
            Order(
                id: order.id,
                productID: order.productID,
                productCode: order.productCode,
                buyerID: order.buyerID,
                quantity: order.quantity,
                unitPrice: order.unitPrice,
                status: .pending,
                run: order.run,
                createdAt: order.createdAt,
                updatedAt: order.createdAt
            ),
            failReason: order.failReason,
            to: &json
        )
    }

    @Test("changed orders: the contract's text, byte for byte, without the orders that were not changed")
    func changed() throws {
        let moment = Timestamp(microsecondsSinceEpoch: 1_769_851_800_000_001)
        for index in 0..<60 {
            let status = pick([OrderStatus.confirmed, .failed, .cancelled], index)
            let orders = (0..<(1 + index % 5)).map { self.order(index + $0, id: Int64(10 * index + $0 + 1), status, moment) }
            var json = JSONWriter()
            for order in orders { add(order, to: &json) }
            let changed = orders.enumerated().filter { index % 2 == 0 || orders.count == 1 || $0.offset != index % orders.count }.map(
                \.element
            )
            let event = OrderEvent(messageID: "\(index)", kind: OutboxSQL.kind(of: status), time: moment, orders: changed)
            // A statement gives the orders in any order.
            let given = changed.reversed()
            let outcome = EventDraft.Outcome(
                id: Int64(index),
                topic: event.kind.rawValue,
                moment: moment,
                orders: given.map(\.id),
                versions: given.map(\.version)
            )
            #expect(EventDraft.message(json.string, outcome) == String(decoding: event.body, as: UTF8.self))
        }
    }

    @Test("made orders: their time is the statement's, and their version is 1")
    func made() throws {
        let moment = Timestamp(microsecondsSinceEpoch: 1_769_851_800_000_001)
        var json = JSONWriter()
        let draft = OrderDraft(productID: 3, productCode: "C-1", buyerID: "u\"1", quantity: 2, unitPrice: 5)
        for id in 7...9 as ClosedRange<Int64> { EventDraft.add(draft, id: id, failReason: nil, to: &json) }
        let orders = [7, 9].map {
            OrderEvent.Order(
                id: $0,
                productID: 3,
                productCode: "C-1",
                buyerID: "u\"1",
                quantity: 2,
                unitPrice: 5,
                status: .pending,
                failReason: nil,
                run: 1,
                version: 1,
                createdAt: moment,
                updatedAt: moment
            )
        }
        let event = OrderEvent(messageID: "4", kind: .created, time: moment, orders: orders)
        let outcome = EventDraft.Outcome(id: 4, topic: "order.created", moment: moment, orders: [7, 9], versions: nil)
        #expect(EventDraft.message(json.string, outcome) == String(decoding: event.body, as: UTF8.self))
    }

    @Test(
        "a row that no server has written makes no message",
        arguments: [
            "", "[", "[1]", "[1,1,null,1,null,null,null,1,null", "[1,1,null,1,null,null,null,1,null],",
            "[1,1,null,1,null,null,null,1,null]x",
            "[1,1,\"x,1,null,null,null,1,null]", "[1,1,\"x\\", "[1,1,,1,null,null,null,1,null]", "[1,1,null,1,null,null,null,1]",
            "[1,1,null,1,null,null,null,1,null,2]", "[x,1,null,1,null,null,null,1,null]",
            "[9223372036854775808,1,null,1,null,null,null,1,null]",
            "[-,1,null,1,null,null,null,1,null]", "[2,1,null,1,null,null,null,1,null]", "[1,1,null,1,null,null,null,1,x]",
            "[1,1,null,1,null,null,null,1,null],[1,1,null,1,null,null,null,1,null]",
        ]
    )
    func unreadable(_ draft: String) {
        let outcome = EventDraft.Outcome(id: 4, topic: "order.created", moment: .now, orders: [1], versions: nil)
        #expect(EventDraft.message(draft, outcome) == nil)
    }

    @Test("nor one with another topic, without orders, or with versions for others")
    func otherRows() {
        let draft = "[1,1,null,1,null,null,null,1,null]"
        let outcome = EventDraft.Outcome(id: 4, topic: "order.created", moment: .now, orders: [1], versions: [1])
        #expect(EventDraft.message(draft, outcome) != nil)
        var other = outcome
        other.topic = "stock.decrease"
        #expect(EventDraft.message(draft, other) == nil)
        other = outcome
        other.orders = []
        other.versions = []
        #expect(EventDraft.message(draft, other) == nil)
        other = outcome
        other.versions = [1, 2]
        #expect(EventDraft.message(draft, other) == nil)
    }
}

/// Drafts in the outbox.
extension OutboxTests {
    private func events(_ publisher: ScriptedPublisher) throws -> [OrderEvent] {
        try publisher.sent.filter { $0.exchange == "order.events" }.map { try OrderEvent($0.body) }
    }

    @Test("events of orders by a call say what the table says, and an order whose key was taken is in none")
    func eventsOfCalls() async throws {
        try await run { bed, publisher, _ in
            // In one group or in several: of each key one order is made.
            await withTaskGroup(of: Void.self) { group in
                for n in 0..<60 {
                    group.addTask { _ = try? await bed.place(1, buyer: #"u-\"1"#, key: "k-\(n % 20)") }
                }
            }
            try await bed.wait("select count(*) from orders where status = 'CONFIRMED'", for: 20)
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)
            #expect(try await bed.count("select count(*) from outbox where lane = 17 and moment is not null") > 0)
            #expect(try await bed.count("select count(*) from outbox where lane <> 17") == 0)
            let events = try self.events(publisher)
            let created = events.filter { $0.kind == .created }.flatMap(\.orders)
            let confirmed = events.filter { $0.kind == .confirmed }.flatMap(\.orders)
            let rows = try await bed.pool.query("select \(Order.columns) from orders o")
            var orders: [Int64: Order] = [:]
            for row in rows {
                let order = try Order(row: row)
                orders[order.id] = order
            }
            #expect(Set(created.map(\.id)) == Set(orders.keys) && created.count == orders.count)
            #expect(Set(confirmed.map(\.id)) == Set(orders.keys) && confirmed.count == orders.count)
            for event in created {
                let order = try #require(orders[event.id])
                #expect(
                    event.status == .pending && event.version == 1 && event.createdAt == order.createdAt
                        && event.updatedAt == order.createdAt
                )
                #expect(event.buyerID == "u-\"1" && event.quantity == 1 && event.productID == 1 && event.run == 1)
            }
            for event in confirmed {
                let order = try #require(orders[event.id])
                #expect(event.status == .confirmed && event.version == order.version && event.version == 2)
                #expect(event.createdAt == order.createdAt && event.updatedAt == order.updatedAt)
            }
        }
    }

    @Test("a draft that no server has written is given up, and holds nothing up")
    func unreadableDraft() async throws {
        try await run { bed, publisher, _ in
            _ = try await bed.pool.query(
                """
                insert into outbox (id, lane, topic, order_ids, payload, moment)
                select nextval('outbox_ids'), 17, 'order.created', '{1}', 'x', now() from generate_series(1, 3)
                """
            )
            _ = try await bed.place(1)
            try await bed.wait("select count(*) from outbox where status = 'SENT'", for: 2)
            try await bed.wait("select count(*) from outbox where status = 'DEAD' and error = 'UNREADABLE'", for: 3)
            #expect(try events(publisher).count == 2)
        }
    }

    @Test("events that a server of the version before left in its database go out as they are, and its orders go on")
    func upgrade() async throws {
        let publisher = ScriptedPublisher()
        try await TestBed.run(servers: 0, stock: [1: 100]) { bed in
            let before = OrderStore.migrations.filter { $0.version < 10 }
            _ = try await Migrator(configuration: PostgresConfiguration.patient(bed.databaseURL)).apply(before)
            _ = try await bed.pool.query(
                """
                insert into orders (id, product_id, quantity, status, version) values (1, 1, 3, 'CONFIRMED', 2), (2, 1, 1, 'FAILED', 2)
                """
            )
            let text = #"{"version":1,"type":"order.created","messageId":"1","time":"2026-01-31T09:30:00.000000Z","orders":[]}"#
            _ = try await bed.pool.query(
                "insert into outbox (id, lane, topic, order_ids, payload) values (1, 16, 'order.created', '{1,2}', $1)",
                [.text(text)]
            )
            let server = try await bed.start(
                ["OUTBOX_POLL": "20ms"],
                endpoints: MessageEndpoints(publisher: publisher, events: publisher, results: ScriptedResults())
            )
            try await bed.wait("select count(*) from outbox where status = 'SENT'", for: 1)
            #expect(publisher.sent.map { String(decoding: $0.body, as: UTF8.self) } == [text])
            let cancelled = try await TestBed.send(server.peer, .POST, "/orders/1/cancel")
            #expect(cancelled["status"] == "CANCELLED")
            try await bed.wait("select count(*) from outbox where status = 'SENT' and lane = 17", for: 1)
            let event = try #require(try self.events(publisher, after: 1).first)
            #expect(event.kind == .cancelled && event.orders.map(\.id) == [1] && event.orders.map(\.version) == [3])
            await server.stop()
        }
    }

    private func events(_ publisher: ScriptedPublisher, after count: Int) throws -> [OrderEvent] {
        try publisher.sent.dropFirst(count).filter { $0.exchange == "order.events" }.map { try OrderEvent($0.body) }
    }
}
