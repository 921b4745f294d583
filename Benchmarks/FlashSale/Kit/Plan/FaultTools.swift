import Foundation
import Glibc
public import NIOCore
import PostgresClient
import RedisClient
import Synchronization

/// What faults are made with: the script that owns the servers, the stores' own addresses, and the command files of proxies before servers.
public struct FaultTools: Sendable {
    /// Kills, starts, pauses and resumes.
    public var stack: StackScript?
    /// To flush Redis and to end its connections.
    public var redisURL: String?
    /// To end PostgreSQL's connections.
    public var databases: [String] = []
    /// By the server's name: the file, usually a named pipe, that a `fault-proxy` before it reads commands from.
    public var proxies: [String: String] = [:]
    private let eventLoopGroup: any EventLoopGroup
    /// By the server's name, what its proxy is set to now, in the order in which it was told. Bound: the faults of one sale.
    private let settings = ProxySettings()

    /// - Parameter eventLoopGroup: for the connection to Redis.
    public init(stack: StackScript?, eventLoopGroup: any EventLoopGroup) {
        self.stack = stack
        self.eventLoopGroup = eventLoopGroup
    }

    /// Why a fault could not be made.
    public struct Failure: Error, CustomStringConvertible {
        /// What was tried and what came of it.
        public let description: String
    }

    /// Finds out whether a fault can be made at all.
    func check(_ disruption: Disruption, known: [String]?) throws(PlanError) {
        let server = disruption.server
        switch disruption.kind {
        case .kill, .pause:
            guard let known else { throw PlanError("taking servers away needs the script that owns them: --stack scripts/stack") }
            // The first of several is listed without its number.
            let names = [disruption.leaderOf ?? server, "\(server)-1"] + (server.hasSuffix("-1") ? [String(server.dropLast(2))] : [])
            guard names.contains(where: known.contains) else {
                throw PlanError("the stack has no server '\(server)', only \(known.joined(separator: ", "))")
            }
        case .flush:
            guard server == "redis" else { throw PlanError("only redis can be flushed, not \(server)") }
            guard redisURL != nil else { throw PlanError("redis:flush needs REDIS_URL") }
        case .cut where proxies[server] == nil:
            switch server {
            case "redis" where redisURL != nil, "postgres" where !databases.isEmpty: break
            default:
                throw PlanError("\(server):cut needs \(server == "redis" ? "REDIS_URL" : "a proxy before it (--proxy \(server)=FILE)")")
            }
        case .cut, .slow, .jitter, .bandwidth, .stall:
            guard let file = proxies[server] else {
                throw PlanError("\(server):\(disruption.kind.name) needs a proxy before it: --proxy \(server)=FILE")
            }
            try Self.checkCommands(file, of: server)
        }
    }

    /// Opens a proxy's command file as a fault does later: a pipe that nobody reads is found now.
    private static func checkCommands(_ file: String, of server: String) throws(PlanError) {
        let descriptor = open(file, O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC)
        guard descriptor >= 0 else {
            let reason = errno == ENXIO ? "nobody reads it: is the fault-proxy up?" : String(cString: strerror(errno))
            throw PlanError("--proxy \(server): \(file) cannot be written: \(reason)")
        }
        _ = Glibc.close(descriptor)
    }

    /// The same fault at the server that has the named part now, such as the master of Redis. The fault is made and undone at this server, whoever has the
    /// part by then.
    func find(_ disruption: Disruption) async throws -> Disruption {
        guard let store = disruption.leaderOf else { return disruption }
        guard let stack else { throw Failure(description: "\(disruption.server): only the script that owns the servers knows who that is") }
        let name = try await stack.run(["leader", store])
        guard name.wholeMatch(of: /[a-z]+(-[0-9]+)?/) != nil else {
            throw Failure(description: "\(disruption.server): the script names no server, but says '\(name.suffix(200))'")
        }
        return disruption.of(name)
    }

    /// Makes the fault.
    func make(_ disruption: Disruption) async throws {
        switch disruption.kind {
        case .kill: try await stack?.run(["kill", disruption.server])
        case .pause: try await stack?.run(["pause", disruption.server])
        case .flush: try await redis(RedisCommand("FLUSHALL"))
        case .cut:
            if let file = proxies[disruption.server] {
                try tell(file, "reset")
            } else if disruption.server == "redis" {
                try await redis(RedisCommand("CLIENT", "KILL", "TYPE", "normal"))
            } else {
                try await cutDatabases()
            }
        case .slow, .jitter, .bandwidth, .stall:
            settings.add(disruption)
            try tell(proxy(disruption), disruption.kind.setting)
        }
    }

    /// Undoes the fault.
    func undo(_ disruption: Disruption) async throws {
        switch disruption.kind {
        // A standby may have to be made anew.
        case .kill: try await stack?.run(["start", disruption.server], bound: .seconds(120))
        case .pause: try await stack?.run(["resume", disruption.server])
        case .flush, .cut: break
        case .slow, .jitter, .bandwidth, .stall:
            let rest = settings.remove(disruption)
            let file = try proxy(disruption)
            for command in Self.undoing(disruption.kind, rest: rest) { try tell(file, command) }
        }
    }

    /// What a proxy is told when a fault ends while others of the same server go on: those stay.
    static func undoing(_ kind: Disruption.Kind, rest: [Disruption.Kind]) -> [String] {
        guard !rest.isEmpty else { return ["heal"] }
        // Of two settings of a kind the last one holds.
        if let other = rest.last(where: { $0.isLike(kind) }) { return kind == .stall ? [] : [other.setting] }
        switch kind {
        case .slow: return ["latency 0ms"]
        case .jitter: return ["jitter 0ms 0ms"]
        case .bandwidth: return ["bandwidth 0 0"]
        // A proxy has no word for the end of a silence alone.
        default: return ["heal"] + rest.map(\.setting)
        }
    }

    private func proxy(_ disruption: Disruption) throws -> String {
        guard let file = proxies[disruption.server] else { throw Failure(description: "there is no proxy before \(disruption.server)") }
        return file
    }

    private func redis(_ command: RedisCommand) async throws {
        guard let redisURL else { throw Failure(description: "REDIS_URL is not set") }
        var settings = try RedisConfiguration(url: redisURL)
        settings.commandTimeout = .seconds(10)
        let client = RedisClient(configuration: settings, eventLoopGroup: eventLoopGroup)
        do {
            _ = try await client.send(command)
        } catch {
            await client.shutdown()
            throw Failure(description: "redis: \(error)")
        }
        await client.shutdown()
    }

    /// Ends the connections of everybody else; the harness' own go by its name.
    private func cutDatabases() async throws {
        for url in databases {
            var configuration = try PostgresConfiguration(url: url)
            configuration.applicationName = "flash-sale"
            let connection = try PostgresConnection(configuration: configuration, name: "fault")
            do {
                _ = try await connection.query(
                    """
                    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> 'flash-sale'
                    """,
                    []
                )
            } catch {
                await connection.close()
                throw Failure(description: "postgres: \(error)")
            }
            await connection.close()
        }
    }

    /// Writes a line to a proxy's command file. A pipe that nobody reads is an error, not a wait.
    private func tell(_ file: String, _ line: String) throws {
        let descriptor = open(file, O_WRONLY | O_APPEND | O_NONBLOCK | O_CLOEXEC)
        guard descriptor >= 0 else { throw Failure(description: "\(file): \(String(cString: strerror(errno)))") }
        defer { _ = Glibc.close(descriptor) }
        let bytes = Array((line + "\n").utf8)
        guard write(descriptor, bytes, bytes.count) == bytes.count else {
            throw Failure(description: "\(file): the command could not be written")
        }
    }
}

/// What the proxies are set to.
private final class ProxySettings: Sendable {
    private let active = Mutex<[String: [Disruption.Kind]]>([:])

    func add(_ disruption: Disruption) {
        active.withLock { $0[disruption.server, default: []].append(disruption.kind) }
    }

    /// Takes one setting out. Returns those that the server's proxy keeps.
    func remove(_ disruption: Disruption) -> [Disruption.Kind] {
        active.withLock { active in
            var kinds = active[disruption.server] ?? []
            if let place = kinds.firstIndex(of: disruption.kind) { kinds.remove(at: place) }
            active[disruption.server] = kinds
            return kinds
        }
    }
}
