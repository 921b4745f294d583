import APIErrors
import Eventually
import Logging
import MessageBroker
import PrivateServers
import ServerMetrics
import NIOHTTP1
import PostgresClient
import ServerKit
import StrictJSON
import Synchronization
import Testing

@testable import OrderServer

/// What the order server writes is what a follower reads.
@Suite("Follow: what the order server writes", .serialized, .timeLimit(.minutes(10)))
struct FollowReplayTests {
    /// Orders as GET shows them, with run and version, by id.
    private func shown(_ pool: PostgresPool) async throws -> [String] {
        let store = OrderStore(pool: pool, recoveryAge: .seconds(10))
        return try await store.orders(buyer: nil, status: nil, Listing(paging: Paging(page: 0, size: 100))).rows.map { order in
            var json = JSONWriter()
            json.object { json in
                order.writeMembers(to: &json)
                json.member("productCode", order.productCode)
                json.member("unitPrice", order.unitPrice)
                json.member("run", order.run)
                json.member("version", order.version)
            }
            return json.string
        }
    }

    @Test("confirmed, failed, cancelled, retried and PENDING orders, over both paths: the replica shows the same, however the events come")
    func replay() async throws {
        let (publisher, results) = (ScriptedPublisher(), ScriptedResults())
        let settings = ["PERSIST_REJECTED": "true", "SOLD_OUT_MEMORY": "0s"]
        let endpoints = MessageEndpoints(publisher: publisher, events: publisher, results: results)
        try await TestBed.run(settings: settings, endpoints: endpoints) { bed in
            func id(_ answer: TestBed.Answer) throws -> Int64 {
                guard case .int(let id) = answer["id"] else { throw TestBed.Failure(description: "no id: \(answer)") }
                return id
            }
            func result(_ id: Int64, _ outcome: String) {
                results.put(
                    """
                    {"version":1,"type":"stock.result","commandId":"1","productId":1,"results":[{"orderId":\(id),"key":"DEC-\(id)",\
                    "outcome":"\(outcome)","reason":\(outcome == "REFUSED" ? #""INSUFFICIENT_STOCK""# : "null"),"remainingStock":5}]}
                    """
                )
            }
            let accepted = #"{"productId":1,"quantity":3,"buyerId":"u-\"ü\\"}"#
            // By a call: confirmed, cancelled, and one that fails.
            _ = try await bed.place()
            _ = try await bed.send(.POST, "/orders/\(try id(try await bed.place()))/cancel")
            _ = try await bed.place(1_000)
            _ = try await bed.send(.POST, "/u-9/orders", #"{"productId":"CATALOG-002","qty":2,"unitPrice":900}"#)
            // Over the broker: confirmed and cancelled; failed, run again and confirmed; failed, run again and failed; failed; PENDING.
            let ids = try await withThrowingTaskGroup(of: Int64.self) { group in
                for _ in 0..<5 { group.addTask { try id(try await bed.send(.POST, "/v2/orders", accepted)) } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            result(ids[0], "COMMITTED")
            for id in ids[1...3] { result(id, "REFUSED") }
            try await bed.wait("select count(*) from orders where message_id is not null and status <> 'PENDING'", for: 4)
            #expect(try await bed.send(.POST, "/orders/\(ids[0])/cancel")["status"] == "CANCELLED")
            let again = try await bed.send(.POST, "/internal/orders/\(ids[1])/retry", admin: true)
            #expect(again["status"] == "CONFIRMED")
            bed.product.state.withLock { $0.stock[1] = 0 }
            #expect(try await bed.send(.POST, "/internal/orders/\(ids[2])/retry", admin: true)["status"] == "FAILED")
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)

            let sent = publisher.sent.filter { $0.exchange == "order.events" }
            let payloads = sent.map { String(decoding: $0.body, as: UTF8.self) }
            // One message for each row, and what is published of a row that has its whole message is that message.
            let rows = try await bed.pool.query("select id, case when moment is null then payload end from outbox where product_id is null")
            #expect(Set(sent.compactMap(\.messageID)).count == sent.count && sent.count == rows.count)
            var whole = 0
            for row in rows {
                let id = try row.decode(0, as: Int64.self)
                let message = try #require(sent.first { $0.messageID == String(id) })
                guard let text = try row.decode(1, as: String?.self) else { continue }
                whole += 1
                #expect(String(decoding: message.body, as: UTF8.self) == text)
            }
            #expect(whole > 0 && whole < rows.count)
            let original = try await shown(bed.pool)
            #expect(original.count == 9)
            #expect(original.contains { $0.contains(#""status":"CONFIRMED""#) && $0.contains(#""run":2,"version":4"#) })
            try await following(bed, payloads.shuffled() + payloads) { replica in
                let copy = try await shown(replica)
                #expect(copy == original)
            }
        }
    }

    @Test("an order that runs again is PENDING in the replica until it is settled")
    func retried() async throws {
        let publisher = ScriptedPublisher()
        let endpoints = MessageEndpoints(publisher: publisher, events: publisher, results: ScriptedResults())
        try await TestBed.run(
            settings: ["PERSIST_REJECTED": "true", "SOLD_OUT_MEMORY": "0s", "ORDER_DEADLINE": "4s", "RECOVERY_INTERVAL": "600s"],
            endpoints: endpoints
        ) { bed in
            _ = try await bed.place(1_000)
            try await bed.wait("select count(*) from orders where status = 'FAILED'", for: 1)
            let id = try await bed.count("select id from orders where status = 'FAILED'")
            // The saga of the next run gets no answer.
            bed.product.state.withLock { $0.faults = Array(repeating: .hang, count: 100) }
            _ = try? await bed.send(.POST, "/internal/orders/\(id)/retry", admin: true)
            try await bed.wait("select count(*) from orders where status = 'PENDING' and run = 2", for: 1)
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)
            let payloads = publisher.sent.filter { $0.exchange == "order.events" }.map { String(decoding: $0.body, as: UTF8.self) }
            let last = try #require(payloads.last)
            #expect(last.contains(#""type":"order.created""#))
            #expect(last.contains(#""status":"PENDING""#) && last.contains(#""run":2"#))
            let original = try await shown(bed.pool)
            try await following(bed, payloads.reversed()) { replica in
                let copy = try await shown(replica)
                #expect(copy == original)
            }
        }
    }

    /// Applies messages to a database of their own, beside the bed's.
    private func following(_ bed: TestBed, _ payloads: [String], _ body: (PostgresPool) async throws -> Void) async throws {
        let url = bed.databaseURL + "_replica"
        _ = try await bed.pool.query("create database \(url.split(separator: "/").last ?? "")")
        let configuration = try PostgresConfiguration.patient(url)
        _ = try await Migrator(configuration: configuration).apply(OrderStore.migrations)
        _ = try await Migrator(configuration: configuration, table: FollowStore.migrationsTable).apply(FollowStore.migrations)
        let pool = PostgresPool(configuration: configuration, maximumConnections: 2)
        let stream = ScriptedStream()
        for payload in payloads { stream.append(payload) }
        let figures = FollowMetrics(MetricsRegistry())
        let service = FollowService(
            store: FollowStore(pool: pool, stream: OrderFollowerParts.stream),
            changes: OrderWatch(maximumWaiters: 1) { _ in [] },
            metrics: figures,
            logger: Logger(label: "follower") { _ in SwiftLogNoOpLogHandler() },
            open: { stream.open($0) }
        )
        let task = Task { await service.follow() }
        let isAtEnd = try await eventually { figures.snapshot().position.last == UInt64(payloads.count - 1) }
        task.cancel()
        await task.value
        #expect(isAtEnd)
        #expect(figures.poison.value == 0)
        do {
            try await body(pool)
        } catch {
            await pool.shutdown()
            throw error
        }
        await pool.shutdown()
    }
}
