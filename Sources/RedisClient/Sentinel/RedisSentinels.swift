/// A host name or IP address, and a TCP port.
public struct RedisEndpoint: Sendable, Hashable, CustomStringConvertible {
    /// A name or an address; an IPv6 address without brackets.
    public var host: String
    /// The port.
    public var port: Int

    /// A host and a port.
    public init(host: String, port: Int) {
        self.host = host
        self.port = port
    }

    /// `host:port`, an IPv6 address in brackets.
    public var description: String { "\(host.contains(":") ? "[\(host)]" : host):\(port)" }
}

/// The sentinels that know which server is the master, and how long, how often and how much they are asked.
public struct RedisSentinels: Sendable, Hashable {
    /// Sentinels in one address at most.
    public static let maximumCount = 16

    /// Where they listen: one to `maximumCount`, none of them twice.
    public var endpoints: [RedisEndpoint]
    /// The name under which they know the master.
    public var master: String
    /// The ACL user at the sentinels, or nil for the default user. Used only with a password.
    public var username: String?
    /// The password at the sentinels, or nil for none. It is never the master's.
    public var password: String?
    /// How long one sentinel may take to answer, and how long a server that was named may take to say its role; connecting and TLS included.
    public var answerTimeout = Duration.milliseconds(500)
    /// After this time a search begins no further question.
    public var searchTimeout = Duration.seconds(3)
    /// How long the answer of a search, a failure too, serves all event loops. It also spaces the searches of a client that cannot connect.
    public var answerAge = Duration.milliseconds(250)
    /// The shortest time between the beginnings of two searches, whatever asks for them.
    public var minimumPause = Duration.milliseconds(50)
    /// The time between two searches while nothing has happened.
    public var checkInterval = Duration.seconds(5)
    /// A subscription from which nothing was heard for so long is given up, and the next sentinel is listened to.
    public var watchSilence = Duration.seconds(3)

    /// The default bounds.
    public init(endpoints: [RedisEndpoint], master: String) {
        self.endpoints = endpoints
        self.master = master
    }

    /// The `AUTH` of a new connection to a sentinel; nil without a password.
    var credentials: RedisCommand? { password.map { .auth(username: username, password: $0) } }
}
