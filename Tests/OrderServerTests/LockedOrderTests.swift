import CircuitBreaker
import Eventually
import MessageBroker
import NIOCore
import NIOHTTP1
import NIOPosix
import PostgresClient
import ServerKit
import PrivateServers
import ServerMetrics
import StockContract
import StrictJSON
import Synchronization
import Testing

@testable import OrderServer

/// What one order or one product cannot have, the others do not wait for.
@Suite("One locked or bad member of a group", .serialized, .timeLimit(.minutes(2)))
struct LockedOrderTests {
    private let refused = PostgresError(code: .server(sqlState: "23514"), message: "bad", sqlState: "23514")
    private let lockTimeout = PostgresError(code: .server(sqlState: "55P03"), message: "locked", sqlState: "55P03")

    /// Sends 32 items, of which some cannot be written.
    private func write(
        patience: Duration,
        putOut: Set<Int> = [],
        _ error: (ArraySlice<Int>) -> PostgresError?
    ) -> (sent: [[Int]], out: [Int], failed: [[Int]], statements: Int) {
        var sent: [[Int]] = []
        var out: [Int] = []
        var failed: [[Int]] = []
        var statements = 0
        GroupWrite.run((0..<32).map { $0 }[...], patience: patience) { (part) throws(PostgresError) in
            statements += 1
            if let error = error(part) { throw error }
            sent.append(Array(part))
        } putOut: { part in
            guard part.contains(where: putOut.contains) else { return nil }
            out += part.filter(putOut.contains)
            return part.filter { !putOut.contains($0) }[...]
        } fail: { part, _ in
            failed.append(Array(part))
        }
        return (sent, out, failed, statements)
    }

    @Test("a refused member fails alone, and the others stay together as far as they can")
    func refusedMember() {
        let result = write(patience: .zero) { $0.contains(7) ? self.refused : nil }
        #expect(result.failed == [[7]])
        #expect(result.sent.flatMap { $0 } == (0..<32).filter { $0 != 7 })
        #expect(result.sent.count <= 5)
        #expect(result.statements <= 11)
    }

    @Test("members of locked rows are put out in one step, and the rest goes in one statement")
    func lockedRows() {
        let result = write(patience: .zero, putOut: [3, 9]) { $0.contains(3) || $0.contains(9) ? self.lockTimeout : nil }
        #expect(result.out == [3, 9])
        #expect(result.sent == [(0..<32).filter { $0 != 3 && $0 != 9 }])
        #expect(result.failed.isEmpty)
        #expect(result.statements == 2)
    }

    @Test("a lock that nobody can name is waited for once more, then only by the member that meets it; without patience by nobody")
    func unnamedLock() {
        var result = write(patience: .seconds(60)) { $0.contains(20) ? self.lockTimeout : nil }
        #expect(result.failed == [[20]])
        #expect(result.sent.flatMap { $0 }.count == 31)
        result = write(patience: .zero) { $0.contains(20) ? self.lockTimeout : nil }
        #expect(result.failed == [Array(0..<32)])
        #expect(result.statements == 1)
    }

    @Test("what is not one member's fault fails the whole group at once")
    func wholeGroup() {
        let lost = PostgresError(code: .connectionLost(outcomeUnknown: true), message: "lost")
        let result = write(patience: .seconds(60)) { _ in lost }
        #expect(result.failed == [Array(0..<32)])
        #expect(result.statements == 1)
    }

    // MARK: Over real servers

    private func lock(_ bed: TestBed, _ order: Int64) async throws -> RowLock {
        try await RowLock(url: bed.databaseURL, "select 1 from orders where id = \(order) for update")
    }

    @Test("an order whose row is locked waits apart: the others are confirmed and cancelled meanwhile")
    func completion() async throws {
        try await TestBed.run(settings: ["ORDER_DEADLINE": "25s", "PRODUCT_TIMEOUT": "20s", "RECOVERY_AGE": "60s"]) { bed in
            bed.product.state.withLock { $0.isHeld = true }
            let first = Task { try await bed.place(1) }
            var stuck: Int64?
            while stuck == nil {
                stuck = try await bed.pool.query("select id from orders where status = 'PENDING'").first?.decode(0, as: Int64.self)
                try await Task.sleep(for: .milliseconds(2))
            }
            let id = try #require(stuck)
            let lock = try await self.lock(bed, id)
            // Its saga ends now, and its outcome meets the lock.
            bed.product.state.withLock { $0.isHeld = false }
            #expect(try await eventually { try await metrics(bed).contains("\nstockgate_orders_locked 1\n") })
            for _ in 0..<10 {
                let made = try await bed.place(1)
                #expect(made["status"] == "CONFIRMED", "\(made)")
                let cancelled = try await bed.send(.POST, "/orders/\(try made.orderID)/cancel")
                #expect(cancelled["status"] == "CANCELLED", "\(cancelled)")
            }
            #expect(
                try await bed.pool.query("select status from orders where id = $1", [.int(id)]).one().decode(0, as: String.self)
                    == "PENDING"
            )
            await lock.end()
            let answer = try await first.value
            // In time, or after so long that its buyer had to be told to ask again.
            #expect(answer["status"] == "CONFIRMED" || answer.status == 503, "\(answer)")
            if answer.status == 503 {
                _ = try await bed.pool.query(
                    "insert into saga_work (order_id, due_at) values ($1, now()) on conflict do nothing",
                    [.int(id)]
                )
            }
            try await bed.wait("select count(*) from orders where id = \(id) and status = 'CONFIRMED'", for: 1)
            #expect(bed.product.stock(1) == 99)
        }
    }

    @Test("results of one message are written without the order whose row is locked, which is written when it is free")
    func results() async throws {
        let publisher = ScriptedPublisher()
        let results = ScriptedResults()
        try await TestBed.run(
            settings: ["OUTBOX_BACKOFF": "10ms", "OUTBOX_POLL": "20ms", "ASYNC_RECOVERY_AGE": "3600s"],
            endpoints: MessageEndpoints(publisher: publisher, events: publisher, results: results)
        ) { bed in
            var ids: [Int64] = []
            for _ in 0..<5 {
                ids.append(try await bed.send(.POST, "/v2/orders", #"{"productId":1,"quantity":1,"buyerId":"u-1"}"#).orderID)
            }
            let lock = try await self.lock(bed, ids[2])
            let list = ids.map {
                #"{"orderId":\#($0),"key":"DEC-\#($0)","outcome":"COMMITTED","reason":null,"remainingStock":5}"#
            }
            results.put(
                #"{"version":1,"type":"stock.result","commandId":"1","productId":1,"results":[\#(list.joined(separator: ","))]}"#
            )
            try await bed.wait("select count(*) from orders where status = 'CONFIRMED'", for: 4)
            #expect(results.state.withLock { $0.acknowledged } == 0)
            await lock.end()
            try await bed.wait("select count(*) from orders where status = 'CONFIRMED'", for: 5)
            #expect(try await eventually { results.state.withLock { $0.acknowledged } == 1 })
        }
    }

    @Test("a message whose row is locked holds up no other: neither when it is to be taken nor when it is to be marked")
    func outbox() async throws {
        let publisher = ScriptedPublisher()
        publisher.set { $0.isHeld = true }
        try await TestBed.run(
            stock: [1: 100, 2: 100],
            settings: ["OUTBOX_BACKOFF": "10ms", "OUTBOX_POLL": "20ms", "ASYNC_RECOVERY_AGE": "3600s"],
            endpoints: MessageEndpoints(publisher: publisher, events: ScriptedPublisher(), results: ScriptedResults())
        ) { bed in
            func accept(_ product: Int) async throws -> Int64 {
                let id = try await bed.send(.POST, "/v2/orders", #"{"productId":\#(product),"quantity":1,"buyerId":"u-1"}"#).orderID
                return try await bed.pool.query("select message_id from orders where id = $1", [.int(id)]).one().decode(0, as: Int64.self)
            }
            func lock(_ message: Int64) async throws -> RowLock {
                try await RowLock(url: bed.databaseURL, "select 1 from outbox where id = \(message) for update")
            }
            func sent(_ message: Int64) async throws -> Bool {
                try await bed.pool.query("select status from outbox where id = $1", [.int(message)]).one().decode(0, as: String.self)
                    == "SENT"
            }
            // Published and not marked: its row is locked meanwhile.
            let published = try await accept(1)
            #expect(try await eventually { publisher.commands.count == 1 })
            let first = try await lock(published)
            // Not taken yet: the relay waits for the first batch's confirms.
            let waiting = try await accept(1)
            let second = try await lock(waiting)
            let other = try await accept(2)
            publisher.set { $0.isHeld = false }
            #expect(try await eventually { try await sent(other) })
            let further = try await accept(2)
            #expect(try await eventually { try await sent(further) })
            #expect(try await !sent(published))
            #expect(try await !sent(waiting))
            await first.end()
            await second.end()
            for message in [published, waiting] { #expect(try await eventually { try await sent(message) }) }
            // What was published and could not be marked says that it is a repeat.
            let attempts = publisher.commands.filter { $0.messageID == String(published) }.map { $0.headers["attempt"] }
            #expect(attempts.first == .integer(1))
            #expect(attempts.count > 1 && attempts.dropFirst().allSatisfy { $0 != .integer(1) }, "\(attempts)")
        }
    }

    private func metrics(_ bed: TestBed) async throws -> String {
        let request = HTTPPeer.Request(method: .GET, path: "/metrics")
        return String(buffer: try await bed.servers[0].admin.call(request, timeout: .seconds(20)).get().body)
    }

    // MARK: The product server's word

    @Test("a locked product is asked for again soon, and opens no breaker for the others", arguments: ["LOCK_TIMEOUT", "UNAVAILABLE"])
    func breaker(code: String) async throws {
        let product = try await ProductStandIn.start(stock: [1: 100])
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let breaker = CircuitBreaker(
            name: "test",
            configuration: try CircuitBreakerConfiguration {
                $0.window = .count(10)
                $0.minimumNumberOfCalls = 5
            }
        )
        let batches = StockBatches(
            peers: HTTPPeers([try #require(HTTPEndpoint(product.url))], loop: loop),
            route: .batch,
            settings: StockBatches.Configuration(callTimeout: .seconds(10)),
            breaker: breaker,
            loop: loop,
            sizes: Histogram(bounds: Histogram.sizeBounds, scale: 1)
        )
        product.state.withLock { $0.faults = Array(repeating: .items(503, code), count: 5) }
        for order in Int64(1)...5 {
            let change = StockChange(
                direction: .out,
                productID: 1,
                orderID: order,
                quantity: 1,
                key: "DEC-\(order)",
                attempt: 1,
                requestID: nil
            )
            let answer = await withCheckedContinuation { continuation in batches.send(change) { continuation.resume(returning: $0) } }
            #expect(answer == .noAnswer(cause: code, retryAfter: nil))
        }
        #expect(breaker.state == (code == "LOCK_TIMEOUT" ? .closed : .open))
        await product.stop()
    }

    @Test func aLockedProductsRetryIsSooner() {
        #expect(
            StockAnswer(status: 503, code: "LOCK_TIMEOUT", remainingStock: nil, retryAfter: .seconds(1))
                == .noAnswer(cause: "LOCK_TIMEOUT", retryAfter: .milliseconds(500))
        )
        #expect(
            StockAnswer(status: 503, code: "UNAVAILABLE", remainingStock: nil, retryAfter: .seconds(1))
                == .noAnswer(cause: "UNAVAILABLE", retryAfter: .seconds(1))
        )
    }
}
