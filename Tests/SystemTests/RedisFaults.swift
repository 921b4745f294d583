import Foundation
import RedisClient
import Testing

extension Faults.OneInstance {
    @Test func redisRestartedEmpty() async throws {
        try await RunningSale.hold("Redis killed and restarted empty") { sale in
            for _ in 1...2 {
                try await Self.outage(sale, take: "kill redis", give: "start redis")
            }
        }
    }

    /// The dump holds an old counter, reservations that were settled since, and the fence of then.
    @Test func redisRestartedFromAnOldDump() async throws {
        try await RunningSale.hold("Redis restarted from an old dump") { sale in
            let dump = sale.stack.folder.appendingPathComponent("redis/data/dump.rdb")
            _ = try await sale.redis(.set("system-tests:dump", "old"))
            _ = try await sale.redis(RedisCommand("SAVE"))
            #expect(FileManager.default.fileExists(atPath: dump.path))
            _ = try await sale.redis(.set("system-tests:dump", "new"))
            try await sale.sells(300, "after the dump")
            try await Self.outage(sale, take: "kill redis", give: "start redis")
            #expect(try await sale.redis(.get("system-tests:dump")).string == "old", "the dump was loaded")
            try FileManager.default.removeItem(at: dump)
        }
    }

    /// Connections stay open and nothing answers.
    @Test func redisPaused() async throws {
        try await RunningSale.hold("Redis paused") { sale in
            try await Self.outage(sale, take: "pause redis", give: "resume redis")
        }
    }

    /// The counter alone is gone, evicted or deleted by hand, again and again: nobody is told that the product is discontinued.
    @Test func redisCounterLost() async throws {
        try await RunningSale.hold("Redis' counter lost") { sale in
            for _ in 1...10 {
                _ = try await sale.redis(RedisCommand("DEL", .string("sg:{\(sale.product)}:stock")))
                try await sale.sells(50, "after the counter was lost")
            }
        }
    }

    /// As after a restore of the product database: Redis is under a fence that the ledger has never had.
    @Test func redisAheadOfTheLedger() async throws {
        try await RunningSale.hold("Redis ahead of the ledger") { sale in
            for _ in 1...5 {
                _ = try await sale.redis(RedisCommand("HINCRBY", .string("sg:{\(sale.product)}:meta"), "fence", "1000"))
                try await sale.sells(50, "after Redis' fence went ahead")
            }
        }
    }

    /// Redis holds what another ledger installed: it is sold without Redis, until the other's keys are deleted.
    @Test func redisOfAnotherLedger() async throws {
        try await RunningSale.hold("Redis of another ledger") { sale in
            let meta = "sg:{\(sale.product)}:meta"
            _ = try await sale.redis(RedisCommand("HSET", .string(meta), "ledger", "1/other/public"))
            try await sale.sells(200, "without Redis")
            #expect(try await sale.redis(RedisCommand("HGET", .string(meta), "ledger")).string == "1/other/public", "nothing was installed")
            _ = try await sale.redis(RedisCommand("DEL", .string(meta)))
            try await sale.sells(200, "with Redis again")
            try await until("the name is the ledger's own") {
                let name = try await sale.redis(RedisCommand("HGET", .string(meta), "ledger")).string
                return name != nil && name != "1/other/public"
            }
        }
    }

    /// Takes Redis away until the fallback has sold, gives it back, and waits until the gate sells again.
    private static func outage(_ sale: RunningSale, take: String, give: String) async throws {
        var began = ContinuousClock.now
        try await sale.stack(take)
        try await sale.breaker(is: ["OPEN", "HALF_OPEN"])
        let opened = ContinuousClock.now - began
        try await sale.sells(200, "without Redis")
        began = ContinuousClock.now
        try await sale.stack(give)
        try await sale.breaker(is: ["CLOSED"])
        let closed = ContinuousClock.now - began
        try await sale.sells(200, "with Redis again")
        await sale.note("\(take): breaker open after \(opened.text), closed \(closed.text) after Redis was given back")
    }
}

extension Faults.TwoInstances {
    @Test func redisRestartedEmpty() async throws {
        try await RunningSale.hold("Redis killed and restarted empty, two instances") { sale in
            try await sale.stack("kill redis")
            for instance in 1...2 { try await sale.breaker(of: instance, is: ["OPEN", "HALF_OPEN"]) }
            try await sale.sells(200, "without Redis")
            let began = ContinuousClock.now
            try await sale.stack("start redis")
            for instance in 1...2 { try await sale.breaker(of: instance, is: ["CLOSED"]) }
            await sale.note("both breakers closed \((ContinuousClock.now - began).text) after Redis was given back")
            try await sale.sells(200, "with Redis again")
        }
    }
}
