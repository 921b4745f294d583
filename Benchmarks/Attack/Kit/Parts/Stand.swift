import Foundation
import PostgresClient

/// The servers that are attacked.
public struct Stand: Sendable {
    let productPort: Int
    let productAdminPort: Int
    let orderPort: Int
    let orderAdminPort: Int
    let gatewayPort: Int
    /// What the servers themselves were started with, for further servers beside them.
    let environment: [String: String]
    /// The folder of `product-server` and `order-server`.
    let binaries: String
    /// Opens or closes the gateway's way to what is for the shop's own services.
    let setPublicStock: @Sendable (Bool) async throws -> Void

    /// Why the servers cannot be attacked.
    public struct Failure: Error, CustomStringConvertible {
        /// A sentence.
        public let description: String
    }

    /// - Parameters:
    ///   - environment: what `scripts/stack env` prints
    ///   - binaries: where the servers' programs are
    ///   - setPublicStock: opens (`GATEWAY_PUBLIC_STOCK=true`) or closes the gateway's way to stock routes
    /// - Throws: ``Failure`` that names a missing setting
    public init(
        environment: [String: String],
        binaries: String,
        setPublicStock: @escaping @Sendable (Bool) async throws -> Void
    ) throws {
        func port(_ name: String) throws -> Int {
            guard let port = environment[name].flatMap(Int.init) else {
                throw Failure(description: "\(name) is not set: scripts/stack env prints it")
            }
            return port
        }
        productPort = try port("PRODUCT_PORT")
        productAdminPort = try port("PRODUCT_ADMIN_PORT")
        orderPort = try port("ORDER_PORT")
        orderAdminPort = try port("ORDER_ADMIN_PORT")
        gatewayPort = try port("GATEWAY_PORT")
        self.environment = environment
        self.binaries = binaries
        self.setPublicStock = setPublicStock
    }

    /// The order server's token for the product server; nil where that asks for none.
    var token: String? { environment["PRODUCT_SERVICE_TOKEN"] }

    func port(of target: Target) -> Int {
        if target.isGateway { return gatewayPort }
        if target == .productAdmin { return productAdminPort }
        return target.isProduct ? productPort : orderPort
    }

    /// Makes the goods of a run.
    func makeGoods(run: String) throws -> Goods {
        func product(_ code: String, _ strategy: String, _ stock: Int64 = 1_000_000_000) throws -> Int64 {
            let body = "{\"name\":\"Attacked\",\"price\":1000,\"stock\":\(stock),\"code\":\"\(code)\",\"stockStrategy\":\"\(strategy)\"}"
            let answer = try Caller(port: productPort).call(
                "POST",
                "/products",
                body: body,
                lines: token.map { ["Authorization: Bearer \($0)"] } ?? []
            )
            let object = try? JSONSerialization.jsonObject(with: Data(answer.body)) as? [String: Any]
            guard answer.isSuccess, let id = (object?["id"] as? NSNumber)?.int64Value else {
                throw Failure(description: "no product could be made: \(answer.status) \(answer.body.latin1.shown())")
            }
            return id
        }
        return Goods(
            hot: try product("ATK-\(run)-H", "REDIS_FIRST"),
            hotCode: "ATK-\(run)-H",
            plain: try product("ATK-\(run)-P", "DB_ONLY")
        )
    }
}

/// Counts in the stores what was carried out: a server under attack could be wrong about its own work.
struct EffectReader: Sendable {
    private let products: PostgresConnection
    private let orders: PostgresConnection
    private let requests: Requests

    init(_ stand: Stand, _ requests: Requests) throws {
        func connection(_ name: String) throws -> PostgresConnection {
            guard let url = stand.environment[name] else {
                throw Stand.Failure(description: "\(name) is not set: scripts/stack env prints it")
            }
            var configuration = try PostgresConfiguration(url: url)
            configuration.applicationName = "attack"
            configuration.statementTimeout = .seconds(30)
            configuration.callTimeout = .seconds(35)
            return try PostgresConnection(configuration: configuration, name: "attack")
        }
        products = try connection("PRODUCT_DATABASE_URL")
        orders = try connection("ORDER_DATABASE_URL")
        self.requests = requests
    }

    func close() async {
        await products.close()
        await orders.close()
    }

    /// How often each key and buyer of this run is there, read until nothing moves any more (a swallowed request runs when its client gives up).
    func settled() async throws -> [String: Int] {
        var before: [String: Int] = [:]
        var count = -1
        for _ in 0..<40 {
            try await Task.sleep(for: .milliseconds(300))
            let now = try await read()
            if now.count == count, now == before { return now }
            (before, count) = (now, now.count)
        }
        throw Stand.Failure(description: "the stores have not come to rest within 12 seconds")
    }

    private func read() async throws -> [String: Int] {
        var counts: [String: Int] = [:]
        let ledger = try await products.query(
            "select request_id, count(*) from stock_ledger where starts_with(request_id, $1) or starts_with(request_id, $2) group by request_id",
            requests.keyPrefixes.map { .text($0) }
        )
        let bought = try await orders.query(
            "select buyer_id, count(*) from orders where starts_with(buyer_id, $1) group by buyer_id",
            [.text(requests.buyerPrefix)]
        )
        for result in [ledger, bought] {
            for row in result { counts[try row.decode(0, as: String.self), default: 0] += Int(try row.decode(1, as: Int64.self)) }
        }
        return counts
    }
}
