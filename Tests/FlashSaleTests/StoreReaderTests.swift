import Foundation
import NIOPosix
import PostgresClient
import PrivateServers
import Testing

@testable import FlashSaleKit

@Suite("The audit of real stores", .timeLimit(.minutes(10)))
struct StoreReaderTests {
    /// The ledger's schema is the product server's own, so that a change there which the audit cannot read fails here.
    private static func ledger() throws -> String {
        let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../../Sources/StockGate/Ledger/Migrations")
        let files = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
        return try files.sorted { $0.lastPathComponent < $1.lastPathComponent }.map { try String(contentsOf: $0, encoding: .utf8) }.joined()
    }

    private static let orders = """
        CREATE TABLE orders (id bigint PRIMARY KEY, product_id bigint NOT NULL, buyer_id text, quantity bigint NOT NULL, status text NOT NULL, fail_reason text,
            idempotency_key text,
            created_at timestamptz NOT NULL DEFAULT '2026-01-31T09:30:00Z', updated_at timestamptz NOT NULL DEFAULT '2026-01-31T09:30:00.25Z');
        CREATE TABLE outbox (id bigint PRIMARY KEY, product_id bigint, status text NOT NULL);
        INSERT INTO outbox VALUES (1, 5, 'NEW'), (2, 5, 'SENT'), (3, NULL, 'FAILED'), (4, 5, 'DEAD'), (5, 6, 'NEW');
        """

    @Test func booksInPostgresAndRedisAreReadAndBreaksAreFound() async throws {
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        let redis = try PrivateRedis.start()
        defer { redis.stop() }
        // Both schemas in one database: the audit opens two connections all the same.
        let sql = try PostgresConnection(configuration: PostgresConfiguration.patient(postgres.url))
        try await sql.execute(script: Self.ledger() + Self.orders)
        try await sql.execute(
            script: """
                INSERT INTO product_stock (product_id, stock, initial_stock, fence) VALUES (5, 30, 1000, 3), (6, 1, 1, 1);
                INSERT INTO orders SELECT n, 5, 'buyer', 1, 'CONFIRMED' FROM generate_series(1, 980) n;
                INSERT INTO orders VALUES (981, 5, 'buyer', 1, 'FAILED', 'INSUFFICIENT_STOCK'), (982, 5, 'buyer', 2, 'CANCELLED', NULL), (983, 6, 'buyer', 1, 'PENDING', NULL);
                INSERT INTO stock_ledger (product_id, request_id, direction, quantity, reason, order_id, fence, token, remaining)
                    SELECT 5, 'DEC-' || n, 'OUT', 1, 'ORDER_DECREMENT', n, 0, 0, 0 FROM generate_series(1, 980) n;
                INSERT INTO stock_ledger (product_id, request_id, direction, quantity, reason, order_id, fence, token, remaining) VALUES
                    (5, 'DEC-982', 'OUT', 2, 'ORDER_DECREMENT', 982, 0, 0, 0), (5, 'INC-982', 'IN', 2, 'ORDER_INCREMENT', 982, 0, 0, 0),
                    (5, 'DEC-990', 'CLOSED', 0, 'COMPENSATED', 990, 0, 0, 0), (5, 'INC-990', 'CLOSED', 7, 'NOTHING_TO_RETURN', 990, 0, 0, 0),
                    (5, 'restock', 'IN', 15, 'MANUAL', 0, 0, 0, 0), (5, 'breakage', 'OUT', 5, 'ADJUST', 0, 0, 0, 0);
                """
        )
        for command in [["SET", "sg:{5}:stock", "30"], ["HSET", "sg:{5}:meta", "fence", "3"]] { _ = try redis.call(command) }
        let reader = try StoreReader(
            productDatabase: postgres.url,
            orderDatabase: postgres.url,
            redisURL: redis.url,
            eventLoopGroup: MultiThreadedEventLoopGroup.singleton
        )
        let sound = try await Audit.run(reader, product: 5, load: nil)
        #expect(sound.findings == [])
        #expect(sound.line == "AUDIT PASS initial=1000 confirmed=980 oversold=0 leaked=0 unmatched=0 pending=0 drift=0")
        #expect(try await Audit.settle(reader, product: 5, bound: .seconds(60), interval: .milliseconds(5)))

        #expect(try await reader.outbox(of: 5) == OutboxTotals(open: 3, dead: 1))
        #expect(try await reader.hasWaitingMessages())
        let drain = try await Drain.read(reader, product: 5, accepted: Array(1...982) + [99_999], pageSize: 100)
        #expect(drain.confirmed == 980 && drain.soldOut == 1 && drain.failed == 1 && drain.failReasons == ["CANCELLED": 1])
        #expect(drain.latencies.count == 982 && abs(drain.latencies.milliseconds(at: 50) - 250) < 1 && drain.seconds == 0.25)
        #expect(drain.promised == Array(1...980) + [99_999])

        // Pages are complete, whatever their size.
        var matching = OrderMatching()
        try await matching.compare(reader, product: 5, confirmedAnswers: Array(1...980), pageSize: 13)
        #expect(matching.unmatched == 0 && matching.examples.isEmpty && matching.offenders.isEmpty && matching.answersChecked == 980)

        try await sql.execute(script: "UPDATE orders SET idempotency_key = 'run-0-' || id WHERE id IN (5, 6)")
        #expect(
            try await reader.orders(of: 5, after: 4, limit: 1) == [
                OrderRow(id: 5, status: "CONFIRMED", quantity: 1, key: "run-0-5", buyer: "buyer")
            ]
        )
        var told = ToldAnswers()
        told.run = "run"
        told.tellConfirmed(5, number: ToldAnswers.number(index: 0, count: 5), buyer: 5)
        told.tellSoldOut(number: ToldAnswers.number(index: 0, count: 6))
        var answers = OrderMatching()
        try await answers.compare(reader, product: 5, confirmedAnswers: [5], told: told, pageSize: 13)
        #expect(answers.offenders.map(\.order) == [6] && answers.unmatched == 1 && answers.answersChecked == 2)

        try await sql.execute(script: "DELETE FROM stock_ledger WHERE request_id = 'DEC-77'")
        let broken = try await Audit.run(reader, product: 5, load: nil)
        #expect(broken.line == "AUDIT FAIL initial=1000 confirmed=980 oversold=0 leaked=1 unmatched=1 pending=0 drift=0")
        #expect(broken.findings.contains { $0.contains("order 77: CONFIRMED for 1 units, the ledger has 0 decrements") })

        _ = try redis.call(["HSET", "sg:{5}:pending", "DEC-1", "1"])
        _ = try redis.call(["SET", "sg:{5}:stock", "32"])
        let pending = try await Audit.run(reader, product: 5, load: nil)
        #expect(pending.pending == 1)
        #expect(pending.drift == 2)

        redis.kill()
        let blind = try await Audit.run(reader, product: 5, load: nil)
        #expect(blind.drift == nil)
        #expect(blind.findings.contains("drift: Redis does not answer"))

        await #expect(throws: PlanError.self) { try await Audit.run(reader, product: 404, load: nil) }
        await reader.close()
        await sql.close()
    }

    @Test func wrongSettingsAreNamedAndNotRepeated() {
        let group = MultiThreadedEventLoopGroup.singleton
        let error = #expect(throws: PlanError.self) {
            try StoreReader(
                productDatabase: "postgresql://u:secret@[nonsense",
                orderDatabase: "postgresql://127.0.0.1/x",
                redisURL: "redis://127.0.0.1:1",
                eventLoopGroup: group
            )
        }
        #expect(error?.description.contains("PRODUCT_DATABASE_URL") == true)
        #expect(error?.description.contains("secret") == false)
        let redis = #expect(throws: PlanError.self) {
            try StoreReader(
                productDatabase: "postgresql://127.0.0.1/x",
                orderDatabase: "postgresql://127.0.0.1/x",
                redisURL: "http://u:secret@127.0.0.1:1",
                eventLoopGroup: group
            )
        }
        #expect(redis?.description.contains("REDIS_URL") == true)
        #expect(redis?.description.contains("secret") == false)
    }
}
