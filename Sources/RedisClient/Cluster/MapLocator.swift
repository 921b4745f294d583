import NIOCore
import NIOTransportSecurity

/// Finds the map of a cluster's slots by asking its nodes, for all connections of one client: the shell around `MapSearch`.
///
/// Bounds: one question at a time; as many who wait for a map as there may be pending commands. All of it runs on `eventLoop`.
// Sendable, although its state is not locked: each entry runs on `eventLoop`, or goes there first.
final class MapLocator: @unchecked Sendable {
    typealias Answer = MapSearch.Answer

    let eventLoop: any EventLoop
    private let configuration: RedisConfiguration
    private let seeds: RedisSeeds
    private let tls: TLSByHost?
    private let hooks: RedisCluster.MapHooks
    private let desk: SearchDesk<Answer>
    /// Called with each map that a search has found, before those who wait for the map are told.
    private var onFound: ((SlotMap) -> Void)?
    private var search: MapSearch?
    /// The nodes that failed in the last search.
    private var failed: Set<RedisEndpoint> = []
    /// The node that the last redirection has named.
    private var named: RedisEndpoint?
    /// Done when the question that is under way has ended.
    private var question: EventLoopFuture<Void>

    init(
        eventLoop: any EventLoop,
        configuration: RedisConfiguration,
        seeds: RedisSeeds,
        tls: TLSByHost?,
        hooks: RedisCluster.MapHooks
    ) {
        self.eventLoop = eventLoop
        self.configuration = configuration
        self.seeds = seeds
        self.tls = tls
        self.hooks = hooks
        desk = SearchDesk(
            eventLoop: eventLoop,
            age: seeds.answerAge,
            pause: seeds.minimumPause,
            // A search also runs at intervals, because no reply tells of a node that has joined.
            checkInterval: seeds.checkInterval,
            maximumWaiters: configuration.maximumPendingCommands
        )
        question = eventLoop.makeSucceededVoidFuture()
    }

    var counters: SearchCounters { desk.counters }

    /// Sets who is told of each map that is found, on `eventLoop`. To be called before anything is asked for.
    func tell(_ onFound: @escaping @Sendable (SlotMap) -> Void) {
        eventLoop.execute { self.onFound = onFound }
    }

    /// Waits for a map: that of the last search if it is fresh, else that of a new one. To be called from any thread.
    /// - Returns: fails with `RedisError` if no map was found
    func find() -> EventLoopFuture<Void> {
        eventLoop.flatSubmit { self.desk.find { self.begin(now: $0) }.map { _ in } }
    }

    /// Something says that the map may have changed. To be called from any thread.
    func doubt(_ doubt: ClusterCall.Doubt) {
        eventLoop.execute {
            guard !self.desk.isClosed else { return }
            if case .moved(let slot, let node) = doubt {
                // Many commands are redirected alike before the map is known. One search tells them all.
                if self.search == nil, self.desk.finding?.map[slot] == node { return }
                self.named = node
            }
            self.desk.doubted()
        }
    }

    /// Ends the search. Succeeds once nothing is open any more.
    func shutdown() -> EventLoopFuture<Void> {
        eventLoop.flatSubmit {
            self.onFound = nil
            self.desk.shutdown()
            return self.question
        }
    }

    private func begin(now: NIODeadline) {
        var generator = SystemRandomNumberGenerator()
        let order = MapSearch.order(
            seeds: seeds.endpoints,
            masters: desk.finding?.map.masters ?? [],
            named: named,
            failed: failed,
            using: &generator
        )
        var search = MapSearch(order: order, named: named, inUse: desk.finding, ends: now + TimeAmount(seeds.searchTimeout))
        named = nil
        let step = search.begin(now: now)
        self.search = search
        follow(step)
    }

    private func follow(_ step: MapSearch.Step) {
        guard !desk.isClosed else { return }
        switch step {
        case .ask(let node):
            ask(node) { reply in
                guard let step = self.search?.replied(node, reply, now: self.eventLoop.now) else { return }
                self.follow(step)
            }
        case .found(let answer): found(answer)
        case .failed: foundNone()
        }
    }

    private func found(_ answer: Answer) {
        ended()
        let before = desk.finding?.map
        desk.found(answer) { isNews in
            if before != nil, before != answer.map { counters.changes.increment() }
            onFound?(answer.map)
            if isNews { hooks.onMap?(answer.map, answer.saidBy) }
        }
    }

    private func foundNone() {
        let words = ended().map { "\($0.node): \($0.why)" }.sorted()
        desk.foundNothing(words, silent: "no node of the cluster answered in time", hooks.onTrouble)
    }

    @discardableResult
    private func ended() -> [(node: RedisEndpoint, why: String)] {
        let troubles = search?.troubles ?? []
        failed = Set(troubles.map(\.node))
        search = nil
        return troubles
    }

    // MARK: The question

    private func ask(_ node: RedisEndpoint, reply: @escaping @Sendable (MapSearch.Reply) -> Void) {
        let configuration = self.configuration
        let question = RedisQuestion.ask(
            node,
            on: eventLoop,
            configuration,
            tls,
            credentials: configuration.credentials,
            within: TimeAmount(seeds.answerTimeout)
        ) { connection, deadline in
            // The state is read before the map: if the map changes between the two, the newer map gets the older epoch, which is harmless.
            let state = connection.send(RedisCommand("CLUSTER", "INFO"), deadline: deadline)
            let shards = connection.send(RedisCommand("CLUSTER", "SHARDS"), deadline: deadline)
            return state.flatMap { state in
                shards.flatMapThrowing { try SlotMap(shards: $0, asked: node, usesTLS: configuration.tls != nil) }.flatMapError { error in
                    // A server of version 6 does not know the command.
                    guard (error as? RedisError)?.serverError?.kind == .err else {
                        return connection.eventLoop.makeFailedFuture(error)
                    }
                    return connection.send(RedisCommand("CLUSTER", "SLOTS"), deadline: deadline)
                        .flatMapThrowing { try SlotMap(slots: $0, asked: node) }
                }.map { Self.answer($0, state: state, saidBy: node) }
            }
        }
        self.question = question.ended
        question.answer.whenComplete { result in
            switch result {
            case .success(let answer): reply(.map(answer))
            case .failure(let error): reply(.failed(Self.words(error)))
            }
        }
    }

    private static func answer(_ map: SlotMap, state: RedisValue, saidBy node: RedisEndpoint) -> Answer {
        var epoch: Int64?
        var isWell = true
        for line in (state.string ?? "").split(whereSeparator: \.isNewline) {
            if line.hasPrefix("cluster_current_epoch:") { epoch = Int64(line.dropFirst(22)) }
            if line.hasPrefix("cluster_state:") { isWell = line.dropFirst(14) == "ok" }
        }
        return Answer(map: map, epoch: epoch, isWell: isWell, saidBy: node)
    }

    private static func words(_ error: any Error) -> String {
        if let refusal = error as? SlotMap.Refusal { return refusal.description }
        if let server = (error as? RedisError)?.serverError, server.message.contains("cluster support disabled") {
            return "it is no node of a cluster"
        }
        return RedisDial.words(error)
    }
}
