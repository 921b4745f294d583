import FlashSaleKit
import Foundation
import Glibc
import NIOCore
import NIOHTTP1
import NIOPosix
import PostgresClient
import PrivateServers
import RedisClient
import Synchronization

/// The peers: each a process of its own beside the project's stack, with the stack's Redis and PostgreSQL where it needs them.
///
/// Everything listens on loopback, on ports below those of outgoing connections. Bounds: a peer answers within `patience` or the comparison ends.
package final class PeerStand: Sendable {
    /// The processes that peers are made of.
    enum Name: String, CaseIterable {
        case goProduct = "go-product"
        case goOrder = "go-order"
        case gobatchProduct = "gobatch-product"
        case gobatchOrder = "gobatch-order"
        case webdis
        case nginxLua = "nginx-lua"
        case nginxLuaFsync = "nginx-lua-fsync"
        case redisFsync = "redis-fsync"
        case tarantool
    }

    private static let patience = Duration.seconds(20)
    static let role = "peer"

    let ports: [Name: Int]
    private let processes: Mutex<[Name: ChildProcess]>
    /// The peers' own database.
    let database: PostgresConnection
    /// What pgbench and the Go peers log in with.
    let databaseEnvironment: [String: String]
    /// The stack's Redis.
    let redis: RedisClient
    /// A Redis that syncs every write to its disk before it answers.
    let fsyncRedis: RedisClient
    /// Sides that this machine cannot measure, and why.
    let missing: [Side: String]
    /// The newest installed version's programs.
    let postgresPrograms: String

    func pid(_ name: Name) -> Int? { processes.withLock { $0[name] }.map { Int($0.pid) } }

    /// Kills a peer and all that it started, at once.
    func kill(_ name: Name) { processes.withLock { $0[name] }?.signal(SIGKILL) }

    /// Ends a peer.
    func stop(_ name: Name) async { await processes.withLock { $0[name] }?.end() }

    /// Starts a peer that was killed or ended again, without waiting for it.
    func start(_ name: Name) async throws {
        guard let process = processes.withLock({ $0[name] }) else { return }
        // Processes that the killed one has left would keep the port.
        await process.end()
        let again = try process.again()
        processes.withLock { $0[name] = again }
    }

    func endpoint(_ name: Name) throws -> HTTPEndpoint {
        guard let port = ports[name] else { throw ChildProcess.Failure(description: "\(name.rawValue) does not run") }
        return try HTTPEndpoint("http://127.0.0.1:\(port)")
    }

    private init(
        ports: [Name: Int],
        processes: [Name: ChildProcess],
        database: PostgresConnection,
        databaseEnvironment: [String: String],
        redis: RedisClient,
        fsyncRedis: RedisClient,
        missing: [Side: String],
        postgresPrograms: String
    ) {
        self.ports = ports
        self.processes = Mutex(processes)
        self.database = database
        self.databaseEnvironment = databaseEnvironment
        self.redis = redis
        self.fsyncRedis = fsyncRedis
        self.missing = missing
        self.postgresPrograms = postgresPrograms
    }

    /// Ends every peer.
    func end() async {
        await database.close()
        await redis.shutdown()
        await fsyncRedis.shutdown()
        await Self.end(processes.withLock { $0 })
    }

    private static func end(_ processes: [Name: ChildProcess]) async {
        await withTaskGroup(of: Void.self) { group in
            for process in processes.values { group.addTask { await process.end() } }
        }
    }

    // MARK: Start

    /// Makes the peers' database, builds what is built, starts everything, and waits until all of it answers.
    /// - Parameters:
    ///   - files: `Benchmarks/Compare`.
    ///   - environment: what `scripts/stack env` prints.
    static func start(files: String, environment: [String: String]) async throws -> PeerStand {
        guard let folder = environment["STACK_DIR"], let redisPort = port(in: environment["REDIS_URL"]),
            let postgresPort = port(in: environment["PRODUCT_DATABASE_URL"])
        else { throw PlanError("STACK_DIR, REDIS_URL and PRODUCT_DATABASE_URL are not set: scripts/stack env prints them") }
        let programs = try newestPostgres()
        let password = (0..<4).map { _ in String(UInt64.random(in: .min ... .max), radix: 36) }.joined()
        try await makeDatabase(stack: folder, port: postgresPort, programs: programs, password: password)
        let login = [
            "PGHOST": "127.0.0.1", "PGPORT": String(postgresPort), "PGUSER": role, "PGDATABASE": role, "PGPASSWORD": password,
        ]
        for schema in ["hot-row-schema.sql", "unit-rows-schema.sql"] {
            try await run("'\(programs)/psql' -X -q -v ON_ERROR_STOP=1 -f '\(files)/\(schema)'", login)
        }

        var processes: [Name: ChildProcess] = [:]
        var ports: [Name: Int] = [:]
        for name in Name.allCases { ports[name] = try LoopbackPort.free() }
        do {
            let missing = try await launch(
                files: files,
                folder: folder,
                redisPort: redisPort,
                postgresPort: postgresPort,
                password: password,
                ports: &ports,
                processes: &processes
            )
            let url = "postgresql://\(role):\(password)@127.0.0.1:\(postgresPort)/\(role)"
            var configuration = try PostgresConfiguration.patient(url)
            configuration.applicationName = "compare"
            return PeerStand(
                ports: ports,
                processes: processes,
                database: try PostgresConnection(configuration: configuration, name: "compare"),
                databaseEnvironment: login,
                redis: try client(redisPort),
                fsyncRedis: try client(ports[.redisFsync] ?? redisPort),
                missing: missing,
                postgresPrograms: programs
            )
        } catch {
            await end(processes)
            throw error
        }
    }

    private static func client(_ port: Int) throws -> RedisClient {
        var settings = try RedisConfiguration(url: "redis://127.0.0.1:\(port)")
        settings.commandTimeout = .seconds(10)
        return RedisClient(configuration: settings, eventLoopGroup: MultiThreadedEventLoopGroup.singleton)
    }

    private static func launch(
        files: String,
        folder: String,
        redisPort: Int,
        postgresPort: Int,
        password: String,
        ports: inout [Name: Int],
        processes: inout [Name: ChildProcess]
    ) async throws -> [Side: String] {
        func directory(_ name: String) throws -> String {
            let path = "\(folder)/\(name)"
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            return path
        }
        func port(_ name: Name) -> Int { ports[name] ?? 0 }
        func start(_ name: Name, _ arguments: [String], _ more: [String: String] = [:]) throws {
            let log = try directory(name.rawValue) + "/log"
            var environment = ["PATH": searchPath, "HOME": folder, "LC_ALL": "C"]
            environment.merge(more) { $1 }
            processes[name] = try ChildProcess(arguments, environment: environment, log: log)
        }
        func answers(_ name: Name, _ path: String) async throws {
            guard let process = processes[name] else { return }
            let endpoint = try HTTPEndpoint("http://127.0.0.1:\(port(name))")
            let caller = try await HTTPCaller.make(
                endpoint: endpoint,
                eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
                timeout: .seconds(2)
            )
            defer { caller.close() }
            let deadline = ContinuousClock.now + patience
            while true {
                if (try? await caller.call(.GET, path)) != nil { return }
                guard process.isRunning, ContinuousClock.now < deadline else {
                    throw ChildProcess.Failure(description: "\(name.rawValue) does not answer: \(process.lastLines)")
                }
                try await Task.sleep(for: .milliseconds(50))
            }
        }

        // The Go peers. The first instance of each makes its tables; the second is started behind it.
        for (peer, product, order) in [("gopeer", Name.goProduct, Name.goOrder), ("gobatch", .gobatchProduct, .gobatchOrder)] {
            let binary = try directory("build") + "/" + peer
            try await run(
                "exec go build -o '\(binary)' '\(files)/\(peer)/main.go'",
                ["GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": "\(folder)/build/go-cache", "GOFLAGS": ""],
                bound: .seconds(300)
            )
            let login = "host=127.0.0.1 port=\(postgresPort) user=\(role) password=\(password) dbname=\(role)"
            for name in [product, order] {
                try start(
                    name,
                    [binary],
                    [
                        "REDIS_ADDR": "127.0.0.1:\(redisPort)", "PRODUCT_URL": "http://127.0.0.1:\(port(product))",
                        "LISTEN": "127.0.0.1:\(port(name))",
                        // Only gopeer's pool knows this setting.
                        "DATABASE_URL": peer == "gopeer" ? "\(login) pool_max_conns=16" : login,
                    ]
                )
                try await answers(name, "/admin/reset?stock=1")
            }
        }

        // gobatch opens a connection for a product at its first request, and opens several when many first requests come together. So one request is sent ahead.
        try await askOnce(port(.gobatchProduct))

        // Redis whose writes are on the disk when they are answered.
        try start(
            .redisFsync,
            [
                try program("redis-server"), "--bind", "127.0.0.1", "--port", String(port(.redisFsync)), "--dir",
                try directory("redis-fsync"),
                "--save", "", "--appendonly", "yes", "--appendfsync", "always", "--logfile", "", "--daemonize", "no",
            ]
        )
        let reserve = try String(contentsOfFile: "\(files)/reserve.lua", encoding: .utf8)
        for (name, redis) in [(Name.nginxLua, redisPort), (.nginxLuaFsync, port(.redisFsync))] {
            let client = try client(redis)
            let deadline = ContinuousClock.now + patience
            var sha: String?
            while sha == nil {
                sha = try? await client.send(RedisCommand("SCRIPT", "LOAD", .string(reserve)), timeout: .seconds(2)).string
                guard sha != nil || ContinuousClock.now < deadline else {
                    throw ChildProcess.Failure(
                        description: "redis at port \(redis) does not answer: \(processes[.redisFsync]?.lastLines ?? "")"
                    )
                }
                if sha == nil { try await Task.sleep(for: .milliseconds(50)) }
            }
            _ = try await client.send(RedisCommand("SET", "peer:stock:1", "0"))
            await client.shutdown()
            let place = try directory(name.rawValue)
            let configuration = try rendered(
                "\(files)/nginx-lua.conf",
                [
                    "REDIS_PORT": String(redis), "PORT": String(port(name)), "DIRECTORY": place, "RESERVE_SHA": sha ?? "",
                ],
                into: "\(place)/nginx.conf"
            )
            try start(name, [try program("nginx"), "-p", place, "-e", "stderr", "-c", configuration])
            try await answers(name, "/")
        }
        let webdis = try rendered(
            "\(files)/webdis.json",
            ["REDIS_PORT": String(redisPort), "PORT": String(port(.webdis))],
            into: try directory("webdis") + "/webdis.json"
        )
        try start(.webdis, [try program("webdis"), webdis])
        try await answers(.webdis, "/GET/peer:stock:1")

        // Some distributions have no package of it any more. Without it the comparison has one row less.
        guard let tarantool = try? program("tarantool") else {
            ports[.tarantool] = nil
            return [.tarantool: "tarantool is not installed (Debian 12 has it: apt-get install tarantool)"]
        }
        try start(
            .tarantool,
            [tarantool, "\(files)/tarantool.lua"],
            [
                "PORT": String(port(.tarantool)), "WORK_DIR": try directory("tarantool"),
            ]
        )
        try await answers(.tarantool, "/stock")
        return [:]
    }

    private static func askOnce(_ port: Int) async throws {
        let caller = try await HTTPCaller.make(
            endpoint: try HTTPEndpoint("http://127.0.0.1:\(port)"),
            eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
            timeout: .seconds(5)
        )
        defer { caller.close() }
        _ = try await caller.call(
            .PATCH,
            "/products/1/stock/decrease-by-order",
            json: "{\"orderId\":1,\"quantity\":1}",
            headers: [("Idempotency-Key", "DEC-1")]
        )
    }

    // MARK: Small things

    private static let searchPath = (ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin") + ":/usr/sbin:/sbin"

    static func program(_ name: String) throws -> String {
        for folder in searchPath.split(separator: ":") where access("\(folder)/\(name)", X_OK) == 0 { return "\(folder)/\(name)" }
        throw ChildProcess.Failure(description: "\(name) is not installed")
    }

    @discardableResult
    static func run(_ command: String, _ environment: [String: String], bound: Duration = .seconds(60)) async throws -> String {
        try await StackScript.shell(command, environment: environment, bound: bound)
    }

    /// The port of an address such as `redis://127.0.0.1:7000`.
    static func port(in url: String?) -> Int? {
        url.flatMap { URLComponents(string: $0) }?.port
    }

    static func newestPostgres() throws -> String {
        let root = "/usr/lib/postgresql"
        let versions = ((try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []).compactMap { Double($0) }
        guard let newest = versions.max() else { throw ChildProcess.Failure(description: "postgresql is not installed") }
        return "\(root)/\(String(newest).trimmed)/bin"
    }

    /// A template with `@NAME@` replaced, as a file of its own. Returns its path.
    static func rendered(_ template: String, _ values: [String: String], into path: String) throws -> String {
        var text = try String(contentsOfFile: template, encoding: .utf8)
        for (name, value) in values { text = text.replacing("@\(name)@", with: value) }
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        return path
    }

    /// The peers' role and database, made by the cluster's owner over its socket. The password goes by the environment, never by an argument or into the server's log.
    private static func makeDatabase(stack: String, port: Int, programs: String, password: String) async throws {
        let script = """
            cd /
            as=''
            if [ "$(id -u)" = 0 ]; then as='setpriv --reuid=postgres --regid=postgres --init-groups --'; fi
            socket=$(readlink -f "$STACK/postgres/server")/socket
            if [ -r "$STACK/postgres/socket-folder" ]; then socket=$(cat "$STACK/postgres/socket-folder"); fi
            exec $as "$PROGRAMS/psql" -X -q -v ON_ERROR_STOP=1 -h "$socket" -p "$PORT" -d postgres <<'SQL'
            \\getenv password PEER_PASSWORD
            SET log_min_error_statement = panic;
            CREATE ROLE \(role) LOGIN PASSWORD :'password';
            GRANT pg_checkpoint TO \(role);
            CREATE DATABASE \(role) OWNER \(role);
            SQL
            """
        try await run(script, ["STACK": stack, "PORT": String(port), "PROGRAMS": programs, "PEER_PASSWORD": password])
    }
}
