import Eventually
import Foundation
import NIOHTTP1
import PostgresClient
import PrivateServers
import Synchronization
import Testing

extension Faults {
    /// The servers' own processes, each over an address with two hosts: a primary and its synchronous standby.
    @Suite("Standby", .serialized, .timeLimit(.minutes(5)))
    struct Standby {}
}

extension Faults.Standby {
    /// What the buyers were told.
    private struct Told: Sendable {
        var confirmed: [Int64] = []
        var soldOut = 0
    }

    /// How many orders are decided.
    private final class Decided: Sendable {
        let count = Atomic(0)
    }

    /// Places one order, again and again under its key until it is decided.
    private static func order(_ number: Int, of product: Int64, at client: Client, _ told: inout Told) async throws {
        let json = "{\"productId\":\(product),\"quantity\":1,\"buyerId\":\"b-\(number)\"}"
        let deadline = ContinuousClock.now + .seconds(120)
        while ContinuousClock.now < deadline {
            let answer = try await client.call(.POST, "/orders", json: json, headers: [("Idempotency-Key", "key-\(number)")])
            if answer.json["status"] as? String == "CONFIRMED", let id = answer.id {
                told.confirmed.append(id)
                return
            }
            if answer.error == "INSUFFICIENT_STOCK" {
                told.soldOut += 1
                return
            }
            try await Task.sleep(for: .milliseconds(50))
        }
        throw SystemFailure(description: "order \(number) was not decided")
    }

    /// The primary of both databases is killed under load, and its standby promoted: buyers go on, and what they were told is there.
    @Test func theSaleGoesOnAtTheStandby() async throws {
        let primary = try PrivatePostgres.start(fsync: false)
        defer { primary.stop() }
        let admin = try PostgresConnection(configuration: try PostgresConfiguration.patient(primary.url))
        _ = try await admin.query("create database orders")
        let standby = try PrivatePostgres.startStandby(of: primary, name: "second")
        defer { standby.stop() }
        try await admin.execute(script: "alter system set synchronous_standby_names = 'second'")
        _ = try await admin.query("select pg_reload_conf()")
        // Commits wait once the checkpointer has read the setting, which it has done when it has taken a checkpoint.
        try await admin.execute(script: "checkpoint")
        let redis = try PrivateRedis.start(options: ["--save", ""])
        defer { redis.stop() }
        let hosts = "127.0.0.1:\(primary.port),127.0.0.1:\(standby.port)"
        let productSettings = [
            "PRODUCT_DATABASE_URL": "postgresql://postgres@\(hosts)/postgres", "REDIS_URL": redis.url, "GATE_TIMEOUT": "200ms",
        ]
        let products = try ServerProcess("product-server", productSettings)
        defer { products.destroy() }
        let productAddress = try await products.ready().address
        let orders = try ServerProcess(
            "order-server",
            ["ORDER_DATABASE_URL": "postgresql://postgres@\(hosts)/orders", "PRODUCT_SERVER_URL": productAddress]
        )
        defer { orders.destroy() }
        let orderAddress = try await orders.ready().address
        let shop = try await Client(productAddress)
        defer { shop.close() }
        let made = try await shop.call(.POST, "/products", json: #"{"name":"A","price":1,"stock":400,"stockStrategy":"REDIS_FIRST"}"#)
        let product = try #require(made.id, "\(made.text)")
        let decided = Decided()
        let sale = Task {
            try await withThrowingTaskGroup(of: Told.self) { group in
                for buyer in 0..<8 {
                    group.addTask {
                        let client = try await Client(orderAddress)
                        defer { client.close() }
                        var told = Told()
                        for number in stride(from: buyer, to: 480, by: 8) {
                            try await Self.order(number, of: product, at: client, &told)
                            decided.count.wrappingAdd(1, ordering: .relaxed)
                        }
                        return told
                    }
                }
                return try await group.reduce(into: Told()) { all, told in
                    all.confirmed += told.confirmed
                    all.soldOut += told.soldOut
                }
            }
        }
        try await eventuallyAtLeast(120, "orders decided") { decided.count.load(ordering: .relaxed) }
        let second = try PostgresConnection(configuration: try PostgresConfiguration.patient(standby.url))
        // The promoted server takes the setting over, and has no standby.
        try await second.execute(script: "alter system set synchronous_standby_names = ''")
        let began = ContinuousClock.now
        primary.kill()
        _ = try await second.query("select pg_promote(true, 60)", timeout: .seconds(90))
        let promoted = ContinuousClock.now
        let before = decided.count.load(ordering: .relaxed)
        try await eventuallyAtLeast(before + 8, "orders decided after the promotion") { decided.count.load(ordering: .relaxed) }
        let sells = ContinuousClock.now
        let told = try await sale.value
        #expect(told.confirmed.count == 400 && told.soldOut == 80, "\(told.confirmed.count) confirmed, \(told.soldOut) sold out")
        #expect(Set(told.confirmed).count == told.confirmed.count)
        let books = try await second.query(
            "select stock, (select count(*) from stock_ledger where direction = 'OUT') from product_stock where product_id = $1",
            [.int(product)]
        ).one()
        #expect(try books.decode(0, as: Int64.self) == 0 && books.decode(1, as: Int64.self) == 400)
        let rows = try PostgresConnection(
            configuration: try PostgresConfiguration.patient("postgresql://postgres@127.0.0.1:\(standby.port)/orders")
        )
        let confirmed = try await rows.query("select id from orders where status = 'CONFIRMED'")
        var known: Set<Int64> = []
        for row in confirmed { known.insert(try row.decode(0)) }
        #expect(known == Set(told.confirmed), "what was told is there, and nothing else")
        #expect(!products.lines("PostgreSQL is used at another host").isEmpty)
        #expect(products.lines("the ledger is another server's data than before").count == 1)
        #expect(!orders.lines("PostgreSQL is used at another host").isEmpty)
        print("FAULT primary killed, standby promoted: promoted after \(promoted - began), sells again \(sells - promoted) later")

        // The command of an operator, while the servers run.
        let check = try ServerProcess("product-server", productSettings, arguments: ["restore-check"])
        defer { check.destroy() }
        #expect(try await check.ended() == 0, "\(check.log)")
        #expect(check.printed.contains("1 products: ") && check.printed.contains("0 are not mended"), "\(check.printed)")
        let typo = try ServerProcess("product-server", productSettings, arguments: ["restore-chek"])
        defer { typo.destroy() }
        #expect(try await typo.ended() == 2)
    }
}

extension HighAvailability {
    /// The data behind the ledger's address go back, under two product servers that sell: what the longer failovers and restores do to Redis and to buyers.
    @Suite("The ledger goes back", .serialized, .timeLimit(.minutes(15)))
    struct LedgerGoesBack {}
}

extension HighAvailability.LedgerGoesBack {
    /// Two product servers over one ledger and one Redis. The audit does not come by: nothing but the ledger's own sessions tells what happened.
    private struct Shop {
        let settings: [String: String]
        let servers: [ServerProcess]
        let addresses: [String]
        let clients: [Client]
        let admins: [Client]

        init(ledger: String, _ redis: PrivateRedis) async throws {
            settings = [
                "PRODUCT_DATABASE_URL": ledger, "REDIS_URL": redis.url, "GATE_TIMEOUT": "500ms", "GATED_REFRESH": "1s",
                "AUDIT_INTERVAL": "1h",
            ]
            var servers: [ServerProcess] = []
            var (addresses, clients, admins): ([String], [Client], [Client]) = ([], [], [])
            for _ in 0..<2 {
                let server = try ServerProcess("product-server", settings)
                servers.append(server)
                let (address, admin) = try await server.ready()
                addresses.append(address)
                clients.append(try await Client(address))
                admins.append(try await Client(admin))
            }
            (self.servers, self.addresses, self.clients, self.admins) = (servers, addresses, clients, admins)
        }

        func stop() {
            for client in clients + admins { client.close() }
            for server in servers { server.destroy() }
        }

        var logs: String { servers.map(\.log).joined(separator: "\n---\n") }

        /// Makes a product, and waits until both servers sell it through Redis.
        /// - Parameter known: how many products there are then
        func product(stock: Int, known count: Double = 1) async throws -> Int64 {
            let body = "{\"name\":\"Hot\",\"price\":1,\"stock\":\(stock),\"stockStrategy\":\"REDIS_FIRST\"}"
            let answer = try await clients[0].call(.POST, "/products", json: body)
            let id = try #require(answer.id, "\(answer.text)")
            for admin in admins {
                try await until("both sell \(id) through Redis") {
                    let audit = try await admin.call(.GET, "/admin/audit/products/\(id)").json
                    let breaker = await admin.breaker()
                    let known = try await admin.metric("stockgate_gated_products")
                    return audit["redisStock"] as? Int == stock && breaker == "CLOSED" && known == count
                }
            }
            return id
        }

        func raiseFences(of product: Int64, _ count: Int) async throws {
            for _ in 0..<count {
                let answer = try await admins[0].call(.POST, "/admin/products/\(product)/load-stock-redis")
                try #require(answer.status == 200, "\(answer.text)")
            }
        }

        func fence(of product: Int64) async throws -> Int {
            try #require(try await admins[0].call(.GET, "/admin/audit/products/\(product)").json["fence"] as? Int)
        }

        /// The sum of a metric over both servers.
        func metric(_ name: String) async throws -> Double {
            try await admins[0].metric(name) + (try await admins[1].metric(name))
        }

        func isExact(_ product: Int64, _ stock: Int) async throws -> Bool {
            for admin in admins {
                let audit = try await admin.call(.GET, "/admin/audit/products/\(product)").json
                guard audit["drift"] as? Int == 0, audit["redisPending"] as? Int == 0, audit["databaseStock"] as? Int == stock,
                    audit["redisStock"] as? Int == stock, audit["fence"] as? Int == audit["redisFence"] as? Int
                else { return false }
            }
            return true
        }
    }

    /// The keys that a ledger has sold under.
    private static func keys(_ ledger: PostgresConnection, _ product: Int64) async throws -> Set<String> {
        let rows = try await ledger.query(
            "select request_id from stock_ledger where product_id = $1 and direction = 'OUT'",
            [.int(product)]
        )
        return Set(try rows.map { try $0.decode(0, as: String.self) })
    }

    /// An asynchronous standby that lacks the last sales takes over, while buyers come to two servers and Redis knows what is lost.
    @Test func theStandbyLacksTheLastSales() async throws {
        let primary = try PrivatePostgres.start(fsync: false)
        defer { primary.stop() }
        let standby = try PrivatePostgres.startStandby(of: primary, name: "second")
        defer { standby.stop() }
        let redis = try PrivateRedis.start(options: ["--save", ""])
        defer { redis.stop() }
        let shop = try await Shop(ledger: "postgresql://postgres@127.0.0.1:\(primary.port),127.0.0.1:\(standby.port)/postgres", redis)
        defer { shop.stop() }
        let first = try PostgresConnection(configuration: try PostgresConfiguration.patient(primary.url))
        let second = try PostgresConnection(configuration: try PostgresConfiguration.patient(standby.url))
        let stock = 200_000
        let sale = ShortSale(product: try await shop.product(stock: stock))
        let gone = ShortSale(product: try await shop.product(stock: 10, known: 2), firstOrder: 8_000_000_000_000_000)
        let buyers = shop.addresses.map { sale.open(at: $0, buyers: 4) }
        func end() async {
            sale.close()
            for one in buyers { await one.value }
        }
        do {
            try await sale.sells(300, "before")
            // From now on the standby gets nothing.
            try await second.execute(script: "alter system set primary_conninfo = ''")
            _ = try await second.query("select pg_reload_conf()")
            try await until("replication has ended") { try await first.query("select from pg_stat_replication").isEmpty }
            try await sale.sells(300, "that the standby lacks")
            await gone.sell(20, at: shop.addresses[0])
            #expect(gone.told.sold.count == 10 && gone.told.refused == 10, "\(gone.told.words)")
            try await shop.raiseFences(of: sale.product, 20)
            let lostFence = try await shop.fence(of: sale.product)
            let raised = try await shop.metric("stockgate_fences_raised_total")

            let began = ContinuousClock.now
            primary.kill()
            _ = try await second.query("select pg_promote(true, 60)", timeout: .seconds(90))
            let promoted = ContinuousClock.now
            let before = sale.told.sold
            try await sale.sells(1, "after the promotion")
            let sells = ContinuousClock.now
            try await sale.sells(300, "after the promotion")
            try await until("both servers have found the promoted server") {
                let moves = (
                    try await shop.admins[0].metric("stockgate_ledger_moves_total"),
                    try await shop.admins[1].metric("stockgate_ledger_moves_total")
                )
                let direct = try await shop.metric("stockgate_direct_products")
                return moves == (1, 1) && direct == 0
            }
            let gated = ContinuousClock.now
            // In one step, whatever the distance: a step for each product at most, for each server.
            let steps = try await shop.metric("stockgate_fences_raised_total") - raised
            #expect((1...8).contains(steps), "\(steps) steps")
            #expect(try await shop.fence(of: sale.product) > lostFence)
            // Redis had said that nothing is left.
            await gone.sell(20, at: shop.addresses[1])
            #expect(gone.told.sold.count == 20, "\(gone.told.words)")
            await end()
            let told = sale.told
            #expect(told.unknown.isEmpty && told.odd.isEmpty, "\(told.words)")
            let keys = try await Self.keys(second, sale.product)
            let lost = told.sold.subtracting(keys)
            #expect(lost.count >= 300 && lost.isSubset(of: before), "what was told after the promotion is there")
            #expect(keys.isSubset(of: told.sold))
            try await until("the books are exact at both servers") { try await shop.isExact(sale.product, stock - keys.count) }
            try await until("the books of the other product are exact") { try await shop.isExact(gone.product, 0) }
            print(
                "FAULT standby without the last \(lost.count) sales promoted: \((promoted - began).text) until then, sells after \((sells - promoted).text), "
                    + "all through Redis after \((gated - promoted).text), fences raised in \(Int(steps)) steps, books exact"
            )
        } catch {
            await end()
            throw SystemFailure(description: "\(error); told \(sale.told.words), \(gone.told.words); the logs: \(shop.logs)")
        }
    }

    /// A dump that is three hundred orders and twenty fences old is restored under two servers that sell, and an operator runs the check.
    @Test func aDumpIsRestoredUnderASale() async throws {
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        let admin = try PostgresConnection(configuration: try PostgresConfiguration.patient(postgres.url))
        _ = try await admin.query("create database shop")
        let redis = try PrivateRedis.start(options: ["--save", ""])
        defer { redis.stop() }
        let address = "postgresql://postgres@127.0.0.1:\(postgres.port)/shop"
        let shop = try await Shop(ledger: address, redis)
        defer { shop.stop() }
        let stock = 200_000
        let sale = ShortSale(product: try await shop.product(stock: stock))
        let buyers = shop.addresses.map { sale.open(at: $0, buyers: 4) }
        func end() async {
            sale.close()
            for one in buyers { await one.value }
        }
        do {
            try await sale.sells(100, "before")
            let dump = try postgres.dump("shop")
            try await sale.sells(300, "that the dump lacks")
            try await shop.raiseFences(of: sale.product, 20)
            let lostFence = try await shop.fence(of: sale.product)
            let began = ContinuousClock.now
            try postgres.restore("shop", from: dump)
            let before = sale.told.sold
            let check = try ServerProcess("product-server", shop.settings, arguments: ["restore-check"])
            defer { check.destroy() }
            #expect(try await check.ended() == 0, "\(check.printed) \(check.log)")
            #expect(check.printed.contains("1 products: ") && check.printed.contains("0 are not mended"), "\(check.printed)")
            try await sale.sells(300, "after the restore")
            let sells = ContinuousClock.now
            try await until("both servers have found the restored database") {
                let moves = (
                    try await shop.admins[0].metric("stockgate_ledger_moves_total"),
                    try await shop.admins[1].metric("stockgate_ledger_moves_total")
                )
                let direct = try await shop.metric("stockgate_direct_products")
                return moves == (1, 1) && direct == 0
            }
            #expect(try await shop.fence(of: sale.product) > lostFence)
            await end()
            let told = sale.told
            #expect(told.unknown.isEmpty && told.odd.isEmpty, "\(told.words)")
            let restored = try PostgresConnection(configuration: try PostgresConfiguration.patient(address))
            let keys = try await Self.keys(restored, sale.product)
            let lost = told.sold.subtracting(keys)
            #expect(lost.count >= 300 && lost.isSubset(of: before), "what was told after the restore is there")
            #expect(keys.isSubset(of: told.sold))
            try await until("the books are exact at both servers") { try await shop.isExact(sale.product, stock - keys.count) }
            print("FAULT dump without \(lost.count) sales restored: 300 units sold \((sells - began).text) after it was begun, books exact")
        } catch {
            await end()
            throw SystemFailure(description: "\(error); told \(sale.told.words); the logs: \(shop.logs)")
        }
    }
}
