import CircuitBreaker
import NIOHTTP1
import NIOPosix
import PostgresClient
import SeededRandom
import ServerKit
import ServerMetrics
import StockContract
import StrictJSON
import Synchronization
import Testing

@testable import OrderServer

@Suite("Calls for many changes of stock", .serialized, .timeLimit(.minutes(10)))
struct StockBatchesTests {
    private func batches(_ product: ProductStandIn, calls: Int = 1) throws -> StockBatches {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        return StockBatches(
            peers: HTTPPeers([try #require(HTTPEndpoint(product.url))], loop: loop),
            route: .batch,
            settings: StockBatches.Configuration(maximumCalls: calls, callTimeout: .seconds(60)),
            breaker: CircuitBreaker(name: "test", configuration: try CircuitBreakerConfiguration { _ in }),
            loop: loop,
            sizes: Histogram(bounds: Histogram.sizeBounds, scale: 1)
        )
    }

    /// A change of the largest size: the longest numbers, a key of 255 characters, each of which JSON escapes where `isEscaped`, the longest request id.
    private func largest(_ index: Int, isEscaped: Bool = true) -> StockChange {
        let number = String(1_000_000 + index)
        let key = "DEC-" + number + String(repeating: isEscaped ? "\\" : "k", count: 251 - number.count)
        return StockChange(
            direction: .out,
            productID: .max,
            orderID: .max - Int64(index),
            quantity: 1_000_000_000,
            key: key,
            attempt: 1_000_000_000,
            requestID: String(repeating: "r", count: 128)
        )
    }

    /// Sends changes, all of them before the product server looks at the first: what waits for a call does not depend on how fast the machine is.
    private func send(_ changes: [StockChange], _ batches: StockBatches, to product: ProductStandIn) async -> [StockAnswer] {
        let sent = Sent()
        product.state.withLock { $0.isHeld = true }
        return await withTaskGroup(of: StockAnswer.self) { group in
            for change in changes {
                group.addTask {
                    await withCheckedContinuation { answer in
                        batches.send(change) { answer.resume(returning: $0) }
                        sent.count.wrappingAdd(1, ordering: .relaxed)
                    }
                }
            }
            while sent.count.load(ordering: .relaxed) < changes.count { try? await Task.sleep(for: .milliseconds(1)) }
            product.state.withLock { $0.isHeld = false }
            return await group.reduce(into: []) { $0.append($1) }
        }
    }

    private final class Sent: Sendable { let count = Atomic(0) }

    private func isDecided(_ answer: StockAnswer) -> Bool { answer == .refused(code: "PRODUCT_NOT_FOUND") }

    @Test("changes of the largest size never make a call that is refused for its size", arguments: [false, true])
    func largestKeys(isEscaped: Bool) async throws {
        let product = try await ProductStandIn.start(stock: [:])
        product.state.withLock { $0.maximumBytes = StockBatch.maximumBytes }
        let batches = try self.batches(product)
        let changes = (0..<2_048).map { self.largest($0, isEscaped: isEscaped) }
        #expect(changes[0].key.utf8.count == 255)
        let answers = await send(changes, batches, to: product)
        #expect(answers.count == 2_048)
        #expect(answers.allSatisfy(isDecided))
        let (largest, tooLarge, items) = product.state.withLock { ($0.largestBody, $0.tooLarge, $0.largestCall) }
        #expect(tooLarge == 0)
        #expect(items < StockBatch.maximumItems, "the bytes are what cuts")
        // Few are cut for nothing: the estimate counts 18 digits more than a change may have.
        #expect((StockBatch.maximumBytes - 16_384...StockBatch.maximumBytes).contains(largest), "\(largest)")
        #expect(Set(product.seen).count == 2_048)
        await product.stop()
    }

    @Test("ordinary changes are cut by their number alone")
    func ordinary() async throws {
        let product = try await ProductStandIn.start(stock: [:])
        product.state.withLock { $0.maximumBytes = StockBatch.maximumBytes }
        let batches = try self.batches(product)
        let changes = (0..<3_000).map { index in
            StockChange(
                direction: .out,
                productID: 7,
                orderID: Int64(index) + 1_000_000,
                quantity: 1,
                key: "DEC-\(index + 1_000_000)",
                attempt: 1,
                requestID: "0d9b2c4e-6a1f-4d6e-9c53-2f6f0e3f5a10"
            )
        }
        #expect(await send(changes, batches, to: product).allSatisfy(isDecided))
        #expect(product.state.withLock { $0.largestCall } == StockBatch.maximumItems)
        await product.stop()
    }

    @Test("the size that a call is cut by is never less than it has", arguments: 0..<200)
    func estimate(seed: UInt64) {
        var generator = SplitMix64(seed: seed)
        let scalars = ["k", "\\", "\"", "/", "\u{7F}", "\u{1}", "é", "한", "🎉", " "]
        let change = StockChange(
            direction: Bool.random(using: &generator) ? .out : .in,
            productID: .random(in: 1...Int64.max, using: &generator),
            orderID: .random(in: 1...Int64.max, using: &generator),
            quantity: .random(in: 1...1_000_000_000, using: &generator),
            key: (0..<Int.random(in: 0...40, using: &generator)).map { _ in scalars.randomElement(using: &generator) ?? "" }.joined(),
            attempt: .random(in: 1...1_000_000_000, using: &generator),
            requestID: Bool.random(using: &generator) ? "r-1" : nil
        )
        var json = JSONWriter()
        change.write(to: &json)
        // And a comma.
        #expect(json.bytes.count + 1 <= change.maximumWireBytes, "\(json.string)")
    }

    @Test("a product server that takes less says so, and gets calls that it takes")
    func learns() async throws {
        let product = try await ProductStandIn.start(stock: [:])
        product.state.withLock { $0.maximumBytes = 20_000 }
        let batches = try self.batches(product)
        let changes = (0..<512).map { largest($0) }
        // Those of the call that was refused have no answer; the saga sends them again.
        let first = await send(changes, batches, to: product)
        #expect(first.contains(.noAnswer(cause: "PAYLOAD_TOO_LARGE", retryAfter: nil)))
        let refused = product.state.withLock { $0.tooLarge }
        #expect(refused == 1)
        #expect(await send(changes, batches, to: product).allSatisfy(isDecided))
        #expect(product.state.withLock { $0.tooLarge } == refused)
        await product.stop()
    }
}

@Suite("Request ids are passed on", .serialized, .timeLimit(.minutes(10)))
struct RequestIDTests {
    private func isID(_ text: String?) -> Bool { text.map(ServerRequestContext.isRequestID) ?? false }

    @Test(
        "an order's own with its item, hot or not, and where that is odd or missing the one that its answer has; the call has one of its own"
    )
    func batch() async throws {
        try await TestBed.run { bed in
            let hot = try await bed.place(1, headers: ["x-request-id": "hot-1"]).orderID
            let router = try await bed.place(1, headers: ["x-request-id": "router-1", "prefer": "handling=strict"]).orderID
            let odd = try await bed.place(1, headers: ["x-request-id": "not an id"])
            let none = try await bed.place(1)
            let given = try await bed.place(1, headers: ["prefer": "handling=strict"])
            let user = try await bed.send(
                .POST,
                "/u-9/orders",
                #"{"productId":"1","qty":2,"unitPrice":900}"#,
                headers: ["x-request-id": "user-1"]
            )
            _ = try await bed.send(.POST, "/orders/\(hot)/cancel", headers: ["x-request-id": "cancel-1"])
            guard case .int(let userOrder) = user["orderId"] else { throw TestBed.Failure(description: "no id") }
            let (items, calls) = bed.product.state.withLock { ($0.itemIDs, $0.callIDs) }
            #expect(items["DEC-\(hot)"] == "hot-1")
            #expect(items["INC-\(hot)"] == "cancel-1")
            #expect(items["DEC-\(router)"] == "router-1")
            for answer in [odd, none] {
                let made = try #require(answer.headers.first(name: "x-request-id"))
                #expect(made != "not an id" && isID(made))
                #expect(items["DEC-\(answer.id ?? 0)"] == made)
            }
            #expect(items["DEC-\(given.id ?? 0)"] == given.headers.first(name: "x-request-id"))
            #expect(items["DEC-\(userOrder)"] == "user-1")
            // Seven calls, and a look at the price for the user's order.
            #expect(calls.count == 8)
            #expect(calls.allSatisfy(isID))
            #expect(calls.filter { $0.hasPrefix("batch-") }.count == 7)
            #expect(calls.contains("user-1"))
            #expect(Set(calls).count == calls.count)
        }
    }

    @Test("without batches the order's own is the call's")
    func single() async throws {
        try await TestBed.run(settings: ["PRODUCT_INTERNAL_URL": ""]) { bed in
            let id = try await bed.place(1, headers: ["x-request-id": "hot-1"]).orderID
            let none = try await bed.place(1).orderID
            let items = bed.product.state.withLock { $0.itemIDs }
            #expect(items["DEC-\(id)"] == "hot-1")
            #expect(isID(items["DEC-\(none)"]))
        }
    }

    @Test("an order that waits for its repeat goes on under the repeat's id")
    func repeated() async throws {
        try await TestBed.run(settings: ["ORDER_DEADLINE": "4s", "RECOVERY_AGE": "3600s", "RECOVERY_INTERVAL": "600s"]) { bed in
            bed.product.script(.hang)
            let first = try await bed.place(1, key: "k", headers: ["x-request-id": "first"])
            #expect(first.status == 424)
            _ = try await bed.pool.query("update orders set updated_at = now() - interval '1 minute'")
            let id = try await bed.place(1, key: "k", headers: ["x-request-id": "second"]).orderID
            #expect(bed.product.state.withLock { $0.itemIDs["DEC-\(id)"] } == "second")
        }
    }
}
