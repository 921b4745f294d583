import FlashSaleKit
import Foundation
import NIOHTTP1
import PrivateServers
import Testing

/// Why a test of the whole system could not go on.
struct SystemFailure: Error, CustomStringConvertible {
    let description: String
}

/// The servers of one suite: started by `scripts/stack` in a folder and on ports of their own, and removed with the suite.
///
/// Bounds that are minutes in a shop are seconds here, so that a test sees them pass. The servers are those beside the test bundle, or those in
/// `STOCKGATE_BIN_DIR`; a missing one fails the suite with the script's own words.
struct Stack: Sendable {
    /// Servers of each kind.
    let instances: Int
    let folder: URL
    private let script: String
    var environment: [String: String]
    /// What stands between the product servers and Redis, in a suite that asked for it.
    private(set) var redisProxy: FaultProxy?
    /// What stands between the servers and the broker, in a suite with a broker.
    var broker: BrokerLinks?
    /// What answers in the servers' places, in a suite of the gateway alone.
    private(set) var standIns: StandIns?

    /// The stack of the suite that is running.
    @TaskLocal static var running: Stack?

    /// The stack of the suite that is running.
    /// - Throws: `SystemFailure` in a suite without one
    static var current: Stack {
        get throws {
            guard let running else { throw SystemFailure(description: "this suite has no stack: give it .stack(instances:)") }
            return running
        }
    }

    /// The bounds that the tests wait for, and the ones that a debug build on a busy machine needs wider than the defaults.
    private static let bounds = [
        "GATE_TIMEOUT": "200ms", "PENDING_BOUND": "1500ms", "SWEEP_INTERVAL": "500ms", "AUDIT_INTERVAL": "1s", "GATED_REFRESH": "1s",
        "BREAKER_WAIT": "500ms", "ORDER_DEADLINE": "4s", "PRODUCT_TIMEOUT": "2s", "RECOVERY_AGE": "5s", "RECOVERY_INTERVAL": "300ms",
        "PRODUCT_BREAKER_WAIT": "200ms",
    ]

    private init(instances: Int, settings: [String: String]) throws {
        self.instances = instances
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("stockgate-system-\(UUID().uuidString.prefix(8))")
        let repository = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath()
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        script = repository.appendingPathComponent("scripts/stack").path
        let beside = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent().path
        let binaries = ProcessInfo.processInfo.environment["STOCKGATE_BIN_DIR"] ?? beside
        for server in ["product-server", "order-server"] where !FileManager.default.isExecutableFile(atPath: "\(binaries)/\(server)") {
            throw SystemFailure(description: "\(binaries)/\(server) is not there: build it (swift build), or set STOCKGATE_BIN_DIR")
        }
        environment = Self.bounds.merging(settings) { $1 }.merging([
            "STACK_SCRIPT": script, "STACK_DIR": folder.path, "STACK_PORTS": "any", "INSTANCES": String(instances),
            "STOCKGATE_BIN_DIR": binaries, "TESTS_PID": String(ProcessInfo.processInfo.processIdentifier),
        ]) { $1 }
    }

    /// Starts the gateway alone, in front of stand-ins that listen where the servers would.
    static func startGateway(instances: Int, settings: [String: String] = [:]) async throws -> Stack {
        var stack = try Stack(instances: instances, settings: settings)
        do {
            // The script gives a port away that somebody else listens on when it starts.
            try await stack.run("start gateway")
            try await stack.endWithTheTests()
            stack.standIns = try await StandIns.start(at: stack)
        } catch {
            await stack.destroy()
            throw error
        }
        return stack
    }

    /// Starts everything, the broker only if it is asked for.
    static func start(
        instances: Int,
        proxiesRedis: Bool = false,
        hasBroker: Bool = false,
        brokerNodes: Int = 1,
        hasPooler: Bool = false,
        settings: [String: String] = [:]
    ) async throws -> Stack {
        var stack = try Stack(instances: instances, settings: settings)
        do {
            stack.environment["RABBITMQ_NODES"] = String(brokerNodes)
            // A proxy stands before one node; a cluster is reached directly, so that its servers choose the node themselves.
            if hasBroker, brokerNodes == 1 { try await stack.interposeBrokerLinks() }
            if proxiesRedis {
                let address = try await stack.addresses().address("REDIS_URL")
                guard let port = URLComponents(string: address)?.port else { throw SystemFailure(description: "\(address) has no port") }
                let proxy = try await FaultProxy.start(to: port)
                stack.redisProxy = proxy
                stack.environment["PRODUCT_REDIS_URL"] = "redis://127.0.0.1:\(proxy.port)"
            }
            try await stack.run("start redis postgres gateway product order\(hasBroker ? " rabbitmq" : "")\(hasPooler ? " pgbouncer" : "")")
            stack.broker?.declared = .now
            try await stack.endWithTheTests()
        } catch {
            await stack.destroy()
            throw error
        }
        return stack
    }

    /// The tests may be killed: the servers must not outlive them.
    private func endWithTheTests() async throws {
        try await shell(
            "(while kill -0 $TESTS_PID && [ -e $STACK_DIR ]; do sleep 1; done; $STACK_SCRIPT destroy) </dev/null >/dev/null 2>&1 &"
        )
    }

    /// Runs one command of the script, such as `kill redis`.
    @discardableResult
    func run(_ command: String) async throws -> String {
        try await shell("exec $STACK_SCRIPT \(command)")
    }

    func destroy() async {
        do {
            try await run("destroy")
            try await redisProxy?.shutdown()
            try await broker?.stop()
            try await standIns?.stop()
        } catch {
            Issue.record("the stack in \(folder.path) could not be removed: \(error)")
        }
    }

    /// The process of a server that runs.
    func pid(of server: String) throws -> pid_t {
        let record = try String(contentsOf: folder.appendingPathComponent("\(server)/pid"), encoding: .utf8)
        guard let pid = record.split(whereSeparator: \.isWhitespace).first.flatMap({ pid_t($0) }) else {
            throw SystemFailure(description: "\(server) has no process: \(record)")
        }
        return pid
    }

    @discardableResult
    func shell(_ command: String) async throws -> String {
        // Ports that the caller's shell knows belong to another stack.
        let ports = [
            "REDIS", "POSTGRES", "PGBOUNCER", "RABBITMQ", "EPMD", "RABBITMQ_DIST", "GATEWAY", "PRODUCT", "PRODUCT_ADMIN", "ORDER",
            "ORDER_ADMIN",
        ]
        let others = [
            "TOPOLOGY", "CELLS", "MOVED_PRODUCTS", "POSTGRES_NODES", "RABBITMQ_NODES", "DATABASE_POOLER", "ADMIN_TOKEN", "SERVICE_TOKENS",
            "PRODUCT_SERVICE_TOKEN",
            "GATEWAY_PUBLIC_STOCK",
        ].filter { environment[$0] == nil }
        let forget = (others + ports.map { "\($0)_PORT" }).joined(separator: " ")
        return try await StackScript.shell("unset \(forget); \(command)", environment: environment)
    }

    /// A product that Redis sells, made where the shop's own services make theirs: at the product server.
    func addProduct(_ name: String = "Hot", price: Int = 39_000, stock: Int) async throws -> Int64 {
        let server = try await Client(address("PRODUCT_PORT"))
        defer { server.close() }
        let answer = try await server.call(
            .POST,
            "/products",
            json: "{\"name\":\"\(name)\",\"price\":\(price),\"stock\":\(stock),\"stockStrategy\":\"REDIS_FIRST\"}"
        )
        guard let id = answer.id else { throw SystemFailure(description: "no product: \(answer.status) \(answer.text)") }
        return id
    }

    // MARK: Addresses

    /// What `scripts/stack env` prints: the addresses of the stores and of the gateway.
    func addresses() async throws -> Addresses {
        var values: [String: String] = [:]
        for line in try await run("env").split(separator: "\n") {
            guard let equals = line.firstIndex(of: "=") else { continue }
            values[String(line[..<equals])] = String(line[line.index(after: equals)...])
        }
        return Addresses(values: values)
    }

    /// Addresses by the names of the servers' settings, such as `REDIS_URL`.
    struct Addresses: Sendable {
        let values: [String: String]

        func address(_ name: String) throws -> String {
            guard let value = values[name] else { throw SystemFailure(description: "the stack names no \(name)") }
            return value
        }
    }

    /// A port by its name in the stack's folder, such as `ORDER_2_PORT`, as an address.
    func address(_ port: String) throws -> String {
        let text = try String(contentsOf: folder.appendingPathComponent("ports"), encoding: .utf8)
        guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix("\(port)=") }) else {
            throw SystemFailure(description: "the stack has no \(port)")
        }
        return "http://127.0.0.1:\(line.dropFirst(port.count + 1))"
    }

    /// The port's name of one instance: `name("PRODUCT", 2, "ADMIN_PORT")`.
    func address(_ kind: String, _ instance: Int, _ port: String) throws -> String {
        try address(instance == 1 ? "\(kind)_\(port)" : "\(kind)_\(instance)_\(port)")
    }

    /// The end of the servers' logs, for a failure's text.
    func logs() async -> String {
        (try? await run("logs -n 12 product order")) ?? "no logs"
    }
}

/// Runs a suite on a stack of its own.
struct StackTrait: SuiteTrait, TestScoping {
    let instances: Int
    var proxiesRedis = false
    var hasBroker = false
    var brokerNodes = 1
    var hasPooler = false
    var isGatewayAlone = false
    var settings: [String: String] = [:]

    func provideScope(for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void) async throws {
        let stack =
            isGatewayAlone
            ? try await Stack.startGateway(instances: instances, settings: settings)
            : try await Stack.start(
                instances: instances,
                proxiesRedis: proxiesRedis,
                hasBroker: hasBroker,
                brokerNodes: brokerNodes,
                hasPooler: hasPooler,
                settings: settings
            )
        do {
            try await Stack.$running.withValue(stack) { try await function() }
        } catch {
            await stack.destroy()
            throw error
        }
        await stack.destroy()
    }
}

extension Trait where Self == StackTrait {
    /// So many product servers and so many order servers.
    static func stack(instances: Int, _ settings: [String: String] = [:]) -> StackTrait {
        StackTrait(instances: instances, settings: settings)
    }

    /// A gateway in front of stand-ins for two servers of each kind.
    static func gatewayAlone(_ settings: [String: String] = [:]) -> StackTrait {
        StackTrait(instances: 2, isGatewayAlone: true, settings: settings)
    }

    /// One server of each kind, and a proxy between the product server and Redis. `settings` replace the servers' own.
    static func stackWithProxiedRedis(_ settings: [String: String]) -> StackTrait {
        StackTrait(instances: 1, proxiesRedis: true, settings: settings)
    }
}
