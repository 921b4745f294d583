import Eventually
import FlashSaleKit
import Foundation
import NIOHTTP1
import PostgresClient
import PrivateServers
import Testing

extension Faults {
    /// With a stack of its own: what it reads is this sale's events, and not those of every sale before it.
    @Suite(
        "A follower's faults",
        .serialized,
        .stackWithBroker(instances: 2, ["OUTBOX_BACKOFF_MAX": "2s", "ASYNC_RECOVERY_AGE": "1h"]),
        .timeLimit(.minutes(20))
    )
    struct Following {}
}

extension Faults.Following {
    /// A second order service with a database of its own, made from the events alone, dies and is stopped under load. It ends with the same orders.
    @Test func followerRestarted() async throws {
        let follower = try await Follower(of: Stack.current)
        do {
            try await AsyncSale.hold("follower killed and stopped") { sale in
                let product = sale.product
                try await follower.start()
                // It begins with the events of before, of which a machine makes some thousands while it is measured.
                try await eventuallyDone("the follower has some of the orders") {
                    let orders = try await follower.orders(of: product)
                    return (orders > 0, try await follower.changes())
                }
                try await follower.end(by: SIGKILL)
                let killed = try await follower.orders(of: product)
                try await sale.accepts(600, "while the follower is dead")
                try await follower.start()
                try await eventuallyDone("the follower reads on") {
                    let orders = try await follower.orders(of: product)
                    return (orders > killed, try await follower.changes())
                }
                try await follower.end(by: SIGTERM)
                let stopped = try await follower.orders(of: product)
                try await sale.accepts(600, "while the follower is stopped")
                try await follower.start()
                try await sale.heals()
                await sale.note("the follower had \(killed) orders when it was killed, \(stopped) when it was stopped")
            }
            try await follower.hasTheSameOrders()
            try await follower.showsTheSameOrders(50)
        } catch {
            Issue.record("\(error)\n\(follower.log)")
        }
        try await follower.remove()
    }
}

/// An order server with FOLLOW=true, and its database on the stack's PostgreSQL.
private actor Follower {
    private let stack: Stack
    private let folder: URL
    private let source: PostgresConnection
    private let replica: PostgresConnection
    private let database: String
    private var pid: pid_t?
    private var port: Int?

    private static let name = "stockgate_follower"

    init(of stack: Stack) async throws {
        self.stack = stack
        folder = stack.folder.appendingPathComponent("follower")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let libraries = "$(dirname \"$STACK_SCRIPT\")/lib"
        let make = """
            for library in common process ports postgres; do . \(libraries)/$library.sh; done; load_ports; postgres_binaries; postgres_socket postgres; cd /;
            exec "${POSTGRES_AS[@]}" "$POSTGRES_BIN/createdb" -h "$POSTGRES_SOCKET" -p "${PORTS[POSTGRES_PORT]}" -O stockgate_order \(Self.name)
            """
        try await stack.shell("exec /bin/bash -c '\(make)'")
        let original = try await stack.addresses().address("ORDER_DATABASE_URL")
        guard let slash = original.lastIndex(of: "/") else { throw SystemFailure(description: "the order database has no name") }
        database = "\(original[...slash])\(Self.name)"
        source = try PostgresConnection(configuration: PostgresConfiguration.patient(original))
        replica = try PostgresConnection(configuration: PostgresConfiguration.patient(database))
    }

    /// Starts it and waits until it answers. It does not outlive the tests.
    func start() async throws {
        let addresses = try await stack.addresses()
        let settings = [
            "FOLLOW": "true", "ORDER_DATABASE_URL": database, "AMQP_URL": try addresses.address("AMQP_URL"), "ORDER_PORT": "0",
            "ORDER_ADMIN_PORT": "0",
            "FOLLOWER_DIR": folder.path,
        ]
        let before = log.count
        let command = """
            cd "$FOLLOWER_DIR" || exit
            "$STOCKGATE_BIN_DIR/order-server" </dev/null >>log 2>&1 &
            pid=$!
            (while kill -0 $pid; do kill -0 $TESTS_PID && [ -e "$STACK_DIR" ] || kill -KILL $pid; sleep 1; done) </dev/null >/dev/null 2>&1 &
            echo $pid
            """
        // Not through `shell`, which forgets the ports that are set here.
        let said = try await StackScript.shell(command, environment: stack.environment.merging(settings) { $1 })
        guard let pid = pid_t(said) else { throw SystemFailure(description: "no follower: \(said)") }
        self.pid = pid
        try await until("the follower answers") {
            guard kill(pid, 0) == 0 else { throw SystemFailure(description: "the follower ended") }
            guard let port = Self.port(in: log.dropFirst(before)) else { return false }
            self.port = port
            let client = try await Client("http://127.0.0.1:\(port)")
            defer { client.close() }
            return try await client.call(.GET, "/livez").status == 200
        }
    }

    /// Ends it by a signal, and waits until it is gone.
    func end(by signal: Int32) async throws {
        guard let pid else { return }
        self.pid = nil
        kill(pid, signal)
        try await until("the follower ends") { kill(pid, 0) != 0 }
    }

    func remove() async throws {
        try await end(by: SIGKILL)
        await source.close()
        await replica.close()
    }

    nonisolated var log: String { (try? String(contentsOf: folder.appendingPathComponent("log"), encoding: .utf8)) ?? "" }

    /// The public port, out of what it logs.
    private static func port(in log: Substring) -> Int? {
        log.firstMatch(of: /ready: public [^ ]*:([0-9]+),/).flatMap { Int($0.1) }
    }

    // MARK: What it has

    /// How many orders of a product it has.
    func orders(of product: Int64) async throws -> Int {
        Int(try await replica.query("SELECT count(*) FROM orders WHERE product_id = $1", [.int(product)]).one().decode(0, as: Int64.self))
    }

    /// How many changes of orders it has: grows with every event that it takes.
    func changes() async throws -> Int {
        Int(try await replica.query("SELECT coalesce(sum(version + 1), 0)::bigint FROM orders").one().decode(0, as: Int64.self))
    }

    /// All that an event tells of an order, of all orders together.
    private static let digest = """
        SELECT count(*), coalesce(md5(string_agg(
            row(id, product_id, product_code, buyer_id, quantity, unit_price, status, fail_reason, run, version, created_at, updated_at)::text,
            ',' ORDER BY id)), '')
        FROM orders
        """

    /// Waits until both databases have the same orders.
    func hasTheSameOrders() async throws {
        let began = ContinuousClock.now
        var texts = ("", "")
        do {
            try await eventuallyDone("both databases have the same orders") {
                let rows = (try await source.query(Self.digest).one(), try await replica.query(Self.digest).one())
                texts = (
                    "\(try rows.0.decode(0, as: Int64.self)) orders \(try rows.0.decode(1, as: String.self))",
                    "\(try rows.1.decode(0, as: Int64.self)) orders \(try rows.1.decode(1, as: String.self))"
                )
                return (texts.0 == texts.1, try await changes())
            }
        } catch {
            throw SystemFailure(description: "\(error): \(texts.0) and \(texts.1); \(try await differences())")
        }
        print("FOLLOWER has the same \(texts.0), \((ContinuousClock.now - began).text) after the books were closed")
    }

    /// Asks both services for the newest orders.
    func showsTheSameOrders(_ count: Int64) async throws {
        guard let port else { throw SystemFailure(description: "the follower has no port") }
        let original = try await Client(try stack.address("ORDER_PORT"))
        let copy = try await Client("http://127.0.0.1:\(port)")
        defer { for client in [original, copy] { client.close() } }
        for row in try await source.query("SELECT id FROM orders ORDER BY id DESC LIMIT $1", [.int(count)]) {
            let id = try row.decode(0, as: Int64.self)
            let shown = (try await original.call(.GET, "/orders/\(id)"), try await copy.call(.GET, "/orders/\(id)"))
            #expect(shown.0.status == 200)
            #expect(shown.0.text == shown.1.text)
        }
    }

    /// The first orders that are not the same, in words.
    private func differences() async throws -> String {
        let sql = "SELECT id, status, version, updated_at::text FROM orders ORDER BY id"
        var known: [Int64: String] = [:]
        for row in try await source.query(sql) {
            known[try row.decode(0, as: Int64.self)] =
                "\(try row.decode(1, as: String.self)) \(try row.decode(2, as: Int64.self)) \(try row.decode(3, as: String.self))"
        }
        var others: [String] = []
        for row in try await replica.query(sql) {
            let text = "\(try row.decode(1, as: String.self)) \(try row.decode(2, as: Int64.self)) \(try row.decode(3, as: String.self))"
            let id = try row.decode(0, as: Int64.self)
            if let original = known.removeValue(forKey: id), original == text { continue }
            others.append("\(id): \(text)")
        }
        return "missing \(known.count): \(known.sorted { $0.key < $1.key }.prefix(5)); other \(others.count): \(others.prefix(5))"
    }
}
