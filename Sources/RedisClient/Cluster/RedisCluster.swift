public import NIOCore
public import NIOTransportSecurity
import NIOPosix
import Synchronization

/// Redis Cluster over one connection per event loop and master, each kept as `RedisClient` keeps its own.
///
/// The map of the slots comes from the nodes, and is asked for again when a node redirects a command, says that it is a replica, is lost or cannot be reached,
/// and at intervals. Meanwhile the last map stays in use. A command is sent again only after a reply that says that it has not run (`ClusterCall`).
///
/// Bounds: `maximumNodes` nodes, including those that redirections have named. Shut a client down before its event loops.
public final class RedisCluster: Sendable {
    /// As `RedisClient.ConnectHook`, with the node that the connection goes to.
    public typealias ConnectHook = @Sendable (RedisEndpoint, RedisConnection) -> EventLoopFuture<any Sendable>
    /// As `RedisClient.DisconnectHook`, with the node that the connection went to.
    public typealias DisconnectHook = @Sendable (RedisEndpoint, RedisConnection, RedisError) -> Void
    /// As `RedisClient.TLSFailureHook`, with the node.
    public typealias TLSFailureHook = @Sendable (RedisEndpoint, TLSFailure) -> Void

    /// Who is told of the map. Each is called on an event loop of the client.
    public struct MapHooks: Sendable {
        /// A map was found that differs from the one last told of, or the first one after a trouble. `saidBy` is the node that it comes from.
        public var onMap: (@Sendable (_ map: SlotMap, _ saidBy: RedisEndpoint) -> Void)?
        /// No map was found. `why` has what each node said. Told again only when the words change.
        public var onTrouble: (@Sendable (_ why: String) -> Void)?

        /// Hooks, each of which may be missing.
        public init(
            onMap: (@Sendable (_ map: SlotMap, _ saidBy: RedisEndpoint) -> Void)? = nil,
            onTrouble: (@Sendable (_ why: String) -> Void)? = nil
        ) {
            self.onMap = onMap
            self.onTrouble = onTrouble
        }
    }

    /// Nodes that are known at a time at most.
    public static let maximumNodes = 2 * SlotMap.maximumMasters

    private struct Node {
        let client: RedisClient
        /// When a redirection last named the node; nil if the map names it.
        var named: NIODeadline?
    }

    private struct State {
        var map: SlotMap?
        var nodes: [RedisEndpoint: Node] = [:]
        /// The clients of nodes that are not known any more, while they end.
        var ending: [UInt64: (client: RedisClient, task: Task<Void, Never>)] = [:]
        var nextEnding: UInt64 = 0
        /// What ended clients have done.
        var ended = RedisSnapshot()
        var isClosed = false
    }

    /// Where the seeds are, and the bounds.
    public let configuration: RedisConfiguration
    private let seeds: RedisSeeds
    private let group: any EventLoopGroup
    private let tls: TLSByHost?
    private let locator: MapLocator
    private let onConnect: ConnectHook?
    private let onDisconnect: DisconnectHook?
    private let onTLSFailure: TLSFailureHook?
    private let state = Mutex(State())
    private let redirects = Atomic<Int>(0)

    /// Connects nothing yet.
    /// - Parameters:
    ///   - configuration: the seeds, and the bounds of each node's connections.
    ///   - eventLoopGroup: each of its loops gets a connection to each master once one is asked for on it.
    ///   - onConnect: prepares a connection before it is handed out.
    ///   - onDisconnect: is told when a connection that was handed out has ended.
    ///   - onTLSFailure: is told why an attempt failed, where TLS was in the way.
    ///   - mapHooks: are told of the map.
    /// - Returns: nil if the address names no cluster
    public init?(
        configuration: RedisConfiguration,
        eventLoopGroup: any EventLoopGroup,
        onConnect: ConnectHook? = nil,
        onDisconnect: DisconnectHook? = nil,
        onTLSFailure: TLSFailureHook? = nil,
        mapHooks: MapHooks = MapHooks()
    ) {
        guard case .cluster(let seeds) = configuration.address else { return nil }
        self.configuration = configuration
        self.seeds = seeds
        group = eventLoopGroup
        tls = configuration.tls.map { TLSByHost($0) }
        self.onConnect = onConnect
        self.onDisconnect = onDisconnect
        self.onTLSFailure = onTLSFailure
        locator = MapLocator(
            eventLoop: eventLoopGroup.next(),
            configuration: configuration,
            seeds: seeds,
            tls: tls,
            hooks: mapHooks
        )
        locator.tell { [weak self] map in self?.use(map) }
    }

    /// The map in use; nil before the first was found.
    public var map: SlotMap? { state.withLock { $0.map } }

    /// The ready connection of a loop to the master of a slot, without waiting. Must be called on that loop.
    /// - Returns: nil while there is none; from then on the client connects by itself
    public func connection(for slot: HashSlot, on eventLoop: any EventLoop) -> RedisConnection? {
        let (isKnown, client) = state.withLock { state in (state.map != nil, state.map?[slot].flatMap { state.nodes[$0]?.client }) }
        if !isKnown { _ = locator.find() }
        return client?.connection(on: eventLoop)
    }

    /// Starts to connect to all masters, on every loop, and waits until all are ready.
    /// - Parameter timeout: how long to wait.
    /// - Throws: `notConnected` if one is not ready in time, `closed`, or `queueFull` if too many wait
    public func waitUntilConnected(timeout: Duration) async throws(RedisError) {
        let end = ContinuousClock.now + timeout
        try await waitForMap(until: end)
        let clients = state.withLock { state in (state.map?.masters ?? []).compactMap { state.nodes[$0]?.client } }
        for client in clients { try await client.waitUntilConnected(timeout: max(.zero, end - .now)) }
    }

    /// Waits until a map was found.
    /// - Parameter end: how long to wait.
    /// - Throws: `notConnected` if none is found in time, or `closed`
    public func waitForMap(until end: ContinuousClock.Instant) async throws(RedisError) {
        var why: String?
        while map == nil {
            do {
                try await locator.find().get()
            } catch {
                if let error = error as? RedisError {
                    if error.code == .closed { throw error }
                    why = error.detail
                }
                guard ContinuousClock.now < end else { throw RedisError(.notConnected, detail: why) }
                // The next search begins when this answer is old.
                try? await Task.sleep(for: seeds.answerAge)
                if Task.isCancelled { throw RedisError(.notConnected, detail: why) }
            }
        }
    }

    /// The client of a master of the map in use, for calls that are meant for this node alone: none of them is sent to another one. The cluster shuts it down when
    /// a later map does not name the master. What its replies say of the map is to be passed to `heard`.
    /// - Returns: nil if the map does not name it, or the cluster is closed
    public func client(of master: RedisEndpoint) -> RedisClient? { client(of: master, isNamed: false) }

    /// A call over a connection of `client(of:)` has failed. If the reply says that the map may be old, the map is asked for again. To be called from any thread.
    /// - Parameter node: the node that replied.
    public func heard(_ error: RedisServerError, from node: RedisEndpoint) {
        let now = NIODeadline.now()
        var call = ClusterCall(isRepeatable: false, deadline: now)
        if let doubt = call.failed(RedisError(.server(error)), replied: node, now: now).doubt { locator.doubt(doubt) }
    }

    /// Sends a command to the master of a slot, and again where a reply redirects it. Must be called on the loop. Waits for the map and for connections, while
    /// there are none, until the deadline.
    /// - Parameters:
    ///   - slot: that of all keys of the command.
    ///   - eventLoop: where it is sent and completed; one of the group.
    ///   - deadline: when to give up waiting, all sendings together.
    ///   - isRepeatable: whether it may be sent again after a reply that says that it has not run.
    ///   - attempt: sends the command over this connection, with this deadline, and passes on the result. Called once for each sending, each time with the
    ///     connection that it goes to: what depends on the node is to be taken from its `attachment`.
    ///   - completion: called once, on the loop; before this returns if nothing can be sent.
    public func send(
        to slot: HashSlot,
        on eventLoop: any EventLoop,
        deadline: NIODeadline,
        isRepeatable: Bool,
        attempt: @escaping (RedisConnection, NIODeadline, @escaping (Result<RedisValue, RedisError>) -> Void) -> Void,
        completion: @escaping (Result<RedisValue, RedisError>) -> Void
    ) {
        eventLoop.preconditionInEventLoop()
        ClusterSending(
            cluster: self,
            slot: slot,
            eventLoop: eventLoop,
            call: ClusterCall(isRepeatable: isRepeatable, deadline: deadline),
            deadline: deadline,
            attempt: attempt,
            completion: completion
        ).go()
    }

    /// Sends a command from a task. The deadline ends it, not the task's cancellation.
    /// - Parameters:
    ///   - command: the command.
    ///   - slot: that of all its keys.
    ///   - timeout: how long to wait; nil for the default timeout of the configuration.
    ///   - isRepeatable: as for `send(to:on:deadline:isRepeatable:attempt:completion:)`.
    /// - Returns: the reply, never an error reply
    public func send(
        _ command: RedisCommand,
        to slot: HashSlot,
        timeout: Duration? = nil,
        isRepeatable: Bool = true
    ) async throws(RedisError) -> RedisValue {
        let eventLoop = group.next()
        let deadline = NIODeadline.now() + TimeAmount(timeout ?? configuration.commandTimeout)
        let result = await withCheckedContinuation { (continuation: CheckedContinuation<Result<RedisValue, RedisError>, Never>) in
            eventLoop.execute {
                self.send(to: slot, on: eventLoop, deadline: deadline, isRepeatable: isRepeatable) { connection, deadline, done in
                    connection.send(command, deadline: deadline, completion: done)
                } completion: {
                    continuation.resume(returning: $0)
                }
            }
        }
        return try result.get()
    }

    /// What the client has done so far, summed over its nodes, those included that are not known any more.
    public func snapshot() -> RedisClusterSnapshot {
        let (ended, ending, clients, map) = state.withLock { state in
            (state.ended, state.ending.values.map(\.client), state.nodes.mapValues(\.client), state.map)
        }
        var snapshot = RedisClusterSnapshot()
        // Also those that are just ending: a count never falls.
        snapshot.all = ended
        for client in ending { snapshot.all.add(client.snapshot()) }
        for (node, client) in clients {
            let one = client.snapshot()
            snapshot.nodes[node] = one
            snapshot.all.add(one)
        }
        snapshot.redirects = redirects.load(ordering: .relaxed)
        snapshot.mapSearches = locator.counters.searches.current
        snapshot.mapSearchesFailed = locator.counters.failures.current
        snapshot.mapChanges = locator.counters.changes.current
        snapshot.uncoveredSlots = map?.uncovered ?? HashSlot.count
        return snapshot
    }

    /// Takes no further commands, waits for the replies of those that are out (at most the silence limit), and closes all connections.
    public func shutdown() async {
        // Fails only if the loop was shut down first; nothing is open then either.
        try? await locator.shutdown().get()
        let ending = state.withLock { state in
            state.isClosed = true
            for node in state.nodes.values { end(node.client, &state) }
            state.nodes = [:]
            return state.ending.values.map(\.task)
        }
        for task in ending { await task.value }
    }

    // MARK: Nodes

    /// A search has found this map. Nodes that it does not name, and no redirection has named lately, are closed; what was sent to them is waited for.
    private func use(_ map: SlotMap) {
        let now = NIODeadline.now()
        state.withLock { state in
            guard !state.isClosed else { return }
            state.map = map
            for master in map.masters {
                if state.nodes[master] == nil { state.nodes[master] = Node(client: makeClient(of: master), named: nil) }
                state.nodes[master]?.named = nil
            }
            let masters = Set(map.masters)
            for (endpoint, node) in state.nodes where !masters.contains(endpoint) {
                // It was in the map until now, or was named by a redirection.
                if let named = node.named, now < named + TimeAmount(seeds.namedFor) { continue }
                state.nodes[endpoint] = nil
                end(node.client, &state)
            }
        }
    }

    private func end(_ client: RedisClient, _ state: inout State) {
        let number = state.nextEnding
        state.nextEnding += 1
        let task = Task {
            await client.shutdown()
            self.state.withLock { state in
                state.ended.add(client.snapshot())
                state.ending[number] = nil
            }
        }
        state.ending[number] = (client, task)
    }

    /// - Parameter isNamed: whether a redirection names it: such a node need not be known.
    func client(of endpoint: RedisEndpoint, isNamed: Bool) -> RedisClient? {
        state.withLock { state in
            guard !state.isClosed else { return nil }
            if let node = state.nodes[endpoint] {
                if isNamed, node.named != nil { state.nodes[endpoint]?.named = .now() }
                return node.client
            }
            guard isNamed, state.nodes.count < Self.maximumNodes else { return nil }
            let client = makeClient(of: endpoint)
            state.nodes[endpoint] = Node(client: client, named: .now())
            return client
        }
    }

    private func makeClient(of endpoint: RedisEndpoint) -> RedisClient {
        var configuration = self.configuration
        configuration.address = .tcp(host: endpoint.host, port: endpoint.port)
        let locator = self.locator
        var connected: RedisClient.ConnectHook?
        if let onConnect { connected = { connection in onConnect(endpoint, connection) } }
        var disconnected: RedisClient.DisconnectHook?
        if let onDisconnect { disconnected = { connection, error in onDisconnect(endpoint, connection, error) } }
        var failed: RedisClient.TLSFailureHook?
        if let onTLSFailure { failed = { failure in onTLSFailure(endpoint, failure) } }
        return RedisClient(
            configuration: configuration,
            eventLoopGroup: group,
            onConnect: connected,
            onDisconnect: disconnected,
            onTLSFailure: failed,
            onDoubt: { locator.doubt(.unknown) }
        )
    }

    // MARK: For sendings

    func find() -> EventLoopFuture<Void> { locator.find() }
    func doubt(_ doubt: ClusterCall.Doubt) { locator.doubt(doubt) }
    func redirected() { redirects.wrappingAdd(1, ordering: .relaxed) }
}

/// What a client of a cluster has done.
public struct RedisClusterSnapshot: Sendable, Hashable {
    /// The sum over all nodes.
    public var all = RedisSnapshot()
    /// Each node that is known now.
    public var nodes: [RedisEndpoint: RedisSnapshot] = [:]
    /// Commands that were sent again because a reply said that they had not run.
    public var redirects = 0
    /// Searches for the map.
    public var mapSearches = 0
    /// Searches that found none.
    public var mapSearchesFailed = 0
    /// Times that another map was found than before.
    public var mapChanges = 0
    /// Slots that no master serves; all of them before a map was found.
    public var uncoveredSlots = 0

    /// All zero.
    public init() {}
}
