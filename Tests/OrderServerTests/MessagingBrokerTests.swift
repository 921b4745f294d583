import Eventually
import MessageBroker
import NIOCore
import NIOHTTP1
import ServerKit
import PrivateServers
import StockContract
import StrictJSON
import Testing

@testable import OrderServer

@Suite("Orders over a real broker", .serialized, .timeLimit(.minutes(10)))
struct MessagingBrokerTests {
    @Test("a command reaches its queue, and a result from the other side makes the order CONFIRMED")
    func roundTrip() async throws {
        let broker = try await PrivateRabbitMQ.onThread { try PrivateRabbitMQ.start() }
        defer { broker.stop() }
        try await TestBed.run(settings: ["AMQP_URL": broker.url]) { bed in
            let made = try await bed.send(.POST, "/v2/orders", #"{"productId":1,"quantity":3}"#)
            #expect(made.status == 202)
            guard case .int(let id) = made["id"] else { throw TestBed.Failure(description: "no id") }
            let configuration = try BrokerConfiguration(url: broker.url)
            let commands = try Consumer(configuration: configuration, topology: .stock, queue: StockGateTopology.decreaseQueue)
            let command = try #require(try await commands.nextBatch(max: 1, wait: .seconds(60)).first)
            #expect(command.headers["attempt"] == .integer(1))
            #expect(try JSONDocument(command.body).value["productId"] == 1)
            commands.acknowledge([command])
            let body =
                #"{"version":1,"type":"stock.result","productId":1,"results":[{"orderId":\#(id),"key":"DEC-\#(id)","outcome":"COMMITTED"}]}"#
            let publisher = try Publisher(configuration: configuration, topology: .stock)
            try await publisher.waitUntilConnected(within: .seconds(60))
            let result = OutgoingMessage(
                exchange: StockGateTopology.resultsExchange,
                routingKey: StockGateTopology.resultRoutingKey,
                body: Array(body.utf8)
            )
            #expect(try await publisher.publish([result, result]) == [.confirmed, .confirmed])
            try await bed.wait("select count(*) from orders where status = 'CONFIRMED' and version = 2", for: 1)
            try await bed.wait("select count(*) from outbox where status <> 'SENT'", for: 0)
            await commands.shutdown()
            await publisher.shutdown()
        }
    }

    /// The limit is there, then gone: a channel that was refused once is refused for ever by this broker, so the connection has to be another one.
    @Test(
        "a limit that an operator sets on the queue delays what is beyond it, and loses nothing",
        arguments: [#"{"max-length": 1}"#, #"{"max-length": 1, "overflow": "reject-publish"}"#, #"{"max-length-bytes": 1}"#]
    )
    func fullQueue(limit: String) async throws {
        let broker = try await PrivateRabbitMQ.onThread { try PrivateRabbitMQ.start() }
        defer { broker.stop() }
        // Nothing is settled over HTTP or given up meanwhile: what leaves leaves through the queue.
        let settings = ["AMQP_URL": broker.url, "ASYNC_RECOVERY_AGE": "600s", "OUTBOX_BACKOFF_MAX": "1s", "OUTBOX_ATTEMPTS": "1000"]
        try await TestBed.run(settings: settings) { bed in
            #expect(try await bed.send(.POST, "/v2/orders", #"{"productId":1,"quantity":1}"#).status == 202)
            try await bed.wait("select count(*) from outbox where product_id is not null and status = 'SENT'", for: 1)
            try await PrivateRabbitMQ.onThread {
                try broker.control(["set_policy", "limit", "^stock[.]decrease$", limit, "--apply-to", "queues"])
            }
            // One message for each product. A policy is in force a moment after it was set, and its bound is not exact: some more may get in.
            let began = ContinuousClock.now
            var orders = 1
            while try await bed.count("select count(*) from outbox where error = 'REJECTED'") < 20,
                ContinuousClock.now - began < .seconds(60)
            {
                orders += 1
                #expect(try await bed.send(.POST, "/v2/orders", #"{"productId":\#(orders),"quantity":1}"#).status == 202)
            }
            #expect(try await bed.count("select count(*) from outbox where error = 'REJECTED' and status <> 'SENT'") >= 20)
            try await bed.waitForBroker("DEGRADED", refused: ["stock.commands/stock.decrease"])
            let metrics = try await bed.servers[0].admin.call(
                HTTPPeer.Request(method: .GET, path: "/metrics", headers: [:], body: nil),
                timeout: .seconds(20)
            ).get()
            #expect(
                String(buffer: metrics.body).contains(
                    #"stockgate_broker_refused{end="publisher",route="stock.commands/stock.decrease"} 1"#
                )
            )
            #expect(try await bed.count("select count(*) from orders where status = 'PENDING'") == Int64(orders))
            try await PrivateRabbitMQ.onThread { try broker.control(["clear_policy", "limit"]) }
            try await bed.wait("select count(*) from outbox where product_id is not null and status <> 'SENT'", for: 0)
            #expect(try await bed.count("select count(*) from outbox where product_id is not null") == Int64(orders))
            try await bed.waitForBroker("UP", refused: [])

            let products = try await products(in: StockGateTopology.decreaseQueue, of: broker, until: orders)
            #expect(Set(products).count == orders)
            #expect(bed.product.seen.isEmpty, "nothing was settled over HTTP")
        }
    }

    /// The broker confirms each message, and then has it no more.
    @Test(
        "what a policy throws away is settled over HTTP, as a repeat, and said to be missing",
        arguments: [
            #"{"max-length": 1, "overflow": "drop-head"}"#, #"{"max-length-bytes": 1, "overflow": "drop-head"}"#, #"{"message-ttl": 1}"#,
        ]
    )
    func thrownAway(policy: String) async throws {
        let broker = try await PrivateRabbitMQ.onThread { try PrivateRabbitMQ.start() }
        defer { broker.stop() }
        try await TestBed.run(settings: ["AMQP_URL": broker.url, "ASYNC_RECOVERY_AGE": "20s"]) { bed in
            try await bed.waitForBroker("UP", refused: [])
            try await PrivateRabbitMQ.onThread {
                try broker.control(["set_policy", "limit", "^stock[.]decrease$", policy, "--apply-to", "queues"])
            }
            let orders = 10
            for _ in 0..<orders {
                #expect(try await bed.send(.POST, "/v2/orders", #"{"productId":1,"quantity":1}"#).status == 202)
                try await bed.wait("select count(*) from outbox where product_id is not null and status <> 'SENT'", for: 0)
            }
            try await bed.wait("select count(*) from orders where status = 'CONFIRMED'", for: Int64(orders))
            #expect(bed.product.stock(1) == Int64(100 - orders))
            let asked = bed.product.seen
            #expect(Set(asked).count == orders, "each has its own key: \(asked)")
            #expect(!asked.contains { $0.hasSuffix(" 1") }, "none is a first attempt, for somebody may have read the message: \(asked)")
            let report = try await bed.broker()
            #expect(report["state"] == "DEGRADED")
            guard case .int(let unanswered)? = report["detail"]?["unansweredOrders"] else {
                throw TestBed.Failure(description: "\(report)")
            }
            #expect((1...Int64(orders)).contains(unanswered))
            // The broker kept one at most of them where they belong, and the others as dead letters. On a busy machine some orders may be settled before they are sent.
            let sent = Int(try await bed.count("select count(*) from outbox where product_id is not null and status = 'SENT'"))
            #expect(sent > 1)
            let dead = try await products(in: StockGateTopology.deadQueue, of: broker, until: sent - 1)
            #expect(dead.count >= sent - 1)
        }
    }

    /// The products of the commands in a queue, once so many are there, or after a minute.
    private func products(in queue: String, of broker: PrivateRabbitMQ, until count: Int) async throws -> [Int64] {
        let consumer = try Consumer(configuration: try BrokerConfiguration(url: broker.url), topology: .stock, queue: queue)
        var products: [Int64] = []
        let deadline = ContinuousClock.now + .seconds(60)
        while products.count < count, ContinuousClock.now < deadline {
            let batch = try await consumer.nextBatch(max: 100, wait: .seconds(1))
            for command in batch {
                if case .int(let product) = try JSONDocument(command.body).value["productId"] { products.append(product) }
            }
            consumer.acknowledge(batch)
        }
        await consumer.shutdown()
        return products
    }
}

extension TestBed {
    /// What `/readyz?verbose` says of the broker.
    fileprivate func broker() async throws -> JSONValue {
        try await send(.GET, "/readyz?verbose")["dependencies"]["broker"] ?? .null
    }

    /// Waits until `/readyz?verbose` says so of the broker.
    fileprivate func waitForBroker(_ state: String, refused: [String]) async throws {
        var found = JSONValue.null
        try await eventually("\(state) \(refused), and not \(found)", every: .milliseconds(20)) {
            found = try await broker()
            return found["state"] == .string(state) && found["detail"]?["refused"] == .array(refused.map { .string($0) })
        }
    }
}
