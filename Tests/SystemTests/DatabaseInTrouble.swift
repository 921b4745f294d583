import FlashSaleKit
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import PostgresClient
import PrivateServers
import Synchronization
import Testing

extension Faults {
    /// What every route of a server answers while its database cannot be used, and what the server writes into its log about that.
    @Suite("A database in trouble", .serialized, .timeLimit(.minutes(5)))
    struct DatabaseInTrouble {}
}

extension Faults.DatabaseInTrouble {
    /// What is wrong with the database.
    enum Trouble: String, CaseIterable, Sendable {
        /// It is killed.
        case away
        /// The server's role may open no connection, and those that it had are ended.
        case exhausted
        /// Somebody's open transaction holds every table.
        case locked
        /// Sessions begin read-only, and those that were open are ended.
        case readOnly
    }

    private struct Route {
        var method: HTTPMethod
        var path: String
        var body: String?
        var isAdmin = false
        /// Needs no more than a database that may be read.
        var isRead: Bool { method == .GET }

        init(_ method: HTTPMethod, _ path: String, _ body: String? = nil, admin: Bool = false) {
            (self.method, self.path, self.body, isAdmin) = (method, path, body, admin)
        }
    }

    /// Every route that asks the database, of a server that has product 1 or order 1.
    private static func routes(_ server: String) -> [Route] {
        server == "product-server"
            ? [
                Route(.GET, "/products"), Route(.GET, "/products/1"), Route(.POST, "/products", #"{"name":"x","price":1,"stock":1}"#),
                Route(.PATCH, "/products/1", #"{"price":2}"#), Route(.DELETE, "/products/1"),
                Route(.PATCH, "/products/1/stock/decrease-by-order", #"{"orderId":#,"quantity":1}"#),
                Route(.PATCH, "/products/1/stock/increase-by-order", #"{"orderId":#,"quantity":1}"#),
                Route(.PATCH, "/products/1/stock", #"{"orderId":#,"quantity":1}"#),
                Route(.GET, "/products/1/stock/requests/DEC-1"), Route(.GET, "/products/1/stock/ledger"),
                Route(.POST, "/admin/products/1/load-stock-redis", admin: true),
                Route(.POST, "/admin/products/1/stock-adjustments", #"{"quantity":1}"#, admin: true),
                Route(.GET, "/admin/audit/products/1", admin: true),
            ]
            : [
                Route(.GET, "/orders"), Route(.GET, "/orders?status=PENDING"), Route(.GET, "/orders/1"), Route(.GET, "/orders/1?wait=1s"),
                Route(.GET, "/orders/1/events"), Route(.GET, "/u-1/orders"), Route(.POST, "/orders", #"{"productId":1,"quantity":1}"#),
                Route(.POST, "/orders/1/cancel"), Route(.GET, "/internal/outbox", admin: true),
                Route(.POST, "/internal/orders/1/retry", admin: true), Route(.POST, "/internal/outbox/1/requeue", admin: true),
            ]
    }

    /// A request that writes.
    private static func change(_ server: String) -> Route {
        server == "product-server"
            ? Route(.POST, "/products", #"{"name":"x","price":1,"stock":1}"#) : Route(.POST, "/orders", #"{"productId":1,"quantity":1}"#)
    }

    @Test(arguments: ["product-server", "order-server"], Trouble.allCases)
    func everyRouteIsUnavailable(name: String, trouble: Trouble) async throws {
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        let owner = try PostgresConnection(configuration: try PostgresConfiguration.patient(postgres.url))
        for sql in ["create role shop login", "grant all on schema public to shop"] { _ = try await owner.query(sql) }
        let settings = [
            name == "product-server" ? "PRODUCT_DATABASE_URL" : "ORDER_DATABASE_URL": postgres.url.replacing("postgres@", with: "shop@"),
            "LOCK_TIMEOUT": "500ms", "READ_TIMEOUT": "2s", "PRODUCT_SERVER_URL": "http://127.0.0.1:1",
        ]
        try await Faults.Start.withServer(name, settings) { server in
            let (address, admin) = try await server.ready()
            if name == "product-server" {
                let client = try await Client(address)
                defer { client.close() }
                #expect(
                    try await client.call(.POST, "/products", json: #"{"name":"A","price":1,"stock":1000,"stockStrategy":"REDIS_FIRST"}"#)
                        .id == 1
                )
            } else {
                _ = try await owner.query(
                    "insert into orders (id, product_id, buyer_id, quantity, unit_price, status) values (1, 1, 'u-1', 1, 1, 'CONFIRMED')"
                )
            }
            let caller = try await Caller(address, admin)
            defer { caller.close() }
            let end = try await Self.begin(trouble, postgres, owner)
            // Until it is noticed: a statement that was on its way may still be answered.
            try await until("it notices") { try await caller.ask(Self.change(name), 1).status >= 500 }
            let before = server.lines(" warning ").count
            let began = ContinuousClock.now
            var number = 1
            for route in Self.routes(name) {
                number += 1
                let answer = try await caller.ask(route, number)
                let text = "\(trouble), \(route.method) \(route.path): \(answer.status) \(String(buffer: answer.body).prefix(200))"
                if trouble == .readOnly, route.isRead {
                    #expect(answer.status == 200 || answer.status == 404, "\(text)")
                } else {
                    #expect(answer.status == 503 && answer.retryAfter != nil, "\(text)")
                }
            }
            // Many callers, of the routes of which each answer comes at once or takes its time.
            try await Self.crowd(name, address, admin, for: .seconds(3))
            let seconds = (ContinuousClock.now - began) / .seconds(1)
            let warnings = server.lines(" warning ").dropFirst(before)
            let kinds = Dictionary(grouping: warnings) { line in line.split(separator: " ").dropFirst(3).prefix(4).joined(separator: " ") }
            print("FAULT \(name), database \(trouble): \(warnings.count) warnings in \(seconds) s: \(kinds.mapValues(\.count))")
            // One a second of what callers meet; and what the server itself finds is said once each.
            #expect(Double(warnings.count) <= seconds + 6, "\(kinds.mapValues(\.count))")
            #expect(server.lines(" error ").isEmpty, "\(server.lines(" error "))")
            try await end()
            try await until("it is ready again") { try await caller.ask(Route(.GET, "/readyz"), 0).status == 200 }
            try await until("it works again") { try await caller.ask(Self.routes(name)[1], 0).status == 200 }
            #expect(server.exitStatus == nil)
        }
        await owner.close()
    }

    /// Makes the trouble.
    /// - Returns: what ends it
    private static func begin(_ trouble: Trouble, _ postgres: PrivatePostgres, _ owner: PostgresConnection) async throws -> () async throws
        -> Void
    {
        let endSessions = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'shop'"
        switch trouble {
        case .away:
            postgres.kill()
            return { try postgres.restart() }
        case .exhausted:
            _ = try await owner.query("alter role shop connection limit 0")
            _ = try await owner.query(endSessions)
            return { _ = try await owner.query("alter role shop connection limit -1") }
        case .locked:
            let tables = try await owner.query("select string_agg(tablename, ', ') from pg_tables where schemaname = 'public'").one()
                .decode(0, as: String.self)
            let lock = try await RowLock(url: postgres.url, "lock table \(tables) in access exclusive mode")
            return { await lock.end() }
        case .readOnly:
            _ = try await owner.query("alter role shop set default_transaction_read_only = on")
            _ = try await owner.query(endSessions)
            return { _ = try await owner.query("alter role shop reset default_transaction_read_only") }
        }
    }

    /// Callers that ask one route after the other, without a pause.
    private static func crowd(_ name: String, _ address: String, _ admin: String, for time: Duration) async throws {
        let end = ContinuousClock.now + time
        try await withThrowingTaskGroup(of: Void.self) { group in
            for place in 0..<8 {
                group.addTask {
                    let caller = try await Caller(address, admin)
                    defer { caller.close() }
                    let routes = Self.routes(name)
                    var number = place
                    while ContinuousClock.now < end {
                        number += 8
                        let answer = try await caller.ask(routes[number / 8 % routes.count], 1_000 + number)
                        #expect(
                            answer.status != 500,
                            "\(routes[number / 8 % routes.count].path): \(String(buffer: answer.body).prefix(200))"
                        )
                    }
                }
            }
            try await group.waitForAll()
        }
    }

    /// Calls both ports of a server.
    private struct Caller: Sendable {
        private let server: HTTPCaller
        private let admin: HTTPCaller

        init(_ address: String, _ admin: String) async throws {
            let loop = MultiThreadedEventLoopGroup.singleton.next()
            server = try await HTTPCaller.make(endpoint: HTTPEndpoint(address), eventLoop: loop, timeout: .seconds(30))
            self.admin = try await HTTPCaller.make(endpoint: HTTPEndpoint(admin), eventLoop: loop, timeout: .seconds(30))
        }

        /// `number` makes the request's key.
        func ask(_ route: Route, _ number: Int) async throws -> HTTPAnswer {
            let prefix =
                route.path.contains("increase")
                ? "INC-" : route.path.contains("/stock-") ? "hand-" : route.path.contains("/stock") ? "DEC-" : "key-"
            return try await (route.isAdmin ? admin : server).call(
                route.method,
                route.path,
                json: route.body?.replacing("#", with: "\(number)"),
                headers: route.method == .GET ? [] : [("Idempotency-Key", "\(prefix)\(number)")]
            )
        }

        func close() {
            server.close()
            admin.close()
        }
    }
}
