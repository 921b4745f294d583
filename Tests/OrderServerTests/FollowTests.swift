import APIErrors
import Eventually
import Foundation
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import PostgresClient
import ServerKit
import ServiceLifecycle
import PrivateServers
import StockContract
import StrictJSON
import Synchronization
import Testing

@testable import OrderServer

/// A stream in memory: what is in it, and whether its broker is there.
final class ScriptedStream: Sendable {
    struct State {
        var bodies: [[UInt8]] = []
        /// The offset of the first body: above 0 when the stream was cut.
        var base: UInt64 = 0
        var isConnected = true
        /// How often each message comes, and how many come at a time.
        var repeats = 1
        var starts: [StreamStart] = []
        var acknowledged = 0
    }

    let state = Mutex(State())

    func append(_ body: String) { state.withLock { $0.bodies.append(Array(body.utf8)) } }

    func open(_ start: StreamStart) -> any OrderEventSource {
        let next = self.state.withLock { state in
            state.starts.append(start)
            let end = state.base + UInt64(state.bodies.count)
            // As RabbitMQ does: an offset that is not there means the nearest end.
            return switch start {
            case .first: state.base
            case .offset(let offset): min(max(offset, state.base), end)
            }
        }
        return Source(self, next)
    }

    private final class Source: OrderEventSource, Sendable {
        struct Closed: Error {}
        let stream: ScriptedStream
        let next: Mutex<UInt64>
        let isClosed = Atomic(false)

        init(_ stream: ScriptedStream, _ next: UInt64) {
            self.stream = stream
            self.next = Mutex(next)
        }

        func nextBatch(max: Int, wait: Duration) async throws -> StreamedBatch {
            if isClosed.load(ordering: .relaxed) { throw Closed() }
            let (messages, stream) = (take(max), self.stream)
            if messages.isEmpty { try? await Task.sleep(for: .milliseconds(2)) }
            return StreamedBatch(messages: messages) { stream.state.withLock { $0.acknowledged += messages.count } }
        }

        private func take(_ max: Int) -> [StreamedMessage] {
            self.next.withLock { next in
                stream.state.withLock { state in
                    guard state.isConnected else { return [] }
                    var messages: [StreamedMessage] = []
                    while messages.count < max, next < state.base + UInt64(state.bodies.count) {
                        let message = StreamedMessage(offset: next, body: state.bodies[Int(next - state.base)])
                        for _ in 0..<state.repeats { messages.append(message) }
                        next += 1
                    }
                    return messages
                }
            }
        }

        var isConnected: Bool { stream.state.withLock { $0.isConnected } }
        var reconnects: Int { 0 }
        func shutdown() async { isClosed.store(true, ordering: .relaxed) }
    }
}

/// A message as the order server writes it.
private func message(
    _ type: String,
    _ orders: [(id: Int64, status: OrderStatus, version: Int64)],
    version: Int = 1,
    time: String = Timestamp.now.description
) -> String {
    var json = JSONWriter()
    json.object { json in
        json.member("version", version)
        json.member("type", type)
        json.member("messageId", "1")
        json.member("time", time)
        json.member("later", "unknown fields are ignored")
        json.array("orders", orders) { json, order in
            json.object { json in
                Order.sample(order.id, order.status).writeMembers(to: &json)
                json.member("productCode", String?.none)
                json.member("unitPrice", Int64?.none)
                json.member("run", 1)
                json.member("version", order.version)
            }
        }
    }
    return json.string
}

@Suite("Follow: machine and messages")
struct FollowPositionTests {
    @Test("a new replica begins with the first message, another behind the last")
    func start() {
        #expect(FollowPosition().start == .first)
        #expect(FollowPosition(last: 41).start == .offset(42))
    }

    @Test("positions move over messages; repeats do not move them")
    func moves() {
        var position = FollowPosition()
        #expect(position.received([0, 1, 2]) == .apply)
        #expect(position.received([1, 2, 2, 3]) == .apply)
        #expect(position.last == 3)
        #expect(position.missed == 0)
        #expect(position.received([2]) == .apply)
        #expect(position.last == 3)
    }

    @Test("a stream that was cut shows as a gap, at the beginning and later")
    func gaps() {
        var position = FollowPosition()
        _ = position.received([5, 6])
        #expect(position.missedAtBeginning == 5)
        var later = FollowPosition(last: 6, missedAtBeginning: 5, gaps: 1)
        _ = later.received([10, 11, 13])
        #expect(later.missedAtBeginning == 5)
        #expect(later.missedLater == 4)
        #expect(later.gaps == 3)
        #expect(later.last == 13)
    }

    @Test("a stream that was made anew is read from its beginning")
    func anew() {
        var position = FollowPosition(last: 100)
        #expect(position.received([3]) == .startOver)
        #expect(position.start == .first)
        #expect(position.received([0, 1, 2, 3]) == .apply)
        #expect(position.last == 3)
        #expect(position.missed == 0)
        #expect(position.gaps == 1)
    }

    @Test("offsets and counts at their ends are counted to the end, and no further")
    func ends() {
        var position = FollowPosition(last: 5, missedAtBeginning: .max, missedLater: .max, gaps: .max)
        #expect(position.missed == .max)
        #expect(position.received([UInt64.max]) == .apply)
        #expect(position.last == .max && position.missedLater == .max && position.gaps == .max)
        #expect(position.start == .offset(.max))
        var new = FollowPosition(missedAtBeginning: 1)
        #expect(new.received([UInt64.max, 0, UInt64.max]) == .apply)
        #expect(new.missedAtBeginning == .max)
        var older = FollowPosition(last: .max, gaps: .max)
        #expect(older.received([0]) == .startOver)
        #expect(older.gaps == .max)
    }

    @Test("a message is read back as it was written")
    func roundTrip() throws {
        let event = try OrderEvent(Array(message("order.failed", [(7, .failed, 2), (8, .cancelled, 3)]).utf8))
        #expect(VersionedOrder(event: event.orders[0]) == VersionedOrder(order: .sample(7, .failed), version: 2))
        #expect(VersionedOrder(event: event.orders[1]) == VersionedOrder(order: .sample(8, .cancelled), version: 3))
    }

    @Test(
        "what cannot be read is refused",
        arguments: [
            "", "{", "[]", "{}", #"{"version":1,"type":"order.confirmed","time":"2026-01-31T09:30:00Z","orders":[]}"#,
            message("order.confirmed", [(7, .confirmed, 2)], version: 2), message("order.other", [(7, .confirmed, 2)]),
            message("order.confirmed", [(0, .confirmed, 2)]), message("order.confirmed", [(7, .confirmed, 0)]),
            message("order.confirmed", [(7, .confirmed, .min)]), message("order.confirmed", [(7, .confirmed, 2)], version: .max),
            message("order.confirmed", [(7, .confirmed, 2)], time: "300000-01-01T00:00:00Z"),
            message("order.confirmed", [(7, .confirmed, 2)], time: "+300000-01-01T00:00:00.000000Z"),
            message("order.confirmed", [(7, .confirmed, 2)]).replacingOccurrences(of: "\"createdAt\":\"2", with: "\"createdAt\":\"300002"),
            message("order.confirmed", [(7, .confirmed, 2)]).replacingOccurrences(of: "\"updatedAt\":\"2", with: "\"updatedAt\":\"+99992"),
        ]
    )
    func poison(body: String) {
        #expect(throws: APIError.self) { try OrderEvent(Array(body.utf8)) }
    }

    @Test("times are read as they are written")
    func times() {
        for microseconds in [0, -1, 1_769_851_800_123_456, 951_782_400_000_000, 4_102_444_799_999_999] as [Int64] {
            let time = Timestamp(microsecondsSinceEpoch: microseconds)
            #expect(Timestamp(rfc3339: time.description) == time)
        }
    }

    @Test("messages left out are logged once an interval, with their number")
    func poisonLog() {
        var log = PoisonLog(interval: .seconds(60))
        let start = ContinuousClock.now
        #expect(log.add(now: start) == 1)
        #expect(log.add(now: start + .seconds(1)) == nil)
        #expect(log.add(now: start + .seconds(59)) == nil)
        #expect(log.add(now: start + .seconds(61)) == 3)
    }
}

@Suite("Follow: a replica over PostgreSQL", .serialized, .timeLimit(.minutes(10)))
struct FollowTests {
    private static let postgres = Result { try PrivatePostgres.start(fsync: false) }
    private static let databases = Atomic<Int>(0)

    /// A follower over a database of its own and a scripted stream.
    private struct Bed: Sendable {
        let stream: ScriptedStream
        let pool: PostgresPool
        let environment: [String: String]

        /// Runs a follower for the time of `body`.
        func follower(_ body: (Follower) async throws -> Void) async throws {
            var reader = SettingsReader(environment: self.environment)
            let settings = try OrderServerConfiguration(from: &reader)
            let (ports, found) = AsyncStream.makeStream(of: ServerAssembly.Ports.self)
            var follow = FollowService.Configuration()
            follow.batch = 4
            let (followSettings, stream) = (follow, self.stream)
            let run = Run {
                let logger = Logger(label: "follower") { _ in SwiftLogNoOpLogHandler() }
                let parts = OrderFollowerParts(settings, follow: followSettings, logger: logger) { stream.open($0) }
                try await parts.assembly(logger: logger, onReady: { found.yield($0) }).run()
            }
            let group = ServiceGroup(services: [run], logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
            let task = Task {
                defer { found.finish() }
                try await group.run()
            }
            for await port in ports {
                let loop = MultiThreadedEventLoopGroup.singleton.next()
                guard let open = HTTPEndpoint("http://127.0.0.1:\(port.publicPort)"),
                    let admin = HTTPEndpoint("http://127.0.0.1:\(port.adminPort)")
                else { throw TestBed.Failure(description: "no ports") }
                let follower = Follower(peer: HTTPPeer(open, loop: loop), admin: HTTPPeer(admin, loop: loop), port: port.publicPort)
                do {
                    try await body(follower)
                } catch {
                    await group.triggerGracefulShutdown()
                    throw error
                }
                await group.triggerGracefulShutdown()
            }
            try await task.value
        }

        func count(_ sql: String) async throws -> Int64 { try await pool.query(sql).one().decode(0, as: Int64.self) }

        func wait(_ sql: String, for value: Int64) async throws {
            var found: Int64?
            try await eventually("\(sql): \(found.map(String.init) ?? "no answer"), not \(value)") {
                found = try await count(sql)
                return found == value
            }
        }
    }

    private struct Follower: Sendable {
        let peer: HTTPPeer
        let admin: HTTPPeer
        let port: Int

        func send(_ method: HTTPMethod, _ path: String) async throws -> TestBed.Answer {
            try await TestBed.send(peer, method, path, method == .GET ? nil : "{}")
        }

        func metrics() async throws -> String {
            String(buffer: try await admin.call(HTTPPeer.Request(method: .GET, path: "/metrics"), timeout: .seconds(20)).get().body)
        }

        /// Waits until the metrics have a line: they follow what is in the database.
        func wait(metric line: String) async throws {
            var text = ""
            try await eventually("\(line) in:\n\(text)") {
                text = try await metrics()
                return text.contains("\n\(line)\n")
            }
        }

        /// Waits until `/readyz?verbose` shows the dependency so.
        func wait(for state: String, status: Int) async throws -> JSONValue {
            var last = JSONValue.null
            return try await eventuallyFound("\(state), and not \(last)") {
                let answer = try await send(.GET, "/readyz?verbose")
                last = answer.json
                let dependencies = answer["dependencies"] == .null ? answer["details"]["dependencies"] : answer["dependencies"]
                if answer.status == status, let follow = dependencies?["follow"], follow["state"] == .some(.string(state)) {
                    return follow["detail"] ?? .null
                }
                return nil
            }
        }
    }

    private struct Run: Service {
        let body: @Sendable () async throws -> Void
        func run() async throws { try await body() }
    }

    private func bed(_ body: (Bed) async throws -> Void) async throws {
        let base = try FollowTests.postgres.get().url
        let name = "replica_\(FollowTests.databases.wrappingAdd(1, ordering: .relaxed).newValue)"
        let owner = PostgresPool(configuration: try .patient(base), maximumConnections: 1)
        _ = try await owner.query("create database \(name)")
        await owner.shutdown()
        let url = String(base.dropLast("postgres".count)) + name
        let pool = PostgresPool(configuration: try .patient(url), maximumConnections: 2)
        let bed = Bed(
            stream: ScriptedStream(),
            pool: pool,
            environment: [
                "ORDER_PORT": "0", "ORDER_ADMIN_PORT": "0", "ORDER_DATABASE_URL": url, "LOG_LEVEL": "critical", "FOLLOW": "true",
                "AMQP_URL": "amqp://127.0.0.1:1",
            ]
        )
        do {
            try await body(bed)
        } catch {
            await pool.shutdown()
            throw error
        }
        await pool.shutdown()
    }

    private static let digest = "select count(*) filter (where status = 'CONFIRMED' and version = 2) from orders"

    @Test("a replica of an empty stream is ready, and shows what comes; writes are METHOD_NOT_ALLOWED")
    func life() async throws {
        try await self.bed { bed in
            try await bed.follower { follower in
                let detail = try await follower.wait(for: "UP", status: 200)
                #expect(detail["offset"] == .some(.null))
                bed.stream.append(message("order.created", [(7, .pending, 1), (8, .pending, 1)]))
                try await bed.wait("select count(*) from orders", for: 2)
                // A wait on the replica ends with the event.
                async let answer = follower.send(.GET, "/orders/7?wait=20s")
                bed.stream.append(message("order.confirmed", [(7, .confirmed, 2)]))
                #expect(try await answer["status"] == "CONFIRMED")
                let order = try await follower.send(.GET, "/v1/orders/7")
                var expected = JSONWriter()
                Order.sample(7, .confirmed).write(to: &expected)
                #expect(try order.json == JSONDocument(expected.bytes).value)
                #expect(try await follower.send(.GET, "/orders?status=CONFIRMED")["totalElements"] == 1)
                #expect(try await follower.send(.GET, "/u-7/orders").status == 200)

                for (method, path, allow) in [
                    (.POST, "/orders", "GET, HEAD"), (.POST, "/v1/orders", "GET, HEAD"), (.POST, "/u-7/orders", "GET, HEAD"),
                    (.DELETE, "/orders/7", "GET, HEAD"), (.POST, "/orders/7/cancel", ""), (.POST, "/v2/orders", ""),
                ] as [(HTTPMethod, String, String)] {
                    let refused = try await follower.send(method, path)
                    #expect(refused.status == 405, "\(path)")
                    #expect(refused["error"] == "METHOD_NOT_ALLOWED")
                    #expect(refused.headers.first(name: "allow") == allow, "\(path)")
                }
                #expect(try await TestBed.send(follower.admin, .POST, "/internal/orders/7/retry").status == 404)
                try await follower.wait(metric: #"stockgate_order_follow_orders_total{outcome="applied"} 3"#)
                try await follower.wait(metric: "stockgate_order_follow_position 1")
            }
        }
    }

    @Test("repeats and disorder change nothing; within an order the highest version stands")
    func disorder() async throws {
        try await self.bed { bed in
            bed.stream.state.withLock { $0.repeats = 3 }
            var random = SystemRandomNumberGenerator()
            var bodies: [String] = []
            for id in Int64(1)...40 {
                bodies.append(message("order.created", [(id, .pending, 1)]))
                bodies.append(message("order.confirmed", [(id, .confirmed, 2)]))
            }
            bodies.shuffle(using: &random)
            // The newest of one comes first, with the older ones of it behind in another batch.
            for body in [message("order.cancelled", [(99, .cancelled, 3)])] + bodies + [message("order.confirmed", [(99, .confirmed, 2)])] {
                bed.stream.append(body)
            }
            try await bed.follower { follower in
                _ = try await follower.wait(for: "UP", status: 200)
                try await bed.wait("select last_offset from follow_position", for: 81)
                #expect(try await bed.count(FollowTests.digest) == 40)
                #expect(try await bed.count("select count(*) from orders where id = 99 and status = 'CANCELLED'") == 1)
                #expect(try await bed.count("select count(*) from orders") == 41)
            }
        }
    }

    @Test("stopped and started it goes on behind its position and misses nothing")
    func restart() async throws {
        try await self.bed { bed in
            let writer = Task {
                for id in Int64(1)...200 {
                    bed.stream.append(message("order.created", [(id, .pending, 1)]))
                    bed.stream.append(message("order.confirmed", [(id, .confirmed, 2)]))
                    if id % 10 == 0 { try? await Task.sleep(for: .milliseconds(5)) }
                }
            }
            for run in Int64(1)...3 {
                // Stopped wherever it is, once it has come further than the run before.
                try await bed.follower { _ in
                    try await bed.wait("select count(*) from follow_position where last_offset >= \(run * 20)", for: 1)
                }
            }
            await writer.value
            try await bed.follower { follower in
                _ = try await follower.wait(for: "UP", status: 200)
                try await bed.wait("select last_offset from follow_position", for: 399)
                #expect(try await bed.count(FollowTests.digest) == 200)
            }
            let starts = bed.stream.state.withLock { $0.starts }
            #expect(starts.count == 4)
            #expect(starts.first == .first)
            #expect(starts.last != .first)
        }
    }

    @Test("a process that dies between its batch and the acknowledgement reads the batch again, without effect")
    func crash() async throws {
        try await self.bed { bed in
            for id in Int64(1)...8 { bed.stream.append(message("order.confirmed", [(id, .confirmed, 2)])) }
            try await bed.follower { follower in _ = try await follower.wait(for: "UP", status: 200) }
            // As if the position had not been written with the last batch: it comes again.
            _ = try await bed.pool.query("update follow_position set last_offset = 3")
            try await bed.follower { follower in
                _ = try await follower.wait(for: "UP", status: 200)
                #expect(try await bed.count("select last_offset from follow_position") == 7)
                #expect(try await bed.count(FollowTests.digest) == 8)
                try await follower.wait(metric: #"stockgate_order_follow_orders_total{outcome="stale"} 4"#)
            }
        }
    }

    @Test("a message that cannot be read is left out and counted; one that the database refuses does not hold up its neighbours")
    func poison() async throws {
        try await self.bed { bed in
            bed.stream.append(message("order.confirmed", [(1, .confirmed, 2)]))
            bed.stream.append("{not json")
            bed.stream.append(message("order.confirmed", [(2, .confirmed, 2)], version: 9))
            bed.stream.append(message("order.confirmed", [(3, .confirmed, 2)]))
            bed.stream.append(message("order.confirmed", [(4, .confirmed, 2)]))
            bed.stream.append(message("order.confirmed", [(5, .confirmed, 2)]))
            try await bed.follower { follower in
                _ = try await follower.wait(for: "UP", status: 200)
                #expect(try await bed.count("select last_offset from follow_position") == 5)
                #expect(try await bed.count(FollowTests.digest) == 4)
                #expect(try await follower.metrics().contains("\nstockgate_order_follow_poison_total 2\n"))
                _ = try await bed.pool.query("alter table orders add constraint odd check (id <> 7)")
                for id in Int64(6)...8 { bed.stream.append(message("order.confirmed", [(id, .confirmed, 2)])) }
                try await bed.wait("select last_offset from follow_position", for: 8)
                #expect(try await bed.count(FollowTests.digest) == 6)
                try await follower.wait(metric: "stockgate_order_follow_poison_total 3")
            }
        }
    }

    @Test("messages at their ends are left out, or shown as they are; a position that cannot be is said, not trusted")
    func ends() async throws {
        try await self.bed { bed in
            bed.stream.append(message("order.confirmed", [(1, .confirmed, 2)]))
            bed.stream.append(message("order.confirmed", [(2, .confirmed, 2)], time: "300000-01-01T00:00:00Z"))
            bed.stream.append(message("order.confirmed", [(.max, .confirmed, .max)], time: "9999-12-31T23:59:59.999999Z"))
            bed.stream.append(message("order.confirmed", [(4, .confirmed, 2)], time: "0000-01-01T00:00:00Z"))
            try await bed.follower { follower in
                _ = try await follower.wait(for: "UP", status: 200)
                #expect(try await bed.count("select count(*) from orders") == 3)
                #expect(try await follower.metrics().contains("\nstockgate_order_follow_poison_total 1\n"))
                #expect(try await follower.send(.GET, "/orders/9223372036854775807")["status"] == "CONFIRMED")
            }
            _ = try await bed.pool.query("update follow_position set missed_later = -1, complete_at = '-infinity'")
            try await bed.follower { follower in
                // It cannot begin, says why, and goes on trying.
                #expect(try await follower.send(.GET, "/readyz").status == 503)
                #expect(try await follower.send(.GET, "/orders/1")["status"] == "CONFIRMED")
                _ = try await bed.pool.query("update follow_position set missed_later = 0, complete_at = null")
                bed.stream.append(message("order.confirmed", [(5, .confirmed, 2)]))
                try await bed.wait("select count(*) from orders where id = 5", for: 1)
            }
        }
    }

    @Test("a stream that was cut before the replica is reported; the replica serves, degraded")
    func gap() async throws {
        try await self.bed { bed in
            bed.stream.state.withLock { $0.base = 12 }
            bed.stream.append(message("order.confirmed", [(1, .confirmed, 2)]))
            for _ in 0..<2 {
                try await bed.follower { follower in
                    let detail = try await follower.wait(for: "DEGRADED", status: 200)
                    // The first answer may be that of the start, which knows the database's position alone.
                    #expect(detail["missedAtBeginning"] == .some(12) || detail["connected"] == .some(.bool(false)))
                    try await bed.wait("select missed_at_beginning from follow_position", for: 12)
                    try await follower.wait(metric: #"stockgate_order_follow_missed_messages_total{at="beginning"} 12"#)
                }
            }
        }
    }

    @Test("without its broker a replica that was complete is degraded, and a new one is not ready")
    func broker() async throws {
        try await self.bed { bed in
            bed.stream.state.withLock { $0.isConnected = false }
            try await bed.follower { follower in
                _ = try await follower.wait(for: "DOWN", status: 503)
                bed.stream.append(message("order.confirmed", [(1, .confirmed, 2)]))
                bed.stream.state.withLock { $0.isConnected = true }
                let detail = try await follower.wait(for: "UP", status: 200)
                #expect(detail["offset"] == .some(0))
                bed.stream.state.withLock { $0.isConnected = false }
                _ = try await follower.wait(for: "DEGRADED", status: 200)
                #expect(try await follower.send(.GET, "/orders/1")["status"] == "CONFIRMED")
                try await bed.wait("select count(*) from follow_position where complete_at is not null", for: 1)
            }
            try await bed.follower { follower in _ = try await follower.wait(for: "DEGRADED", status: 200) }
        }
    }

    @Test("a stream made anew is read from its beginning")
    func anew() async throws {
        try await self.bed { bed in
            for id in Int64(1)...5 { bed.stream.append(message("order.confirmed", [(id, .confirmed, 2)])) }
            try await bed.follower { follower in _ = try await follower.wait(for: "UP", status: 200) }
            bed.stream.state.withLock { $0.bodies = [] }
            bed.stream.append(message("order.confirmed", [(6, .confirmed, 2)]))
            try await bed.follower { follower in
                // Nothing comes from behind the position; the next message shows that the stream is another.
                try await eventually("a second start", every: .milliseconds(1)) { bed.stream.state.withLock { $0.starts.count } >= 2 }
                bed.stream.append(message("order.confirmed", [(7, .confirmed, 2)]))
                try await bed.wait(FollowTests.digest, for: 7)
                try await bed.wait("select last_offset from follow_position", for: 1)
            }
            #expect(bed.stream.state.withLock { $0.starts.last } == .first)
        }
    }

    @Test("a wait on the database is survived: the batch is written when it answers again")
    func databaseTrouble() async throws {
        try await self.bed { bed in
            try await bed.follower { follower in
                _ = try await follower.wait(for: "UP", status: 200)
                // Its connections are cut; the statement is tried again on another.
                _ = try await bed.pool.query(
                    "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
                )
                for id in Int64(1)...8 { bed.stream.append(message("order.confirmed", [(id, .confirmed, 2)])) }
                try await bed.wait(FollowTests.digest, for: 8)
                _ = try await follower.wait(for: "UP", status: 200)
            }
        }
    }
}

extension JSONValue? {
    fileprivate subscript(name: String) -> JSONValue? { self?[name] }
}
