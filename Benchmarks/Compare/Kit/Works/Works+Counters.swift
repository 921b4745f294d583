// Peers without an order server: counters in memory, and PostgreSQL under pgbench.

import FlashSaleKit
import Foundation
import NIOCore
import PostgresClient
import RedisClient

extension Bench {
    // MARK: Counters

    func counterRefusals(_ side: Side, _ turn: Turn) async throws -> Outcome {
        _ = try await peers.redis.send(RedisCommand("SET", "peer:stock:1", "0"))
        let isWebdis = side == .webdis
        let load = Load(
            work: .soldOut,
            side: side,
            request: isWebdis
                ? ClosedLoop.Request("GET", "/DECRBY/peer:stock:1/1", .none) : Self.decrease("/products/1/stock/decrease-by-order", turn),
            url: try peers.endpoint(isWebdis ? .webdis : .nginxLua).url,
            // webdis has no script: its counter goes below zero, and the answer says so.
            expectation: .every(isWebdis ? 200 : 400)
        )
        return Outcome(samples: [try await drive(load, turn).sample])
    }

    func fsyncDecreases(_ turn: Turn) async throws -> Outcome {
        _ = try await peers.fsyncRedis.send(RedisCommand("SET", "peer:stock:1", .string(String(Self.plenty))))
        let load = Load(
            work: .durable,
            side: .nginxLuaFsync,
            request: Self.decrease("/products/1/stock/decrease-by-order", turn),
            url: try peers.endpoint(.nginxLuaFsync).url,
            expectation: .every(200)
        )
        let (sample, figures) = try await drive(load, turn)
        try await checkPeer(.nginxLuaFsync, answered: figures.answers) {
            Int64(try await peers.fsyncRedis.send(RedisCommand("GET", "peer:stock:1")).string ?? "") ?? 0
        }
        return Outcome(samples: [sample])
    }

    func tarantoolDecreases(_ turn: Turn) async throws -> Outcome {
        _ = try await ask(.tarantool, "/admin/reset?stock=\(Self.plenty)")
        let load = Load(
            work: .durable,
            side: .tarantool,
            request: Self.decrease("/products/1/stock/decrease-by-order", turn),
            url: try peers.endpoint(.tarantool).url,
            expectation: .every(200)
        )
        let (sample, figures) = try await drive(load, turn)
        try await checkPeer(.tarantool, answered: figures.answers) { Int64(try await ask(.tarantool, "/stock")) ?? 0 }
        return Outcome(samples: [sample])
    }

    // MARK: pgbench

    func hotRow(_ turn: Turn) async throws -> Outcome {
        let (sample, _) = try await pgbench(
            "hot-row.sql",
            .direct,
            .pgbenchRow,
            clients: turn.clients,
            turn,
            environment: peers.databaseEnvironment
        )
        return Outcome(samples: [sample])
    }

    func unitRows(_ turn: Turn) async throws -> Outcome {
        func taken() async throws -> Int64 {
            try await peers.database.query("SELECT count(*) FROM unit_reservations", []).one().decode(0)
        }
        let before = try await taken()
        var (sample, _) = try await pgbench(
            "unit-rows.sql",
            .durable,
            .pgbenchUnits,
            clients: turn.clients,
            turn,
            environment: peers.databaseEnvironment
        )
        // A transaction that finds every row locked has taken nothing.
        sample.requests = Int(try await taken() - before)
        sample.worked = sample.requests
        guard sample.requests > 0 else { throw Failure(description: "unit-rows.sql: nothing was taken") }
        return Outcome(samples: [sample])
    }

    func ledgerFunction(_ turn: Turn) async throws -> Outcome {
        guard let login = environment["PRODUCT_DATABASE_URL"].flatMap({ URLComponents(string: $0) }), let host = login.host,
            let port = login.port, let user = login.user, let password = login.password
        else { throw Failure(description: "PRODUCT_DATABASE_URL is no address of a database") }
        let id = try await makeProduct(Self.plenty, strategy: "DB_ONLY")
        guard let row = try await books.product(id) else { throw Failure(description: "there is no product \(id)") }
        let (sample, report) = try await pgbench(
            "batches.sql",
            .durable,
            .pgbenchFunction,
            clients: turn.clients,
            turn,
            environment: [
                "PGHOST": host, "PGPORT": String(port), "PGUSER": user, "PGPASSWORD": password,
                "PGDATABASE": String(login.path.dropFirst()),
            ],
            variables: ["product": id, "fence": row.fence],
            each: 128
        )
        let left = try await books.product(id)?.stock
        guard left == Self.plenty - Int64(report.transactions * 128) else {
            throw Failure(description: "batches.sql: \(report.transactions) transactions, and \(left ?? -1) units are left")
        }
        return Outcome(samples: [sample])
    }
}
