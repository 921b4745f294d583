public import TransportSecurity

/// Where a Redis server is and how long, how often and how much a client may ask of it. Every wait and every queue has its bound here.
public struct RedisConfiguration: Sendable, Hashable {
    /// Where the server listens.
    public enum Address: Sendable, Hashable {
        /// A host name or IP address, and a TCP port.
        case tcp(host: String, port: Int)
        /// The path of a Unix domain socket.
        case unix(path: String)
        /// The server is the master that these sentinels name.
        case sentinels(RedisSentinels)
        /// The servers are the nodes of a cluster that these nodes know: see `RedisCluster`. `RedisClient` connects to none of them.
        case cluster(RedisSeeds)
    }

    /// Where the server listens.
    public var address: Address
    /// How TLS is spoken with the server, and with the sentinels that name it; nil for no TLS. Not for a Unix domain socket.
    public var tls: TLSClientConfiguration?
    /// The ACL user, or nil for the default user. Used only with a password.
    public var username: String?
    /// The password, or nil for none.
    public var password: String?
    /// The database that is selected on each new connection, if not 0.
    public var database = 0
    /// Longest wait for the socket to connect, and with TLS once more for the handshake.
    public var connectTimeout = Duration.milliseconds(500)
    /// Longest time from connected to ready: `AUTH`, `SELECT` and the `onConnect` hook.
    public var preparationTimeout = Duration.milliseconds(1000)
    /// The deadline of a command that gives none.
    public var commandTimeout = Duration.milliseconds(50)
    /// A connection is closed when commands are outstanding and nothing has come for so long. It also bounds every command's deadline.
    public var silenceLimit = Duration.milliseconds(1000)
    /// Commands without a reply on one connection, timed out ones included; more fail with `queueFull` at once.
    public var maximumPendingCommands = 16_384
    /// Bytes that may wait for the socket on one connection; while there are more, commands fail with `queueFull` at once.
    public var maximumOutgoingBytes = 4 << 20
    /// Size of one reply with all its elements, in bytes; a longer one ends the connection.
    public var maximumReplyBytes = 8 << 20
    /// Elements in one array; a longer one ends the connection.
    public var maximumArrayElements = 1 << 20
    /// The wait before the first attempt to reconnect. It doubles with each attempt up to `maximumBackoff`; each wait is shortened by a random part
    /// of up to one half, so that many servers do not come at once.
    public var minimumBackoff = Duration.milliseconds(10)
    /// The longest wait between two attempts to reconnect.
    public var maximumBackoff = Duration.milliseconds(100)

    /// Settings with their default bounds.
    public init(address: Address = .tcp(host: "127.0.0.1", port: 6379)) {
        self.address = address
    }
}

extension RedisConfiguration {
    /// The `AUTH` of a new connection; nil without a password.
    var credentials: RedisCommand? { password.map { .auth(username: username, password: $0) } }
}

extension RedisConfiguration: CustomStringConvertible {
    /// The address alone: never the password.
    public var description: String {
        switch address {
        case .tcp(let host, let port):
            "\(tls == nil ? "redis" : "rediss")://\(host.contains(":") ? "[\(host)]" : host):\(port)/\(database)"
        case .unix(let path): "unix://\(path)"
        case .sentinels(let sentinels):
            "\(tls == nil ? "redis" : "rediss")+sentinel://\(sentinels.endpoints.map(\.description).joined(separator: ","))/\(sentinels.master)/\(database)"
        case .cluster(let seeds):
            "\(tls == nil ? "redis" : "rediss")+cluster://\(seeds.endpoints.map(\.description).joined(separator: ","))"
        }
    }
}
