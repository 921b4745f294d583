import FlashSaleKit
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import RedisClient

/// One kill under load.
struct LossRun: Hashable, Sendable {
    let side: Side
    let casualty: Casualty

    /// What there is to kill of each side.
    static let all: [LossRun] = [
        (Side.stockGate, [Casualty.redis, .database, .process]), (.gobatch, [.redis, .database, .process]),
        (.go, [.redis, .database, .process]),
        (.nginxLua, [.redis]), (.nginxLuaFsync, [.redis]), (.tarantool, [.process]),
    ].flatMap { side, casualties in casualties.map { LossRun(side: side, casualty: $0) } }
}

extension Bench {
    /// Connections of a run of losses: enough that some request is at every place between the gate and the commit.
    private static let clients = 32

    /// Sells, kills in the middle, starts again, and reads the books.
    func lose(_ run: LossRun, _ turn: Turn, stack: StackScript) async throws -> Loss {
        // After the kill before this one, some of the peers never make their broken connections again.
        try await restart(run.side)
        let target = try await patiently { try await self.target(run.side) }
        let request = ClosedLoop.Request(
            "PATCH",
            "/products/\(target.product)/stock/decrease-by-order",
            .numbered(before: "{\"orderId\":", after: ",\"quantity\":1}", keyPrefix: "DEC-"),
            after: turn.firstKey + 1
        )
        let endpoint = try HTTPEndpoint(target.url)
        let duration = turn.duration
        async let load = ClosedLoop.run(request, at: endpoint, connections: Self.clients, for: duration, on: loadLoop)
        try await Task.sleep(for: duration / 2)
        try await kill(run, stack)
        let figures = try await load
        try await revive(run, stack)
        var status = try await probe(target, turn.firstKey)
        let needed = status.map { $0 >= 500 } ?? true
        if needed {
            try await restart(run.side)
            status = try await probe(target, turn.firstKey)
        }
        var books = try await patiently { try await read(run.side, target) }
        books.told = Int64((figures.answered[200] ?? 0) + (status == 200 ? 1 : 0))
        books.unknown = Int64(figures.broken + figures.answered.filter { $0.key >= 500 }.values.reduce(0, +))
        return Loss(run.side, run.casualty, books, neededRestart: needed)
    }

    /// Sends one more buyer, under the run's first key, which nobody has used. Returns the first status below 500 within ten seconds, else the last status;
    /// nil without an answer.
    private func probe(_ target: Target, _ key: UInt64) async throws -> Int? {
        let caller = try await HTTPCaller.make(
            endpoint: try HTTPEndpoint(target.url),
            eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
            timeout: .seconds(5)
        )
        defer { caller.close() }
        let deadline = ContinuousClock.now + .seconds(10)
        var status: Int?
        repeat {
            status = try? await caller.call(
                .PATCH,
                "/products/\(target.product)/stock/decrease-by-order",
                json: "{\"orderId\":\(key),\"quantity\":1}",
                headers: [("Idempotency-Key", "DEC-\(key)")]
            ).status
            if let status, status < 500 { return status }
            try await Task.sleep(for: .milliseconds(200))
        } while ContinuousClock.now < deadline
        return status
    }

    /// Starts a peer's own processes anew: some hold one connection for ever.
    private func restart(_ side: Side) async throws {
        let names: [PeerStand.Name] =
            switch side {
            case .gobatch: [.gobatchProduct]
            case .go: [.goProduct]
            case .tarantool: [.tarantool]
            case .nginxLua: [.nginxLua]
            case .nginxLuaFsync: [.nginxLuaFsync]
            default: []
            }
        for name in names {
            await peers.stop(name)
            try await peers.start(name)
            try await patiently {
                let caller = try await HTTPCaller.make(
                    endpoint: try peers.endpoint(name),
                    eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
                    timeout: .seconds(5)
                )
                defer { caller.close() }
                // Any answer says that it listens.
                _ = try await caller.call(.GET, "/")
            }
        }
    }

    /// Repeats a call for up to 30 seconds. Our own connections may have ended with the database: the first call after that fails, and a later one makes a
    /// new connection.
    private func patiently<Value: Sendable>(_ body: @Sendable () async throws -> Value) async throws -> Value {
        let deadline = ContinuousClock.now + .seconds(30)
        while true {
            do {
                return try await body()
            } catch {
                guard ContinuousClock.now < deadline else { throw error }
                try await Task.sleep(for: .milliseconds(200))
            }
        }
    }

    /// What is left by the truth, and what the gate lets buyers have of it.
    private func read(_ side: Side, _ target: Target) async throws -> LossBooks {
        func counter(_ client: RedisClient, _ key: String) async throws -> Int64? {
            try await client.send(RedisCommand("GET", .string(key))).string.flatMap { Int64($0) }
        }
        func books(_ truth: Int64, _ sellable: Int64) -> LossBooks {
            LossBooks(initial: Self.plenty, told: 0, unknown: 0, truth: truth, sellable: min(truth, sellable))
        }
        switch side {
        case .gobatch: return books(try await peerStock("gobatch"), try await counter(peers.redis, "gobatch:stock:1") ?? 0)
        case .go: return books(try await peerStock("gopeer"), try await counter(peers.redis, "gopeer:stock:1") ?? 0)
        case .nginxLua, .nginxLuaFsync:
            // The counter is all there is. Where it is gone, the number that it began with is the only one that anybody knows.
            let left = try await counter(side == .nginxLua ? peers.redis : peers.fsyncRedis, "peer:stock:1") ?? Self.plenty
            return books(left, left)
        case .tarantool:
            guard let left = Int64(try await ask(.tarantool, "/stock")) else { throw Failure(description: "tarantool shows no stock") }
            return books(left, left)
        default:
            _ = try await Audit.settle(self.books, product: target.product, bound: .seconds(60), interval: .milliseconds(100))
            guard let row = try await self.books.product(target.product) else {
                throw Failure(description: "there is no product \(target.product)")
            }
            let ledger = try await self.books.ledgerTotals(of: target.product)
            guard row.initialStock + ledger.restocked + ledger.returned - ledger.sold == row.stock else {
                throw Failure(description: "product \(target.product): stock and ledger disagree")
            }
            return books(row.stock, await self.books.redisStock(of: target.product)?.counter ?? 0)
        }
    }

    private struct Target: Sendable {
        var product: Int64
        var url: String
    }

    private func target(_ side: Side) async throws -> Target {
        switch side {
        case .gobatch:
            try await resetGo(.gobatchProduct, Self.plenty)
            return Target(product: 1, url: try peers.endpoint(.gobatchProduct).url)
        case .go:
            try await resetGo(.goProduct, Self.plenty)
            return Target(product: 1, url: try peers.endpoint(.goProduct).url)
        case .nginxLua:
            try await fill(peers.redis)
            return Target(product: 1, url: try peers.endpoint(.nginxLua).url)
        case .nginxLuaFsync:
            try await fill(peers.fsyncRedis)
            return Target(product: 1, url: try peers.endpoint(.nginxLuaFsync).url)
        case .tarantool:
            _ = try await ask(.tarantool, "/admin/reset?stock=\(Self.plenty)")
            return Target(product: 1, url: try peers.endpoint(.tarantool).url)
        default:
            // Each kill finds servers that have recovered from the one before.
            try await untilBreaker("CLOSED")
            return Target(product: try await makeProduct(Self.plenty), url: try url("PRODUCT_PORT"))
        }
    }

    /// Puts the units on sale at a bare counter. A Redis that was started again has forgotten the script, too.
    private func fill(_ redis: RedisClient) async throws {
        let script = try String(contentsOfFile: "\(files)/reserve.lua", encoding: .utf8)
        _ = try await redis.send(RedisCommand("SCRIPT", "LOAD", .string(script)))
        _ = try await redis.send(RedisCommand("SET", "peer:stock:1", .string(String(Self.plenty))))
    }

    private func kill(_ run: LossRun, _ stack: StackScript) async throws {
        switch (run.casualty, run.side) {
        case (.redis, .nginxLuaFsync): peers.kill(.redisFsync)
        case (.redis, _): try await stack.run(["kill", "redis"])
        case (.database, _): try await stack.run(["kill", "postgres"])
        case (.process, .gobatch): peers.kill(.gobatchProduct)
        case (.process, .go): peers.kill(.goProduct)
        case (.process, .tarantool): peers.kill(.tarantool)
        case (.process, _): try await stack.run(["kill", "product-1"])
        }
    }

    /// Starts again what was killed, as its operator would.
    private func revive(_ run: LossRun, _ stack: StackScript) async throws {
        switch (run.casualty, run.side) {
        case (.redis, .nginxLuaFsync): try await peers.start(.redisFsync)
        case (.redis, _): try await stack.run(["start", "redis"])
        case (.database, _): try await stack.run(["start", "postgres"])
        case (.process, .gobatch): try await peers.start(.gobatchProduct)
        case (.process, .go): try await peers.start(.goProduct)
        case (.process, .tarantool): try await peers.start(.tarantool)
        case (.process, _): try await stack.run(["start", "product-1"])
        }
    }
}
