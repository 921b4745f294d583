import Foundation
import FlashSaleKit
import NIOHTTP1
import PostgresClient
import PrivateServers
import Synchronization
import Testing

extension Faults {
    /// Three masters, and a product server whose products are spread over them.
    @Suite("Redis is a cluster", .serialized, .timeLimit(.minutes(10)))
    struct RedisIsACluster {}
}

extension HighAvailability {
    /// Three masters with a replica each.
    @Suite("A cluster of Redis fails over and moves slots", .serialized, .timeLimit(.minutes(20)))
    struct RedisClusterFailover {}
}

/// A product server over a private cluster, and one product for each master.
private struct ClusterShop {
    let cluster: PrivateCluster
    let postgres: PrivatePostgres
    let server: ServerProcess
    let address: String
    let client: Client
    let admin: Client
    /// A sale of a product of each master, in their order.
    let sales: [ShortSale]
    static let stock = 100_000

    /// Runs `body`, and stops everything behind it.
    static func with(replicas: Bool, _ body: (ClusterShop) async throws -> Void) async throws {
        let cluster = try await PrivateCluster.start(hasReplicas: replicas)
        defer { cluster.stop() }
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        let server = try ServerProcess(
            "product-server",
            [
                "PRODUCT_DATABASE_URL": postgres.url, "REDIS_URL": cluster.url, "GATE_TIMEOUT": "500ms", "BREAKER_WAIT": "500ms",
                "PENDING_BOUND": "1500ms", "SWEEP_INTERVAL": "500ms", "GATED_REFRESH": "1s", "AUDIT_INTERVAL": "1s",
            ]
        )
        defer { server.destroy() }
        let (address, adminAddress) = try await server.ready()
        let (client, admin) = (try await Client(address), try await Client(adminAddress))
        defer { for client in [client, admin] { client.close() } }
        var sales: [Int: ShortSale] = [:]
        // The ids are given in their order, so a few of them have a slot of each master.
        for _ in 0..<100 where sales.count < 3 {
            let body = "{\"name\":\"Hot\",\"price\":1,\"stock\":\(stock),\"stockStrategy\":\"REDIS_FIRST\"}"
            let answer = try await client.call(.POST, "/products", json: body)
            let product = try #require(answer.id, "\(answer.text)")
            let master = try home(of: product, cluster)
            if sales[master] == nil { sales[master] = ShortSale(product: product, firstOrder: 1_000_000_000 * (product + 1)) }
        }
        try #require(sales.count == 3)
        let shop = ClusterShop(
            cluster: cluster,
            postgres: postgres,
            server: server,
            address: address,
            client: client,
            admin: admin,
            sales: (0..<3).compactMap { sales[$0] }
        )
        do {
            try await body(shop)
        } catch {
            throw SystemFailure(description: "\(error); told \(shop.sales.map(\.told.words)); the log: \(server.log)")
        }
    }

    static func slot(of product: Int64, _ cluster: PrivateCluster) throws -> Int {
        let reply = try cluster.masters[0].call(["CLUSTER", "KEYSLOT", "sg:{\(product)}:stock"])
        return try #require(Int(reply.dropFirst().prefix { $0.isNumber }))
    }

    static func home(of product: Int64, _ cluster: PrivateCluster) throws -> Int {
        let slot = try slot(of: product, cluster)
        return try #require(cluster.masters.indices.first { cluster.slots(of: $0).contains(slot) })
    }

    func name(_ node: PrivateRedis) -> String { "redisStock@127.0.0.1:\(node.port)" }

    /// The states of all breakers on the admin port, by name.
    func states() async throws -> [String: String] {
        let answer = try await admin.call(.GET, "/admin/circuitbreakers")
        let breakers = answer.json["circuitBreakers"] as? [String: [String: Any]] ?? [:]
        return breakers.compactMapValues { $0["state"] as? String }
    }

    func areClosed(_ nodes: [PrivateRedis]) async throws -> Bool {
        try await states() == Dictionary(uniqueKeysWithValues: nodes.map { (name($0), "CLOSED") })
    }

    /// Each of the sales has sold what the ledger says, and Redis holds exactly what is left.
    func booksAreExact() async throws {
        let connection = try PostgresConnection(configuration: PostgresConfiguration.patient(postgres.url))
        for sale in sales {
            let rows = try await connection.query(
                "select request_id from stock_ledger where product_id = $1 and direction = 'OUT'",
                [.int(sale.product)]
            )
            let keys = try rows.map { try $0.decode(0, as: String.self) }
            let told = sale.told
            #expect(Set(keys) == told.sold, "product \(sale.product): the ledger has sold what buyers were told, and nothing else")
            #expect(keys.count == told.sold.count && told.unknown.isEmpty && told.odd.isEmpty, "\(told.words)")
            try await until("Redis holds exactly the stock of product \(sale.product)") {
                let audit = try await admin.call(.GET, "/admin/audit/products/\(sale.product)").json
                return audit["drift"] as? Int == 0 && audit["redisPending"] as? Int == 0
                    && audit["databaseStock"] as? Int == Self.stock - told.sold.count
                    && audit["redisStock"] as? Int == Self.stock - told.sold.count && audit["fence"] as? Int == audit["redisFence"] as? Int
            }
        }
        await connection.close()
    }

    /// Runs `body` while every product is sold.
    func selling(_ body: () async throws -> Void) async throws {
        let buyers = sales.map { $0.open(at: address, buyers: 3) }
        let result: Result<Void, any Error>
        do { result = .success(try await body()) } catch { result = .failure(error) }
        for sale in sales { sale.close() }
        for buyer in buyers { await buyer.value }
        try result.get()
    }
}

extension Faults.RedisIsACluster {
    @Test func aMasterThatIsDownSendsItsProductsToTheLedgerAndNoOthers() async throws {
        try await ClusterShop.with(replicas: false) { shop in
            let masters = shop.cluster.masters
            try await shop.selling {
                try await until("all breakers are closed") { try await shop.areClosed(masters) }
                for sale in shop.sales { try await sale.sells(50, "before") }
                let began = ContinuousClock.now
                masters[0].kill()
                try await until("its breaker is open") {
                    ["OPEN", "HALF_OPEN"].contains(try await shop.states()[shop.name(masters[0])])
                }
                let opened = ContinuousClock.now - began
                let reserves = try await shop.admin.metric("stockgate_reserves_total")
                let before = shop.sales.map(\.told.sold.count)
                for sale in shop.sales { try await sale.sells(50, "while a master is down") }
                let states = try await shop.states()
                #expect(states[shop.name(masters[1])] == "CLOSED" && states[shop.name(masters[2])] == "CLOSED", "\(states)")
                #expect(try await shop.admin.metric("stockgate_reserves_total") > reserves + 50)
                let ready = try await shop.client.call(.GET, "/readyz?verbose")
                let redis = (ready.json["dependencies"] as? [String: [String: Any]])?["redis"]
                let told = (redis?["detail"] as? [String: Any])?["breakers"] as? [String: String]
                #expect(ready.status == 200 && redis?["state"] as? String == "DEGRADED", "\(ready.text)")
                #expect(told?.count == 3 && told?[shop.name(masters[1])] == "CLOSED", "\(ready.text)")
                let meanwhile = zip(shop.sales, before).map { $0.told.sold.count - $1 }
                try masters[0].restart()
                try await until("all breakers are closed again", within: .seconds(120)) { try await shop.areClosed(masters) }
                for sale in shop.sales { try await sale.sells(50, "behind its return") }
                print("FAULT one of three masters of a cluster killed: its breaker open after \(opened.text), sold meanwhile \(meanwhile)")
            }
            try await shop.booksAreExact()
        }
    }
}

extension HighAvailability.RedisClusterFailover {
    @Test func eachMasterIsKilledOnce() async throws {
        try await ClusterShop.with(replicas: true) { shop in
            let cluster = shop.cluster
            var nodes = cluster.masters
            var lines: [String] = []
            try await shop.selling {
                try await until("all breakers are closed") { try await shop.areClosed(nodes) }
                for master in 0..<3 {
                    for sale in shop.sales { try await sale.sells(50, "before") }
                    let (began, before) = (ContinuousClock.now, shop.sales.map(\.told.sold.count))
                    try await cluster.failOver(master)
                    let failedOver = ContinuousClock.now - began
                    nodes[master] = cluster.replicas[master]
                    try await until("the breakers are those of the new masters, and closed", within: .seconds(120)) {
                        try await shop.areClosed(nodes)
                    }
                    let closed = ContinuousClock.now - began
                    let meanwhile = zip(shop.sales, before).map { $0.told.sold.count - $1 }
                    lines.append("master \(master): replica after \(failedOver.text), gated after \(closed.text), sold \(meanwhile)")
                    // It comes back as a replica of its replica. Most masters must be there for the next failover.
                    try cluster.masters[master].restart()
                    try await until("it follows") {
                        try cluster.masters[master].call(["INFO", "replication"]).contains("master_link_status:up")
                    }
                }
                for sale in shop.sales { try await sale.sells(50, "at the end") }
            }
            try await shop.booksAreExact()
            print("FAULT each master of a cluster killed once: " + lines.joined(separator: "; "))
        }
    }

    @Test func slotsMoveUnderASale() async throws {
        try await ClusterShop.with(replicas: false) { shop in
            let cluster = shop.cluster
            let rounds = 4
            var resyncs = 0.0
            try await shop.selling {
                try await until("all breakers are closed") { try await shop.areClosed(cluster.masters) }
                for sale in shop.sales { try await sale.sells(50, "before") }
                resyncs = try await shop.admin.metric("stockgate_resyncs_total")
                for round in 0..<rounds {
                    for (index, sale) in shop.sales.enumerated() {
                        let slot = try ClusterShop.slot(of: sale.product, cluster)
                        let (from, to) = (cluster.masters[(index + round) % 3], cluster.masters[(index + round + 1) % 3])
                        try cluster.beginMove(of: slot, from: from, to: to)
                        try await sale.sells(20, "while its slot is on its way")
                        try cluster.moveKeys(of: slot, from: from, to: to)
                        try cluster.endMove(of: slot, from: from, to: to)
                        let moved = Double(round * shop.sales.count + index + 1)
                        try await until("the server has moved the product") {
                            try await shop.admin.metric("stockgate_products_moved_total") >= moved
                        }
                        try await sale.sells(50, "at its new master")
                    }
                }
                resyncs = try await shop.admin.metric("stockgate_resyncs_total") - resyncs
            }
            #expect(try await shop.areClosed(cluster.masters), "a redirection is no trouble of Redis")
            try await shop.booksAreExact()
            let sold = shop.sales.reduce(0) { $0 + $1.told.sold.count }
            print("FAULT \(rounds * shop.sales.count) slots moved under a sale of \(sold) units: \(Int(resyncs)) resyncs, books exact")
        }
    }

    @Test func aMasterIsDemotedByHand() async throws {
        try await ClusterShop.with(replicas: true) { shop in
            let cluster = shop.cluster
            var nodes = cluster.masters
            try await shop.selling {
                try await until("all breakers are closed") { try await shop.areClosed(nodes) }
                for sale in shop.sales { try await sale.sells(50, "before") }
                #expect(try cluster.replicas[1].call(["CLUSTER", "FAILOVER"]).hasPrefix("+OK"))
                try await cluster.untilFailedOver(1)
                nodes[1] = cluster.replicas[1]
                try await until("the breakers are those of the masters", within: .seconds(120)) { try await shop.areClosed(nodes) }
                for sale in shop.sales { try await sale.sells(50, "behind it") }
            }
            try await shop.booksAreExact()
        }
    }
}
