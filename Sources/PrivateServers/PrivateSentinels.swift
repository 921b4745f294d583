// Three sentinels, a master and a replica, all private and on loopback.

/// Redis as it fails over: the master is the one that most sentinels name.
public final class PrivateSentinels: Sendable {
    /// The name under which the sentinels know the master.
    public static let name = "shop"
    /// The password of the servers that hold data. Without one a login that fails would leave its connection the default user's rights.
    public static let serverPassword = "server-secret"
    /// The password of every sentinel.
    public static let sentinelPassword = "sentinel-secret"
    /// The user as whom replicas follow a master, and the one as whom sentinels watch a server.
    private static let link = "link"
    private static let watcher = "watcher"
    private static let password = "private"

    /// The two servers that hold data. The first is the master at the start.
    public let servers: [PrivateRedis]
    /// The sentinels.
    public let sentinels: [PrivateRedis]

    private init(servers: [PrivateRedis], sentinels: [PrivateRedis]) {
        self.servers = servers
        self.sentinels = sentinels
    }

    /// Starts everything, and waits until each sentinel knows the replica and the other sentinels.
    /// - Parameter downAfter: how long a server must be silent before a sentinel takes it for dead, milliseconds
    public static func start(downAfter: Int = 2000) async throws -> PrivateSentinels {
        let users =
            [link, watcher].flatMap { ["--user", $0, "on", ">" + password, "~*", "&*", "+@all"] } + [
                "--requirepass", serverPassword, "--masteruser", link, "--masterauth", password, "--repl-diskless-sync-delay", "0",
            ]
        let master = try PrivateRedis.start(options: users)
        let replica = try PrivateRedis.start(options: users + ["--replicaof", "127.0.0.1", "\(master.port)"])
        let lines = [
            "requirepass \(sentinelPassword)", "sentinel sentinel-pass \(sentinelPassword)",
            "sentinel monitor \(name) 127.0.0.1 \(master.port) 2", "sentinel auth-user \(name) \(watcher)",
            "sentinel auth-pass \(name) \(password)", "sentinel down-after-milliseconds \(name) \(downAfter)",
            "sentinel failover-timeout \(name) 10000",
        ]
        let sentinels = try (0..<3).map { _ in try PrivateRedis.startSentinel(lines) }
        let all = PrivateSentinels(servers: [master, replica], sentinels: sentinels)
        try await until("the replica follows") {
            try replica.call(["INFO", "replication"], password: serverPassword).contains("master_link_status:up")
        }
        try await until("every sentinel knows the replica and the others") {
            try sentinels.allSatisfy {
                let info = try $0.call(["INFO", "sentinel"], password: sentinelPassword)
                return info.contains("status=ok") && info.contains("slaves=1,sentinels=3")
            }
        }
        return all
    }

    /// `127.0.0.1:port` of each sentinel.
    public var hosts: [String] { sentinels.map { "127.0.0.1:\($0.port)" } }

    /// The address as a setting has it.
    public var url: String { self.url(hosts) }

    /// The same through other hosts, such as proxies in front of the sentinels.
    public func url(_ hosts: [String]) -> String {
        "redis+sentinel://:\(Self.serverPassword)@\(hosts.joined(separator: ","))/\(Self.name)/0"
    }

    /// The port that this sentinel names.
    public func named(by sentinel: Int = 0) throws -> Int? {
        let reply = try sentinels[sentinel].call(["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self.name], password: Self.sentinelPassword)
        return reply.split(separator: "\r\n").compactMap { Int($0) }.last
    }

    /// The server that this port is, and the other one.
    public func server(at port: Int?) -> (one: PrivateRedis, other: PrivateRedis)? {
        guard servers.count == 2, let index = servers.firstIndex(where: { $0.port == port }) else { return nil }
        return (servers[index], servers[1 - index])
    }

    /// Waits until every sentinel names another port than this, and that server says that it is a master.
    public func untilFailedOver(from port: Int) async throws {
        try await until("all sentinels name another master") {
            guard let named = try self.named(), named != port else { return false }
            guard try self.sentinels.indices.allSatisfy({ try self.named(by: $0) == named }) else { return false }
            return try self.server(at: named)?.one.call(["ROLE"], password: Self.serverPassword).contains("master") == true
        }
    }

    /// Cuts a server off from the sentinels and from its replica: they may not log in any more. Whoever uses it as the default user goes on.
    public func cutOff(_ server: PrivateRedis) throws {
        for user in [Self.link, Self.watcher] {
            try server.call(["ACL", "SETUSER", user, "off"], password: Self.serverPassword)
            try server.call(["CLIENT", "KILL", "USER", user], password: Self.serverPassword)
        }
    }

    /// Ends that.
    public func rejoin(_ server: PrivateRedis) throws {
        for user in [Self.link, Self.watcher] { try server.call(["ACL", "SETUSER", user, "on"], password: Self.serverPassword) }
    }

    /// Stops everything.
    public func stop() {
        for sentinel in sentinels { sentinel.kill() }
        for server in servers { server.kill() }
    }
}
