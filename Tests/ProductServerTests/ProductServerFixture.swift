import CircuitBreaker
import Eventually
import HotPath
import Hummingbird
import HummingbirdTesting
import NIOCore
import NIOPosix
import PostgresClient
import PrivateServers
@testable import ProductServer
import RedisClient
import ServerKit
import StockGate
import StrictJSON
import Testing

/// The product server's routes on a real Redis and a real PostgreSQL.
struct ProductServerFixture {
    let postgres: PrivatePostgres
    let redis: PrivateRedis
    let engine: StockEngine
    let run: Task<Void, Never>
    let routes: ProductServerParts

    static func with(_ more: [String: String] = [:], _ body: (ProductServerFixture) async throws -> Void) async throws {
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        let redis = try PrivateRedis.start(options: ["--save", ""])
        defer { redis.stop() }
        let own = [
            "REDIS_URL": redis.url, "PRODUCT_DATABASE_URL": postgres.url, "BREAKER_WAIT": "200ms", "BREAKER_MINIMUM_CALLS": "5",
            // A busy machine must look neither like a slow Redis nor like a slow ledger.
            "GATE_TIMEOUT": "10s", "ANSWER_WITHIN": "30s",
        ]
        var reader = SettingsReader(environment: own.merging(more) { $1 })
        var settings = try ProductServerConfiguration(from: &reader)
        settings.engine.redis.silenceLimit = .seconds(20)
        settings.engine.redis.connectTimeout = .seconds(10)
        settings.engine.redis.preparationTimeout = .seconds(10)
        settings.engine.backgroundTimeout = .seconds(10)
        settings.engine.ledger.postgres.connectTimeout = .seconds(20)
        _ = try await Migrator(configuration: settings.engine.ledger.postgres).apply(ProductServer.migrations)
        let engine = try StockEngine(settings.engine, eventLoopGroup: MultiThreadedEventLoopGroup.singleton)
        // As the server does, which tries for as long as its database does not answer in time.
        try await eventually("the engine starts") {
            try await engine.start()
            return true
        }
        let run = Task { await engine.run() }
        let fixture = ProductServerFixture(
            postgres: postgres,
            redis: redis,
            engine: engine,
            run: run,
            routes: try ProductServerParts(settings, engine)
        )
        do {
            try await body(fixture)
        } catch {
            run.cancel()
            await engine.shutdown()
            throw error
        }
        run.cancel()
        await engine.shutdown()
    }

    /// Asks the public port and returns status, body and headers.
    func ask(
        _ method: HTTPRequest.Method,
        _ path: String,
        _ body: String? = nil,
        key: String? = nil,
        headers: HTTPFields = [:],
        admin: Bool = false
    ) async throws -> Answer {
        var given = headers
        if body != nil, given[.contentType] == nil { given[.contentType] = "application/json" }
        if let key { given[.idempotencyKey] = key }
        let headers = given
        // The admin guard lets in who comes from this machine: a real socket.
        let app = Application(
            router: admin ? routes.adminRouter : routes.publicRouter,
            configuration: .init(address: .hostname("127.0.0.1", port: 0)),
            eventLoopGroupProvider: .shared(MultiThreadedEventLoopGroup.singleton)
        )
        return try await app.test(.live) { client in
            try await client.execute(uri: path, method: method, headers: headers, body: body.map { ByteBuffer(string: $0) }) { response in
                Answer(status: response.status.code, body: String(buffer: response.body), headers: response.headers)
            }
        }
    }

    /// Asks the hot path of the admin port, as its front door does, with these lines of a head. Nil: it leaves the request to the router.
    func askHot(_ path: String, _ body: String, _ lines: [String] = [], length: Int? = nil) async throws -> Answer? {
        let lines = ["POST \(path) HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"] + lines
        guard case .head(var head) = RequestHead.read(ByteBuffer(string: lines.joined(separator: "\r\n") + "\r\n\r\n")) else {
            throw Missing(what: "a head in \(lines)")
        }
        head.isFromLoopback = true
        let endpoint = routes.adminHotPath
        guard body.utf8.count <= endpoint.maximumBodyBytes, let match = endpoint.match(head) else { return nil }
        let loop = MultiThreadedEventLoopGroup.singleton.any()
        return await withCheckedContinuation { continuation in
            loop.execute { [head] in
                endpoint.respond(to: match, head: head, body: ByteBuffer(string: body), on: loop) { answer in
                    continuation.resume(
                        returning: Answer(status: answer.status.code, body: String(decoding: answer.body, as: UTF8.self), headers: [:])
                    )
                }
            }
        }
    }

    /// A product, and its id.
    func addProduct(stock: Int, strategy: String = "REDIS_FIRST") async throws -> Int64 {
        let answer = try await ask(
            .post,
            "/products",
            #"{"name":"Keyboard","price":39000,"stock":\#(stock),"stockStrategy":"\#(strategy)"}"#
        )
        #expect(answer.status == 200, "\(answer.body)")
        guard case .int(let id)? = try JSONDocument(Array(answer.body.utf8)).value["id"] else {
            throw Missing(what: "id in \(answer.body)")
        }
        return id
    }

    struct Missing: Error { let what: String }

    struct Answer {
        let status: Int
        let body: String
        let headers: HTTPFields

        subscript(name: String) -> JSONValue? { try? JSONDocument(Array(body.utf8)).value[name] }
        var error: String? { if case .string(let code)? = self["error"] { code } else { nil } }
    }
}
