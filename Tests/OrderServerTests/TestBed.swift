import Eventually
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import PostgresClient
import ServerKit
import ServiceLifecycle
import PrivateServers
import StrictJSON
import Synchronization
import Testing

@testable import OrderServer

/// By how much the machine lets things go on later than they were asked to: time that no server is to blame for.
///
/// A task that sleeps for a moment again and again adds up how late it wakes. On a machine that is three times as slow as it should be, that is two thirds of the
/// time that passes, so that a bound plus this time is three times the bound.
final class Lateness: Sendable {
    private let late = Mutex(Duration.zero)

    /// All of it, since the beginning.
    var sum: Duration { late.withLock { $0 } }

    /// Adds it up while `body` runs.
    static func watched<Value>(_ body: (Lateness) async throws -> Value) async rethrows -> Value {
        let lateness = Lateness()
        let watching = Task {
            while !Task.isCancelled {
                let began = ContinuousClock.now
                try? await Task.sleep(for: .milliseconds(10))
                lateness.late.withLock { $0 += max(.zero, ContinuousClock.now - began - .milliseconds(10)) }
            }
        }
        defer { watching.cancel() }
        return try await body(lateness)
    }
}

/// Order servers in this process over a database of their own and a stand-in for the product server.
struct TestBed: Sendable {
    struct Failure: Error, CustomStringConvertible {
        var description: String
    }

    /// A running order server.
    struct Server: Sendable {
        let peer: HTTPPeer
        let admin: HTTPPeer
        let port: Int
        let task: Task<Void, any Error>
        let group: ServiceGroup

        /// Stops it as SIGTERM does.
        func stop() async {
            await group.triggerGracefulShutdown()
            _ = try? await task.value
        }
    }

    /// Lets a server be stopped from within the process.
    private struct Run: Service {
        let body: @Sendable () async throws -> Void
        func run() async throws { try await body() }
    }

    struct Answer: Sendable {
        var status: Int
        var headers: HTTPHeaders
        var json: JSONValue

        subscript(name: String) -> JSONValue { json[name] ?? .null }

        /// The id of an order; nil if the answer has none.
        var id: Int64? { if case .int(let id) = self["id"] { id } else { nil } }

        /// The id of the FAILED order that a refusal names; nil if it names none.
        var refusedID: Int64? { if case .int(let id)? = self["details"]["orderId"] { id } else { nil } }

        /// ``id``, which must be there.
        var orderID: Int64 { get throws { try Answer.required(id, self) } }

        /// ``refusedID``, which must be there.
        var refusedOrder: Int64 { get throws { try Answer.required(refusedID, self) } }

        private static func required(_ id: Int64?, _ answer: Answer) throws -> Int64 {
            guard let id else { throw Failure(description: "no id of an order: \(answer)") }
            return id
        }

        var isReplayed: Bool { headers.first(name: "idempotency-replayed") == "true" }
    }

    /// One server for all tests of the process; each test has a database in it.
    private static let postgres = Result { try PrivatePostgres.start(fsync: false) }
    private static let databases = Atomic<Int>(0)

    let product: ProductStandIn
    let pool: PostgresPool
    let databaseURL: String
    let servers: [Server]

    /// A memory of sold-out products that no machine is too slow for. The setting itself ends at a second, of which half is without a second look.
    static let longMemory: @Sendable (inout OrderServerConfiguration) -> Void = { $0.soldOutTime = .seconds(120) }

    /// Runs `body` with so many order servers.
    /// - Parameter adjust: changes what no setting can say
    static func run(
        servers: Int = 1,
        stock: [Int64: Int64] = [1: 100],
        settings: [String: String] = [:],
        endpoints: MessageEndpoints? = nil,
        adjust: @Sendable (inout OrderServerConfiguration) -> Void = { _ in },
        _ body: (TestBed) async throws -> Void
    ) async throws {
        let base = try postgres.get().url
        let name = "orders_\(databases.wrappingAdd(1, ordering: .relaxed).newValue)"
        let owner = PostgresPool(configuration: try .patient(base), maximumConnections: 1)
        _ = try await owner.query("create database \(name)")
        await owner.shutdown()
        let url = String(base.dropLast("postgres".count)) + name
        let product = try await ProductStandIn.start(stock: stock)
        var running: [Server] = []
        for _ in 0..<servers { running.append(try await start(url, product.url, settings, endpoints, adjust: adjust)) }
        let bed = TestBed(
            product: product,
            pool: PostgresPool(configuration: try .patient(url), maximumConnections: 2),
            databaseURL: url,
            servers: running
        )
        do {
            try await body(bed)
        } catch {
            await bed.end()
            throw error
        }
        await bed.end()
    }

    private func end() async {
        for server in servers { await server.stop() }
        await pool.shutdown()
        await product.stop()
    }

    /// One more server over the same database and product server; its end is the caller's.
    func start(_ settings: [String: String] = [:], endpoints: MessageEndpoints? = nil) async throws -> Server {
        try await TestBed.start(databaseURL, product.url, settings, endpoints)
    }

    static func start(
        _ database: String,
        _ product: String,
        _ settings: [String: String],
        _ endpoints: MessageEndpoints? = nil,
        adjust: @Sendable (inout OrderServerConfiguration) -> Void = { _ in }
    ) async throws -> Server {
        // A call that is answered late because the machine is busy is not to be repeated, nor its buyer sent away: tests of silence have bounds of their own.
        var environment = [
            "ORDER_PORT": "0", "ORDER_ADMIN_PORT": "0", "ORDER_DATABASE_URL": database, "PRODUCT_SERVER_URL": product,
            "PRODUCT_INTERNAL_URL": product, "ORDER_DEADLINE": "15s", "PRODUCT_TIMEOUT": "5s", "PRODUCT_BACKOFF": "5ms",
            "PRODUCT_BACKOFF_MAX": "20ms", "RECOVERY_AGE": "30s", "RECOVERY_INTERVAL": "20ms", "LOG_LEVEL": "critical",
            // The tests' own connections stay open: every stop would wait for all of this time.
            "LAME_DUCK": "0s",
        ]
        if endpoints != nil { environment["AMQP_URL"] = "amqp://127.0.0.1:1/" }
        environment.merge(settings) { $1 }
        var reader = SettingsReader(environment: environment)
        var given = try OrderServerConfiguration(from: &reader)
        adjust(&given)
        let parsed = given
        let (ports, found) = AsyncStream.makeStream(of: ServerAssembly.Ports.self)
        let run = Run { try await OrderServer.run(parsed, endpoints: endpoints) { found.yield($0) } }
        let group = ServiceGroup(services: [run], logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        let task = Task {
            defer { found.finish() }
            try await group.run()
        }
        for await port in ports {
            let loop = MultiThreadedEventLoopGroup.singleton.next()
            guard let open = HTTPEndpoint("http://127.0.0.1:\(port.publicPort)"),
                let admin = HTTPEndpoint("http://127.0.0.1:\(port.adminPort)")
            else { throw Failure(description: "no ports") }
            return Server(
                peer: HTTPPeer(open, loop: loop),
                admin: HTTPPeer(admin, loop: loop),
                port: port.publicPort,
                task: task,
                group: group
            )
        }
        try await task.value
        throw Failure(description: "the server ended")
    }

    /// Sends a request to a server.
    func send(
        _ method: HTTPMethod,
        _ path: String,
        _ body: String? = nil,
        headers: HTTPHeaders = [:],
        to server: Int = 0,
        admin: Bool = false
    ) async throws -> Answer {
        let peer = admin ? servers[server].admin : servers[server].peer
        return try await TestBed.send(peer, method, path, body, headers: headers)
    }

    static func send(
        _ peer: HTTPPeer,
        _ method: HTTPMethod,
        _ path: String,
        _ body: String? = nil,
        headers: HTTPHeaders = [:]
    ) async throws -> Answer {
        var headers = headers
        if body != nil, !headers.contains(name: "content-type") { headers.add(name: "content-type", value: "application/json") }
        let request = HTTPPeer.Request(method: method, path: path, headers: headers, body: body.map { ByteBuffer(string: $0) })
        let answer = try await peer.call(request, timeout: .seconds(20)).get()
        let json = (try? JSONDocument(Array(answer.body.readableBytesView)).value) ?? .null
        return Answer(status: answer.status, headers: answer.headers, json: json)
    }

    /// Places an order of 3 units of product 1.
    /// - Parameter buyer: nil for an order that names none
    func place(
        _ quantity: Int = 3,
        product: Int = 1,
        buyer: String? = "u-001",
        key: String? = nil,
        server: Int = 0,
        path: String = "/orders",
        headers: HTTPHeaders = [:]
    ) async throws -> Answer {
        var headers = headers
        if let key { headers.add(name: "idempotency-key", value: key) }
        let named = buyer.map { #","buyerId":"\#($0)""# } ?? ""
        return try await send(
            .POST,
            path,
            #"{"productId":\#(product),"quantity":\#(quantity)\#(named)}"#,
            headers: headers,
            to: server
        )
    }

    /// Waits until the admin port's metrics have a line; what is counted behind an answer or an acknowledgement comes a moment later.
    func wait(metric line: String, server: Int = 0, within bound: Duration = .seconds(60)) async throws {
        var text = ""
        try await eventually("\(line) in:\n\(text)", within: bound) {
            let request = HTTPPeer.Request(method: .GET, path: "/metrics")
            text = String(buffer: try await servers[server].admin.call(request, timeout: .seconds(20)).get().body)
            return text.contains("\n\(line)\n")
        }
    }

    /// Waits until the server says that it is ready: a check that the machine was late with says that it is not.
    @discardableResult
    func waitUntilReady(_ path: String = "/readyz") async throws -> Answer {
        var last: Answer?
        return try await eventuallyFound("ready, and not \(String(describing: last))", every: .milliseconds(20)) {
            let answer = try await send(.GET, path)
            last = answer
            return answer.status == 200 ? answer : nil
        }
    }

    /// Has recovery look at all orders as if they were an hour old, and waits until it has been at their ends twice: what it found in the first round it has
    /// worked on before the second.
    func recoverAll() async throws {
        for _ in 0..<2 {
            _ = try await pool.query(
                "update orders set created_at = created_at - interval '1 hour', updated_at = updated_at - interval '1 hour'"
            )
            _ = try await pool.query("update recovery_mark set collected_until = '-infinity'")
            try await wait("select count(*) from recovery_mark where collected_until > now() - interval '10 minutes'", for: 1)
        }
    }

    /// The only cell of a query.
    func count(_ sql: String) async throws -> Int64 { try await pool.query(sql).one().decode(0, as: Int64.self) }

    /// Waits until a query's only cell is `value`.
    func wait(_ sql: String, for value: Int64, within bound: Duration = .seconds(60)) async throws {
        var found: Int64?
        try await eventually("\(sql): \(found.map(String.init) ?? "no answer"), not \(value)", within: bound) {
            found = try await count(sql)
            return found == value
        }
    }
}
