import APIErrors
import Logging
import NIOHTTP1
import NIOPosix
import PostgresClient
import PrivateServers
import ServerKit
import ServerMetrics
import StockContract
import StrictJSON
import Synchronization
import Testing

@testable import OrderServer

@Suite("What the product server refuses for good to take back", .serialized, .timeLimit(.minutes(10)))
struct FinalRefusalTests {
    /// Lines of the log.
    private final class Lines: Sendable {
        private let lines = Mutex<[String]>([])

        var logger: Logger {
            Logger(label: "test") { _ in
                ServerLogHandler(label: "test", level: .info, format: .text) { line in
                    self.lines.withLock { $0.append(String(decoding: line, as: UTF8.self)) }
                }
            }
        }

        var errors: [String] { lines.withLock { $0 }.filter { $0.contains(" error ") } }
    }

    /// A server's parts without the server, and without anybody else who would settle what is left.
    private func run(_ stock: [Int64: Int64] = [1: 100], _ body: (TestBed, OrderServerParts, Lines) async throws -> Void) async throws {
        try await TestBed.run(servers: 0, stock: stock) { bed in
            _ = try await Migrator(configuration: PostgresConfiguration.patient(bed.databaseURL)).apply(OrderStore.migrations)
            var reader = SettingsReader(environment: [
                "ORDER_DATABASE_URL": bed.databaseURL, "PRODUCT_SERVER_URL": bed.product.url, "PRODUCT_INTERNAL_URL": bed.product.url,
                // Nothing here is about silence: a busy machine's late answer is no repeat.
                "PRODUCT_BACKOFF": "5ms", "PRODUCT_TIMEOUT": "10s", "ORDER_DEADLINE": "20s", "RECOVERY_AGE": "60s",
            ])
            let lines = Lines()
            let parts = try OrderServerParts(try OrderServerConfiguration(from: &reader), group: .singleton, logger: lines.logger)
            do {
                try await body(bed, parts, lines)
            } catch {
                await parts.stores.shutdown()
                throw error
            }
            await parts.stores.shutdown()
        }
    }

    private func confirmed(_ parts: OrderServerParts) async throws -> Int64 {
        let draft = OrderDraft(productID: 1, quantity: 3)
        let placed = try await PlacedOrder.awaited { parts.flows.placing.place(draft, done: $0) }
        #expect(placed.order.status == .confirmed)
        return placed.order.id
    }

    @Test("a cancellation ends: the order stays CONFIRMED, the caller is told that it is final, nothing asks again")
    func overHTTP() async throws {
        try await TestBed.run { bed in
            let id = try await bed.place().orderID
            bed.product.state.withLock { $0.refusals["INC-\(id)"] = (422, "KEY_REUSED") }
            for _ in 0..<2 {
                let answer = try await bed.send(.POST, "/orders/\(id)/cancel", headers: ["idempotency-key": "c"])
                #expect(answer.status == 424)
                #expect(answer["error"] == "DEPENDENCY_FAILED")
                #expect(
                    answer["details"] == ["orderId": .int(id), "status": "CONFIRMED", "cause": "KEY_REUSED", "final": true]
                )
                #expect(
                    answer["message"] == .string("The stock of order \(id) cannot be taken back: KEY_REUSED. The order stays CONFIRMED.")
                )
                #expect(!answer.headers.contains(name: "retry-after"))
            }
            #expect(try await bed.count("select count(*) from saga_work") == 0)
            #expect(try await bed.count("select count(*) from orders where cancel_requested_at is not null or cancel_key is not null") == 0)
            #expect(try await bed.text("/metrics").contains("\nstockgate_orders_undo_refused_total{during=\"cancel\"} 1\n"))
            let shown = try await bed.send(.GET, "/orders/\(id)?expand=saga")
            #expect(shown["status"] == "CONFIRMED")
            guard case .array(let steps) = shown["saga"] else { throw TestBed.Failure(description: "no steps") }
            #expect(steps.map { $0["outcome"] } == ["DONE", "KEY_REUSED"])
            let asked = bed.product.seen.count
            try await bed.recoverAll()
            #expect(bed.product.seen.count == asked)
            // What an operator has mended is tried by the next cancellation.
            bed.product.state.withLock { $0.refusals = [:] }
            #expect(try await bed.send(.POST, "/orders/\(id)/cancel")["status"] == "CANCELLED")
            #expect(bed.product.stock(1) == 100)
        }
    }

    @Test("one error line names order, key and reason, however often the cancellation is asked for; a new reason is a new line")
    func logged() async throws {
        try await run { bed, parts, lines in
            let id = try await confirmed(parts)
            for (code, status) in [("KEY_REUSED", 422), ("PRODUCT_NOT_FOUND", 404)] {
                bed.product.state.withLock { $0.refusals["INC-\(id)"] = (status, code) }
                for _ in 0..<3 {
                    await #expect(throws: APIError.self) { try await parts.flows.cancellation.cancel(id: id, key: nil, requestID: "r-1") }
                }
                let named = lines.errors.filter { $0.contains("reason=\(code)") }
                #expect(named.count == 1, "\(lines.errors)")
                #expect(named.first?.contains("order=\(id) ") ?? false)
                #expect(named.first?.contains("key=INC-\(id) ") ?? false)
                #expect(named.first?.contains("requestId=r-1") ?? false)
            }
            #expect(lines.errors.count == 2)
            #expect(parts.foundation.metrics.undoRefused[.cancel]?.value == 2)
        }
    }

    @Test(
        "recovery ends a cancellation that a crash cut off, and a compensation of an order that has failed, and does not come back to them"
    )
    func recovery() async throws {
        try await run { bed, parts, lines in
            let id = try await confirmed(parts)
            let failed = try await confirmed(parts)
            bed.product.state.withLock { state in
                for id in [id, failed] { state.refusals["INC-\(id)"] = (422, "KEY_REUSED") }
            }
            _ = try await bed.pool.query("update orders set cancel_requested_at = now(), cancel_key = 'c' where id = $1", [.int(id)])
            _ = try await bed.pool.query("update orders set status = 'FAILED', fail_reason = 'INVALID_STATE' where id = $1", [.int(failed)])
            _ = try await bed.pool.query("insert into saga_work (order_id, due_at) select id, now() from orders on conflict do nothing")
            #expect(await parts.recovery.round() == false)
            #expect(try await bed.count("select count(*) from saga_work") == 0)
            #expect(try await bed.count("select count(*) from orders where cancel_requested_at is not null") == 0)
            #expect(try await bed.count("select count(*) from orders where id = \(id) and status = 'CONFIRMED'") == 1)
            #expect(try await bed.count("select count(*) from orders where id = \(failed) and status = 'FAILED'") == 1)
            #expect(lines.errors.count == 2)
            #expect(lines.errors.contains { $0.contains("during=cancel") } && lines.errors.contains { $0.contains("during=late_success") })
            let asked = bed.product.seen.count
            #expect(await parts.recovery.round() == false)
            #expect(bed.product.seen.count == asked)
        }
    }

    @Test("no answer is no refusal: the cancellation goes on until there is one")
    func unanswered() async throws {
        try await run { bed, parts, lines in
            let id = try await confirmed(parts)
            bed.product.state.withLock { $0.refusals["INC-\(id)"] = (401, "UNAUTHORIZED") }
            _ = try await bed.pool.query("update orders set cancel_requested_at = now() where id = $1", [.int(id)])
            _ = try await bed.pool.query("insert into saga_work (order_id, due_at) values ($1, now()) on conflict do nothing", [.int(id)])
            _ = await parts.recovery.round()
            #expect(try await bed.count("select count(*) from saga_work") == 1)
            #expect(lines.errors.isEmpty)
            bed.product.state.withLock { $0.refusals = [:] }
            _ = try await bed.pool.query("update saga_work set due_at = now()")
            _ = await parts.recovery.round()
            #expect(try await bed.count("select count(*) from orders where status = 'CANCELLED'") == 1)
        }
    }

    @Test("a late success whose stock is not taken back ends as well")
    func lateSuccess() async throws {
        try await run { bed, parts, lines in
            let id = try await confirmed(parts)
            bed.product.state.withLock { $0.refusals["INC-\(id)"] = (422, "KEY_REUSED") }
            // Somebody has failed the order while this server's call was out.
            _ = try await bed.pool.query("update orders set status = 'PENDING'")
            let order = try #require(try await parts.flows.conclusion.store.order(id: id))
            _ = try await bed.pool.query("update orders set status = 'FAILED', fail_reason = 'INSUFFICIENT_STOCK'")
            #expect(await parts.recovery.recover(OrderStore.Work(order: order, attempt: 2)))
            #expect(try await bed.count("select count(*) from saga_work") == 0)
            #expect(lines.errors.count == 1)
            #expect(parts.foundation.metrics.undoRefused[.lateSuccess]?.value == 1)
        }
    }

    @Test(
        "a later step is refused and the stock is not taken back: the order has failed with that step's reason, and is no longer worked on"
    )
    func inTheSaga() async throws {
        try await run { bed, parts, lines in
            let payment = ScriptedStep("PAYMENT", [.refused(reason: "CARD_DECLINED"), .refused(reason: "CARD_DECLINED")])
            var foundation = parts.foundation
            foundation.steps.append(payment.step)
            let placing = OrderFlows(parts.settings, on: foundation).placing
            // The next id is known: blocks begin at 1.
            bed.product.state.withLock { state in
                for id in 1...3 { state.refusals["INC-\(id)"] = (422, "KEY_REUSED") }
            }
            let placed = try await PlacedOrder.awaited { placing.place(OrderDraft(productID: 1, quantity: 3), done: $0) }
            #expect(placed.order.status == .failed)
            #expect(placed.order.failReason == "CARD_DECLINED")
            #expect(lines.errors.count == 1)
            #expect(lines.errors.first?.contains("key=INC-\(placed.order.id) ") ?? false)
            #expect(parts.foundation.metrics.undoRefused[.saga]?.value == 1)
            #expect(try await bed.count("select count(*) from saga_work") == 0)
            let steps = try #require(try await foundation.store.orderWithSteps(id: placed.order.id)).steps
            #expect(steps.contains("CARD_DECLINED") && steps.contains("KEY_REUSED"))
        }
    }
}

/// The same over the broker.
extension OutboxTests {
    @Test("a late success of an earlier run whose stock is not taken back does not hold up the results behind it")
    func refusedLateSuccess() async throws {
        try await run { bed, _, results in
            let id = try self.id(try await accept(bed))
            results.put(result("REFUSED", id, reason: #""INVALID_STATE""#))
            try await bed.wait("select count(*) from orders where status = 'FAILED'", for: 1)
            #expect(try await bed.send(.POST, "/internal/orders/\(id)/retry", admin: true)["status"] == "CONFIRMED")
            bed.product.state.withLock { $0.refusals["INC-\(id)"] = (422, "KEY_REUSED") }
            results.put(result("COMMITTED", id))
            let next = try self.id(try await accept(bed))
            results.put(result("COMMITTED", next))
            try await bed.wait("select count(*) from orders where id = \(next) and status = 'CONFIRMED'", for: 1)
            #expect(try await bed.count("select count(*) from orders where id = \(id) and status = 'CONFIRMED' and run = 2") == 1)
            try await results.waitUntilAcknowledged(3)
            try await bed.wait(metric: #"stockgate_orders_undo_refused_total{during="late_success"} 1"#)
        }
    }
}
