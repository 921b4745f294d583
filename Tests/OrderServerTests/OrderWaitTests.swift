import Eventually
import Hummingbird
import HummingbirdTesting
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import PostgresClient
import ServerKit
import ServerMetrics
import StockContract
import StrictJSON
import Synchronization
import Testing

@testable import OrderServer

@Suite("Waiting for an order over HTTP", .serialized, .timeLimit(.minutes(10)))
struct OrderWaitTests {
    /// An order that no saga drives: recovery is far away.
    private func pending(_ bed: TestBed, _ id: Int64 = 7) async throws {
        _ = try await bed.pool.query(
            "insert into orders (id, product_id, quantity, status) values (\(id), 1, 3, 'PENDING')"
        )
    }

    private func settle(_ bed: TestBed, _ id: Int64 = 7, _ status: String = "CONFIRMED") async throws {
        _ = try await bed.pool.query("update orders set status = '\(status)', updated_at = now(), version = version + 1 where id = \(id)")
    }

    /// Waits until so many requests wait.
    private func waiting(_ bed: TestBed, _ count: Int) async throws {
        try await eventually("\(count) waiting") {
            try await bed.text("/metrics").contains("\nstockgate_orders_watched \(count)\n")
        }
    }

    @Test("a settled order comes at once, a PENDING one when the wait is over or it is settled elsewhere", arguments: ["", "/v1"])
    func wait(prefix: String) async throws {
        try await TestBed.run { bed in
            let made = try await bed.place()
            guard case .int(let id) = made["id"] else { throw TestBed.Failure(description: "no id") }
            let start = ContinuousClock.now
            #expect(try await bed.send(.GET, "\(prefix)/orders/\(id)?wait=20s")["status"] == "CONFIRMED")
            #expect(ContinuousClock.now - start < .seconds(15))
            try await pending(bed)
            let begun = ContinuousClock.now
            #expect(try await bed.send(.GET, "\(prefix)/orders/7?wait=300ms")["status"] == "PENDING")
            let over = ContinuousClock.now - begun
            #expect(over >= .milliseconds(300) && over < .seconds(15))
            async let answer = bed.send(.GET, "\(prefix)/orders/7?wait=20s&expand=saga")
            try await waiting(bed, 1)
            try await settle(bed)
            #expect(try await answer["status"] == "CONFIRMED")
            #expect(try await answer["saga"] == .array([]))
            try await waiting(bed, 0)
            #expect(try await bed.send(.GET, "\(prefix)/orders/8?wait=20s")["error"] == "ORDER_NOT_FOUND")
        }
    }

    @Test(
        "a wait that is no duration or too long is refused by name",
        arguments: [
            "31s", "30.000001s", "2", "30", "-1s", "soon", "1h", "1e3s", "%D9%A3s", "1.2.3s", "0x1s", "1S", "NaNs", "infs", "+1s", "1s,2s",
            "1%09s", "s",
            "99999999999s", "999999999999999999999999999999s",
        ]
    )
    func invalid(wait: String) async throws {
        try await TestBed.run { bed in
            let answer = try await bed.send(.GET, "/orders/7?wait=\(wait)")
            #expect(answer.status == 400)
            #expect(answer["error"] == "VALIDATION_ERROR")
            #expect(answer["details"]["field"] == .some("wait"))
        }
    }

    @Test("a wait is a number, whole or not, and a unit", arguments: ["30s", "500ms", "1.5s", "0s", "0.25m", "100us", "0.0000001s", ""])
    func valid(wait: String) async throws {
        try await TestBed.run { bed in
            let id = try await bed.place().orderID
            let answer = try await bed.send(.GET, "/orders/\(id)?wait=\(wait)")
            #expect(answer.status == 200 && answer["status"] == "CONFIRMED", "\(answer.json)")
        }
    }

    @Test("beyond ORDER_WAITERS it is OVERLOADED; a client that goes frees its place; the connection of one that waited is kept")
    func bound() async throws {
        try await TestBed.run(settings: ["ORDER_WAITERS": "1"]) { bed in
            try await pending(bed)
            let port = bed.port()
            let client = try await RawClient.connect(port)
            try await client.send("GET /orders/7?wait=30s HTTP/1.1\r\nhost: a\r\n\r\n")
            try await waiting(bed, 1)
            let refused = try await bed.send(.GET, "/orders/7?wait=1s")
            #expect(refused.status == 503)
            #expect(refused["error"] == "OVERLOADED")
            #expect(refused.headers.first(name: "retry-after") == "1")
            #expect(try await bed.send(.GET, "/orders/7/events").status == 503)
            // Who does not wait is not turned away.
            #expect(try await bed.send(.GET, "/orders/7").status == 200)
            try await client.close()
            try await waiting(bed, 0)

            let kept = try await RawClient.connect(port)
            try await kept.send("GET /orders/7?wait=50ms HTTP/1.1\r\nhost: a\r\n\r\n")
            try await kept.wait(for: "PENDING", count: 1)
            try await kept.send("GET /orders/7?wait=50ms HTTP/1.1\r\nhost: a\r\n\r\n")
            try await kept.wait(for: "PENDING", count: 2)
            try await kept.close()
        }
    }

    /// Behind a gateway all callers have one address. Streams of an order that stays PENDING took all of its connections, and nobody could order.
    @Test("waiting takes half of the connections of an address at most, and orders have the others")
    func leavesConnections() async throws {
        try await TestBed.run(settings: ["MAX_CONNECTIONS_PER_ADDRESS": "12", "ORDER_WAITERS": "100"]) { bed in
            try await pending(bed)
            let port = bed.port()
            var clients: [RawClient] = []
            for _ in 1...6 {
                let client = try await RawClient.connect(port)
                try await client.send("GET /orders/7/events HTTP/1.1\r\nhost: a\r\n\r\n")
                try await client.wait(for: "PENDING", count: 1)
                clients.append(client)
            }
            let refused = try await RawClient.connect(port)
            try await refused.send("GET /orders/7/events HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            try await refused.wait(for: "OVERLOADED", count: 1)
            try await refused.waitForEnd()
            #expect(try await bed.place().status == 200)
            for client in clients { try await client.close() }
        }
    }

    @Test("the events are the state, then each change, then the end", arguments: ["", "/v1"])
    func events(prefix: String) async throws {
        try await TestBed.run { bed in
            try await pending(bed)
            let client = try await RawClient.connect(bed.port())
            try await client.send("GET \(prefix)/orders/7/events HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            try await client.wait(for: "id: 1\nevent: order\ndata: {\"id\":7,", count: 1)
            try await settle(bed)
            try await client.wait(for: "id: 2\nevent: order\ndata: {\"id\":7,", count: 1)
            try await client.waitForEnd()
            #expect(client.text.lowercased().contains("content-type: text/event-stream"))
            #expect(client.text.contains("CONFIRMED"))
            try await waiting(bed, 0)
        }
    }

    @Test("a version that the client has seen is not sent again; of a settled order that it has seen nothing is left")
    func lastEventID() async throws {
        try await TestBed.run { bed in
            try await pending(bed)
            let client = try await RawClient.connect(bed.port())
            try await client.send("GET /orders/7/events HTTP/1.1\r\nhost: a\r\nlast-event-id: 1\r\nconnection: close\r\n\r\n")
            try await waiting(bed, 1)
            try await settle(bed, 7, "FAILED")
            try await client.wait(for: "id: 2\nevent: order\n", count: 1)
            try await client.waitForEnd()
            #expect(!client.text.contains("id: 1\n"))
            #expect(try await bed.send(.GET, "/orders/7/events", headers: ["last-event-id": "2"]).status == 204)
            #expect(try await bed.send(.GET, "/orders/8/events").status == 404)
        }
    }

    @Test("a stop of the server ends waits at once with the state there is, and streams")
    func shutdown() async throws {
        try await TestBed.run { bed in
            try await pending(bed)
            let port = bed.port()
            let waiting = try await RawClient.connect(port)
            try await waiting.send("GET /orders/7?wait=30s HTTP/1.1\r\nhost: a\r\n\r\n")
            let stream = try await RawClient.connect(port)
            try await stream.send("GET /orders/7/events HTTP/1.1\r\nhost: a\r\n\r\n")
            try await self.waiting(bed, 2)
            let took = await ContinuousClock().measure { await bed.servers[0].stop() }
            #expect(took < .seconds(15))
            try await waiting.wait(for: "\"status\":\"PENDING\"", count: 1)
            try await stream.waitForEnd()
        }
    }

    @Test("a stop ends many waits at once, each with 200 and the state there is; whoever comes while it stops does not wait")
    func stopOfMany() async throws {
        try await TestBed.run { bed in
            try await pending(bed)
            func come() async throws -> RawClient {
                let client = try await RawClient.connect(bed.port())
                try await client.send("GET /orders/7?wait=30s HTTP/1.1\r\nhost: a\r\n\r\n")
                return client
            }
            var clients: [RawClient] = []
            var waiting = 0
            // Twenty at a time: each first reads its order, over the few connections that reads have. On a slow machine the first ones have had their time
            // meanwhile, and whoever waited too long for a connection is told to come again.
            for round in 1...15 {
                for _ in 0..<20 { clients.append(try await come()) }
                let deadline = ContinuousClock.now + .seconds(60)
                while true {
                    let answered = clients.count { $0.text.contains("\"status\":\"PENDING\"") }
                    let text = try await bed.text("/metrics")
                    let name = "\nstockgate_orders_watched "
                    waiting = text.firstRange(of: name).flatMap { Int(text[$0.upperBound...].prefix { $0.isNumber }) } ?? 0
                    if answered + waiting >= round * 20 { break }
                    guard ContinuousClock.now < deadline else {
                        throw TestBed.Failure(description: "\(waiting) wait, \(answered) answered")
                    }
                    for place in clients.indices where clients[place].text.hasPrefix("HTTP/1.1 503 ") {
                        try await clients[place].close()
                        clients[place] = try await come()
                    }
                    try await Task.sleep(for: .milliseconds(5))
                }
            }
            #expect(waiting > 0)
            let took = await ContinuousClock().measure { await bed.servers[0].stop() }
            #expect(took < .seconds(15))
            for client in clients { try await client.wait(for: "\"status\":\"PENDING\"", count: 1) }
            #expect(clients.allSatisfy { $0.text.hasPrefix("HTTP/1.1 200 ") })
        }
        try await TestBed.run { bed in
            var reader = SettingsReader(environment: ["ORDER_DATABASE_URL": bed.databaseURL])
            let parts = try OrderServerParts(try OrderServerConfiguration(from: &reader), group: .singleton, logger: .init(label: "test"))
            parts.foundation.changes.shutdown()
            try await pending(bed)
            let app = Application(
                router: parts.publicRouter,
                configuration: .init(address: .hostname("127.0.0.1", port: 0)),
                eventLoopGroupProvider: .shared(MultiThreadedEventLoopGroup.singleton)
            )
            try await app.test(.live) { client in
                let start = ContinuousClock.now
                let late = try await client.execute(uri: "/orders/7?wait=20s", method: .get)
                #expect(late.status == .ok)
                #expect(String(buffer: late.body).contains("PENDING"))
                #expect(ContinuousClock.now - start < .seconds(15))
                let stream = try await client.execute(uri: "/orders/7/events", method: .get)
                #expect(stream.status == .serviceUnavailable)
                #expect(String(buffer: stream.body).contains("UNAVAILABLE"))
            }
            #expect(parts.foundation.changes.refused.value == 0)
            await parts.stores.shutdown()
        }
    }

    @Test("heartbeats, and the end of a stream's life")
    func heartbeat() async throws {
        let changes = OrderWatch(maximumWaiters: 1, interval: .milliseconds(5)) { _ in [] }
        final class Written: Sendable { let text = Mutex("") }
        let written = Written()
        @Sendable func beats() -> Int { written.text.withLock { $0 }.split(separator: "\n\n").filter { $0 == ":" }.count }
        @Sendable func run(life: Duration, _ place: OrderWatch.Place, _ client: RawClient) async throws {
            let stream = OrderEventStream(
                settings: OrderEventStream.Configuration(heartbeat: .milliseconds(20), maximumLife: life),
                changes: changes,
                first: VersionedOrder(order: .sample(7, .pending), version: 1),
                seen: 0
            )
            try await stream.run(place, on: client.channel) { part in written.text.withLock { $0 += String(buffer: part) } }
        }
        try await TestBed.run { bed in
            let client = try await RawClient.connect(bed.port())
            let began = ContinuousClock.now
            // Its life ends it.
            do {
                let place = try changes.place()
                try await run(life: .milliseconds(200), place, client)
            }
            #expect(ContinuousClock.now - began >= .milliseconds(200))
            #expect(changes.places == 0)
            // It beats for as long as it lives: twice, however late a busy machine is, and never more often than it should.
            let living = Task { try await run(life: .seconds(600), try changes.place(), client) }
            let known = beats()
            #expect(try await eventually { beats() >= known + 2 })
            changes.shutdown()
            try await living.value
            #expect(beats() <= Int((ContinuousClock.now - began) / .milliseconds(20)) + 2)
            try await client.close()
        }
        #expect(written.text.withLock { $0 }.hasPrefix("id: 1\nevent: order\ndata: {\"id\":7,"))
    }
}

extension TestBed {
    func port() -> Int { servers[0].port }

    /// A body of the admin port as text.
    func text(_ path: String, server: Int = 0) async throws -> String {
        let request = HTTPPeer.Request(method: .GET, path: path)
        return String(buffer: try await servers[server].admin.call(request, timeout: .seconds(20)).get().body)
    }
}

/// A connection that shows what comes as it comes.
final class RawClient: Sendable {
    private struct State {
        var text = ""
        var hasEnded = false
    }

    private final class Handler: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        let state = Mutex(State())

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let text = String(buffer: unwrapInboundIn(data))
            state.withLock { $0.text += text }
        }

        func channelInactive(context: ChannelHandlerContext) { state.withLock { $0.hasEnded = true } }
    }

    let channel: any Channel
    private let handler: Handler

    private init(_ channel: any Channel, _ handler: Handler) {
        self.channel = channel
        self.handler = handler
    }

    static func connect(_ port: Int) async throws -> RawClient {
        let handler = Handler()
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .channelInitializer { $0.pipeline.addHandler(handler) }
            .connect(host: "127.0.0.1", port: port).get()
        return RawClient(channel, handler)
    }

    var text: String { handler.state.withLock { $0.text } }

    func send(_ text: String) async throws { try await channel.writeAndFlush(ByteBuffer(string: text)).get() }
    func close() async throws { try await channel.close().get() }

    /// Waits until `part` has come so many times.
    func wait(for part: String, count: Int) async throws {
        try await self.wait("\(part), \(count) times") { $0.text.components(of: part) >= count }
    }

    /// Waits until the server has closed the connection.
    func waitForEnd() async throws { try await wait("the end") { $0.hasEnded } }

    private func wait(_ what: String, until isTrue: (State) -> Bool) async throws {
        try await eventually("\(what) in: \(text)") { handler.state.withLock { isTrue($0) } }
    }
}

extension String {
    /// How often `part` is in the text.
    fileprivate func components(of part: String) -> Int {
        var count = 0
        var rest = self[...]
        while let range = rest.firstRange(of: part) {
            count += 1
            rest = rest[range.upperBound...]
        }
        return count
    }
}
