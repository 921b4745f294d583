/// Nodes of a cluster that an address names, and how long, how often and how much a client asks for the map of the slots. Any node knows all others.
public struct RedisSeeds: Sendable, Hashable {
    /// Nodes in one address at most.
    public static let maximumCount = 16

    /// Where they listen: one to `maximumCount`, none of them twice.
    public var endpoints: [RedisEndpoint]
    /// How long one node may take to answer; connecting and TLS included.
    public var answerTimeout = Duration.milliseconds(500)
    /// After this time a search begins no further question.
    public var searchTimeout = Duration.seconds(3)
    /// How long the answer of a search, a failure too, serves those who wait for the first map.
    public var answerAge = Duration.milliseconds(250)
    /// The shortest time between the beginnings of two searches, whatever asks for them.
    public var minimumPause = Duration.milliseconds(100)
    /// The time between two searches while nothing has happened.
    public var checkInterval = Duration.seconds(5)
    /// How long a node that no map names is kept after a redirection has named it.
    public var namedFor = Duration.seconds(30)

    /// The default bounds.
    public init(endpoints: [RedisEndpoint]) {
        self.endpoints = endpoints
    }
}
