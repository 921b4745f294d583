import Foundation
import Testing

extension Faults {
    /// Two servers of each kind that reach both databases through PgBouncer in transaction mode, and a broker.
    @Suite("Behind a pooler", .serialized, .stackWithPooler(instances: 2, hasBroker: true), .timeLimit(.minutes(15)))
    struct BehindAPooler {}
}

extension Faults.BehindAPooler {
    /// Orders, decreases and cancellations, with the pooler killed under them: commits are cut off with their outcome unknown.
    @Test func poolerKilled() async throws {
        try await RunningSale.hold("PgBouncer killed -9") { sale in
            for _ in 1...3 {
                try await sale.stack("kill pgbouncer")
                try await sale.isFelt()
                let began = ContinuousClock.now
                try await sale.stack("start pgbouncer")
                try await sale.sells(200, "after PgBouncer came back")
                await sale.note("sells again \((ContinuousClock.now - began).text) after PgBouncer was started")
            }
            _ = try await sale.settlesOrders()
        }
    }

    /// PostgreSQL dies behind a pooler that lives.
    @Test func postgresKilledBehindIt() async throws {
        try await RunningSale.hold("PostgreSQL killed -9 behind PgBouncer") { sale in
            try await sale.stack("kill postgres")
            try await sale.isFelt()
            try await sale.stack("start postgres")
            let back = try await sale.sells(200, "after PostgreSQL came back")
            await sale.note("sells again after \(back.text)")
        }
    }

    /// The breaker opens, the ledger sells, and the recovery makes Redis exact, all through the pooler.
    @Test func redisKilled() async throws {
        try await RunningSale.hold("Redis killed and restarted empty, PgBouncer before the databases") { sale in
            try await sale.stack("kill redis")
            try await sale.breaker(is: ["OPEN", "HALF_OPEN"])
            try await sale.sells(200, "without Redis")
            try await sale.stack("start redis")
            try await sale.breaker(is: ["CLOSED"])
            try await sale.sells(200, "with Redis again")
        }
    }

    /// An order server dies with orders in hand: the other one finds its lease ended, and what it left is settled.
    @Test func orderServerKilled() async throws {
        try await RunningSale.hold("order server killed -9, PgBouncer before the databases") { sale in
            try await sale.stack("kill order-1")
            try await sale.sells(100, "while order-1 is dead")
            try await sale.stack("start order-1")
            try await sale.sells(100, "after order-1 was started")
            _ = try await sale.settlesOrders()
        }
    }

    /// Orders over the broker: the outbox is polled, nobody listens.
    @Test func overTheBroker() async throws {
        try await AsyncSale.hold("orders over the broker, PgBouncer killed -9") { sale in
            try await sale.stack("kill pgbouncer")
            try await sale.stack("start pgbouncer")
            try await sale.accepts(200, "after PgBouncer came back")
            try await sale.heals()
        }
    }
}
