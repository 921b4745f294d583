import Eventually
import Foundation
import NIOHTTP1
import PostgresClient
import PrivateServers
import Synchronization
import Testing

extension Faults {
    /// Three sentinels, a master and a replica, and product servers that find the master through the sentinels.
    @Suite("Redis fails over", .serialized, .timeLimit(.minutes(10)))
    struct RedisFailover {}
}

extension Faults.RedisFailover {
    /// The bounds that the tests wait for, and the ones that a debug build on a busy machine needs wider than the defaults.
    private static func settings(_ postgres: PrivatePostgres, _ redis: String, audit: String = "1s") -> [String: String] {
        [
            "PRODUCT_DATABASE_URL": postgres.url, "REDIS_URL": redis, "REDIS_SENTINEL_PASSWORD": PrivateSentinels.sentinelPassword,
            "GATE_TIMEOUT": "500ms", "BREAKER_WAIT": "500ms", "PENDING_BOUND": "1500ms", "SWEEP_INTERVAL": "500ms", "GATED_REFRESH": "1s",
            "AUDIT_INTERVAL": audit,
        ]
    }

    private static func product(at address: String, stock: Int) async throws -> Int64 {
        let client = try await Client(address)
        defer { client.close() }
        let body = "{\"name\":\"Hot\",\"price\":1,\"stock\":\(stock),\"stockStrategy\":\"REDIS_FIRST\"}"
        let answer = try await client.call(.POST, "/products", json: body)
        return try #require(answer.id, "\(answer.text)")
    }

    /// The master that a server has found, as its readiness says.
    private static func master(_ server: Client) async throws -> String? {
        let states = try await server.call(.GET, "/readyz?verbose").json["dependencies"] as? [String: [String: Any]]
        return (states?["redis"]?["detail"] as? [String: Any])?["master"] as? String
    }

    /// The ledger's rows and stock are what the buyers were told, and Redis holds exactly that stock.
    private static func booksAreExact(_ sale: ShortSale, stock initial: Int, _ postgres: PrivatePostgres, _ admin: Client) async throws {
        let connection = try PostgresConnection(configuration: PostgresConfiguration.patient(postgres.url))
        let rows = try await connection.query(
            "select request_id, quantity from stock_ledger where product_id = $1 and direction = 'OUT'",
            [.int(sale.product)]
        )
        let keys = try rows.map { try $0.decode(0, as: String.self) }
        let row = try await connection.query("select stock from product_stock where product_id = $1", [.int(sale.product)]).one()
        let stock = Int(try row.decode(0, as: Int64.self))
        await connection.close()
        let told = sale.told
        #expect(Set(keys) == told.sold, "the ledger has sold what buyers were told, and nothing else")
        #expect(keys.count == told.sold.count && told.unknown.isEmpty, "unknown: \(told.unknown)")
        #expect(stock == initial - told.sold.count && stock >= 0)
        try await until("Redis holds exactly the ledger's stock") {
            let audit = try await admin.call(.GET, "/admin/audit/products/\(sale.product)").json
            return audit["drift"] as? Int == 0 && audit["redisPending"] as? Int == 0 && audit["databaseStock"] as? Int == stock
                && audit["redisStock"] as? Int == stock && audit["fence"] as? Int == audit["redisFence"] as? Int
        }
    }

    @Test func theMasterIsKilled() async throws {
        let redis = try await PrivateSentinels.start()
        defer { redis.stop() }
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        let server = try ServerProcess("product-server", Self.settings(postgres, redis.url))
        defer { server.destroy() }
        let (address, adminAddress) = try await server.ready()
        let (client, admin) = (try await Client(address), try await Client(adminAddress))
        defer { for client in [client, admin] { client.close() } }
        let stock = 100_000
        let sale = ShortSale(product: try await Self.product(at: address, stock: stock))
        let buyers = sale.open(at: address, buyers: 8)
        do {
            try await until("it sells through Redis") { await admin.breaker() == "CLOSED" }
            try await sale.sells(200, "before")
            let old = try #require(try redis.named())
            #expect(try await Self.master(client) == "127.0.0.1:\(old)")
            let reserves = try await admin.metric("stockgate_reserves_total")
            #expect(reserves > 0)

            let began = ContinuousClock.now
            try #require(redis.server(at: old)).one.kill()
            try await until("the breaker is open") { ["OPEN", "HALF_OPEN"].contains(await admin.breaker()) }
            let opened = ContinuousClock.now - began
            let before = sale.told.sold.count
            try await sale.sells(100, "without a master")
            try await redis.untilFailedOver(from: old)
            let failedOver = ContinuousClock.now - began
            let meanwhile = sale.told.sold.count - before
            try await until("it sells through Redis again", within: .seconds(120)) { await admin.breaker() == "CLOSED" }
            let closed = ContinuousClock.now - began
            try await sale.sells(200, "with the new master")
            let new = try #require(try redis.named())
            #expect(new != old)
            #expect(try await Self.master(client) == "127.0.0.1:\(new)")
            #expect(try await admin.metric("stockgate_redis_master_changes_total") >= 1)
            try await until("the gate is used") { try await admin.metric("stockgate_reserves_total") > reserves + 100 }
            try await until("a sentinel is listened to") { try await admin.metric("stockgate_redis_sentinels_heard") == 1 }

            sale.close()
            await buyers.value
            try await Self.booksAreExact(sale, stock: stock, postgres, admin)
            #expect(server.lines("the sentinels name the master of Redis").contains { $0.contains("127.0.0.1:\(new)") }, "\(server.log)")
            #expect(!server.log.contains(PrivateSentinels.serverPassword) && !server.log.contains(PrivateSentinels.sentinelPassword))
            print(
                "FAULT Redis' master killed: breaker open after \(opened.text), new master after \(failedOver.text), \(meanwhile) units sold "
                    + "meanwhile, breaker closed after \(closed.text); sold \(sale.told.sold.count), refused \(sale.told.refused), books exact"
            )
        } catch {
            sale.close()
            await buyers.value
            throw SystemFailure(description: "\(error); told \(sale.told.words); the log: \(server.log)")
        }
    }

    /// The old master is cut off from the sentinels and its replica, which becomes the master. One product server hears no sentinel and goes on selling on the old
    /// one, while another one sells on the new one.
    @Test func theOldMasterSellsOnDuringAPartition() async throws {
        let redis = try await PrivateSentinels.start()
        defer { redis.stop() }
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        var proxies: [FaultProxy] = []
        for sentinel in redis.sentinels { proxies.append(try await FaultProxy.start(to: sentinel.port)) }
        // Its audit does not come by: nothing but its own sales tells it what the other server does.
        let behind = redis.url(proxies.map { "127.0.0.1:\($0.port)" })
        let left = try ServerProcess("product-server", Self.settings(postgres, behind, audit: "1h"))
        defer { left.destroy() }
        let (leftAddress, leftAdminAddress) = try await left.ready()
        let right = try ServerProcess("product-server", Self.settings(postgres, redis.url))
        defer { right.destroy() }
        let (rightAddress, rightAdminAddress) = try await right.ready()
        let (leftClient, leftAdmin) = (try await Client(leftAddress), try await Client(leftAdminAddress))
        let (rightClient, rightAdmin) = (try await Client(rightAddress), try await Client(rightAdminAddress))
        defer { for client in [leftClient, leftAdmin, rightClient, rightAdmin] { client.close() } }
        var stock = 1_500
        let sale = ShortSale(product: try await Self.product(at: rightAddress, stock: stock))
        do {
            try await until("both sell through Redis") {
                let states = (await leftAdmin.breaker(), await rightAdmin.breaker())
                return states == ("CLOSED", "CLOSED")
            }
            try await until("the left server knows the product") { try await leftAdmin.metric("stockgate_gated_products") == 1 }
            await sale.sell(100, at: leftAddress)
            await sale.sell(100, at: rightAddress)
            let old = try #require(try redis.named())
            let oldServer = try #require(redis.server(at: old)).one

            // The partition.
            let began = ContinuousClock.now
            for proxy in proxies {
                try await proxy.refuse()
                try await proxy.reset()
            }
            try redis.cutOff(oldServer)
            try await redis.untilFailedOver(from: old)
            let new = try #require(try redis.named())
            try await until("the right server uses the new master") {
                let isThere = try await Self.master(rightClient) == "127.0.0.1:\(new)"
                let breaker = await rightAdmin.breaker()
                return isThere && breaker == "CLOSED"
            }
            let failedOver = ContinuousClock.now - began
            #expect(try await Self.master(leftClient) == "127.0.0.1:\(old)")
            #expect(await leftAdmin.breaker() == "CLOSED")
            #expect(try oldServer.call(["ROLE"], password: PrivateSentinels.serverPassword).contains("master"))

            // Both sell at the same time, each through its own master.
            let reserves = (try await leftAdmin.metric("stockgate_reserves_total"), try await rightAdmin.metric("stockgate_reserves_total"))
            async let ofLeft: Void = sale.sell(200, at: leftAddress)
            async let ofRight: Void = sale.sell(200, at: rightAddress)
            _ = await (ofLeft, ofRight)
            #expect(try await leftAdmin.metric("stockgate_reserves_total") > reserves.0)
            #expect(try await rightAdmin.metric("stockgate_reserves_total") > reserves.1)
            #expect(sale.told.sold.count == 600, "\(sale.told.words)")

            // One more makes the left server's Redis as exact as it will be. Then the right server sells all that is left.
            await sale.sell(1, at: leftAddress)
            let before = sale.told.sold.count
            await sale.sell(stock - before + 50, at: rightAddress)
            #expect(sale.told.sold.count == stock, "\(sale.told.words)")
            // The old master still promises units, which the ledger refuses.
            let counter = try oldServer.call(["GET", "sg:{\(sale.product)}:stock"], password: PrivateSentinels.serverPassword)
            let promised = counter.split(separator: "\r\n").last.flatMap { Int($0) } ?? 0
            #expect(promised > 0, "the old master holds \(counter)")
            func refusals() async throws -> (told: Int, gate: Double, memory: Double, ledger: Double) {
                (
                    sale.told.refused, try await leftAdmin.metric("stockgate_sold_out_at_gate_total"),
                    try await leftAdmin.metric("stockgate_sold_out_from_memory_total"),
                    try await leftAdmin.metric("stockgate_decreases_refused_total")
                )
            }
            let refused = try await refusals()
            await sale.sell(20, at: leftAddress)
            let now = try await refusals()
            #expect(now.told == refused.told + 20 && sale.told.sold.count == stock, "\(sale.told.words)")
            #expect(now.gate == refused.gate, "the gate promised")
            #expect(now.ledger > refused.ledger, "the ledger refused")
            #expect(now.ledger - refused.ledger + now.memory - refused.memory == 20)

            // The partition ends: the old master becomes a replica, and the left server finds the new one.
            let healed = ContinuousClock.now
            try redis.rejoin(oldServer)
            for proxy in proxies { try await proxy.heal() }
            try await until("the left server uses the new master", within: .seconds(120)) {
                try await Self.master(leftClient) == "127.0.0.1:\(new)"
            }
            let moved = ContinuousClock.now - healed
            try await until("the old master is a replica", within: .seconds(120)) {
                try oldServer.call(["ROLE"], password: PrivateSentinels.serverPassword).contains("slave")
            }
            try await until("both breakers are closed", within: .seconds(120)) {
                let states = (await leftAdmin.breaker(), await rightAdmin.breaker())
                return states == ("CLOSED", "CLOSED")
            }
            let more = try await rightAdmin.call(
                .POST,
                "/admin/products/\(sale.product)/stock-adjustments",
                json: #"{"quantity":100}"#,
                headers: [("Idempotency-Key", "ADJ-1")]
            )
            try #require(more.status == 200, "\(more.text)")
            stock += 100
            // Until they are installed a buyer who comes for the first time is told that nothing is left.
            try await until("the units that came are on sale") {
                try await rightAdmin.call(.GET, "/admin/audit/products/\(sale.product)").json["redisStock"] as? Int == 100
            }
            await sale.sell(40, at: leftAddress)
            await sale.sell(40, at: rightAddress)
            #expect(sale.told.sold.count == stock - 20, "\(sale.told.words)")
            for admin in [leftAdmin, rightAdmin] { try await Self.booksAreExact(sale, stock: stock, postgres, admin) }
            print(
                "FAULT Redis' old master cut off and still used by one of two servers: the other one sold through the new master after \(failedOver.text), "
                    + "the first moved \(moved.text) after the partition; sold \(sale.told.sold.count), refused \(sale.told.refused), books exact"
            )
        } catch {
            throw SystemFailure(description: "\(error); told \(sale.told.words); left: \(left.log); right: \(right.log)")
        }
        for proxy in proxies { try await proxy.shutdown() }
    }
}

/// Buyers who are still to come.
private final class Visitors: Sendable {
    private let left: Mutex<Int>

    init(_ count: Int) { left = Mutex(count) }

    func next() -> Bool {
        left.withLock { left in
            left -= 1
            return left >= 0
        }
    }
}

/// Buyers of one unit each, without an order server: each sends its key again, as a repeat, until it is told what became of it.
final class ShortSale: Sendable {
    struct Told: Sendable {
        var sold: Set<String> = []
        var refused = 0
        /// Keys about which nothing was told, whatever was asked.
        var unknown: [String] = []
        /// Answers of another kind.
        var odd: [String] = []

        var words: String { "sold \(sold.count), refused \(refused), unknown \(unknown.count), odd \(odd.prefix(3))" }
    }

    let product: Int64
    private let state: Mutex<(told: Told, next: Int64, isOpen: Bool)>

    /// - Parameter firstOrder: the buyers' orders are numbered from here; those of two sales of one ledger must not meet
    init(product: Int64, firstOrder: Int64 = 9_000_000_000_000_001) {
        self.product = product
        state = Mutex((told: Told(), next: firstOrder, isOpen: true))
    }

    var told: Told { state.withLock { $0.told } }

    /// So many buyers come to one server, eight at a time.
    func sell(_ count: Int, at address: String) async {
        let visitors = Visitors(count)
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    guard let client = try? await Client(address) else { return }
                    while visitors.next() { await self.buy(client) }
                    client.close()
                }
            }
        }
    }

    /// Buyers come to one server until the sale is closed.
    func open(at address: String, buyers: Int) -> Task<Void, Never> {
        Task {
            await withTaskGroup(of: Void.self) { group in
                for _ in 0..<buyers {
                    group.addTask {
                        guard let client = try? await Client(address) else { return }
                        while self.state.withLock({ $0.isOpen }) { await self.buy(client) }
                        client.close()
                    }
                }
            }
        }
    }

    func close() { state.withLock { $0.isOpen = false } }

    /// Waits until so many more units are sold.
    func sells(_ count: Int, _ when: String) async throws {
        let before = told.sold.count
        try await eventuallyAtLeast(before + count, "units sold \(when)") { self.told.sold.count }
    }

    private func buy(_ client: Client) async {
        let order = state.withLock { state in
            state.next += 1
            return state.next
        }
        let key = "DEC-\(order)"
        for attempt in 1...200 {
            let answer = try? await client.call(
                .PATCH,
                "/products/\(product)/stock/decrease-by-order",
                json: "{\"orderId\":\(order),\"quantity\":1}",
                headers: [("Idempotency-Key", key), ("Idempotency-Attempt", String(attempt))]
            )
            switch (answer?.status, answer?.error) {
            case (200, _):
                state.withLock { _ = $0.told.sold.insert(key) }
                return
            // A repeat that finds too little closes its key.
            case (400, "INSUFFICIENT_STOCK"), (409, "KEY_CLOSED"):
                state.withLock { $0.told.refused += 1 }
                return
            case (nil, _), (503, _), (424, _), (504, _), (409, _): try? await Task.sleep(for: .milliseconds(50))
            default:
                state.withLock { $0.told.odd.append(answer?.text ?? "") }
                return
            }
        }
        state.withLock { $0.told.unknown.append(key) }
    }
}
