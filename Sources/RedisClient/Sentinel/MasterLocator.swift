import NIOCore
import NIOPosix
import NIOTransportSecurity
import Synchronization

/// Finds the master by asking the sentinels, for all connections of one client: the shell around `MasterSearch` and `SwitchWatch`.
///
/// Each search opens a connection to one sentinel after the other, and one to the server that it names, and closes them. Beside that one subscription is held at
/// one of the sentinels, which makes the client search at once when the master changes.
/// Bounds: one question at a time; one subscription; one waiter for each connection of the client. All of it runs on `eventLoop`.
// Sendable, although its state is not locked: each entry checks that it runs on `eventLoop`.
final class MasterLocator: @unchecked Sendable {
    typealias Master = MasterSearch.Master

    let eventLoop: any EventLoop
    let counters: LocatorCounters
    private let configuration: RedisConfiguration
    private let sentinels: RedisSentinels
    private let tls: TLSByHost?
    private let hooks: RedisClient.MasterHooks
    /// Told of each master that a search has found, on `eventLoop`.
    private var onFound: ((RedisEndpoint) -> Void)?
    private let desk: SearchDesk<Master>
    private var search: MasterSearch?
    /// The sentinels that failed in the last search, by their indices.
    private var failed: Set<Int> = []
    /// The sentinel that gave the last hint.
    private var hintedBy: Int?
    private var watched: Int
    private var watch: (any Channel)?
    private var isWatching = false
    /// Done when the question that is under way has ended.
    private var question: EventLoopFuture<Void>
    private let known = Mutex<RedisEndpoint?>(nil)

    init(
        eventLoop: any EventLoop,
        configuration: RedisConfiguration,
        sentinels: RedisSentinels,
        tls: TLSByHost?,
        hooks: RedisClient.MasterHooks
    ) {
        self.eventLoop = eventLoop
        self.configuration = configuration
        self.sentinels = sentinels
        self.tls = tls
        self.hooks = hooks
        desk = SearchDesk(
            eventLoop: eventLoop,
            age: sentinels.answerAge,
            pause: sentinels.minimumPause,
            // A search also runs at intervals, because a sentinel that is cut off from the others sends no message when the master changes.
            checkInterval: sentinels.checkInterval,
            maximumWaiters: configuration.maximumPendingCommands
        )
        counters = LocatorCounters(desk.counters)
        watched = Int.random(in: 0..<max(1, sentinels.endpoints.count))
        question = eventLoop.makeSucceededVoidFuture()
    }

    /// The master that was found last; nil before the first was. To be asked from anywhere.
    var master: RedisEndpoint? { known.withLock { $0 } }

    /// Sets who is told of each master that is found, on `eventLoop`. To be called before anything is asked for.
    func tell(_ onFound: @escaping @Sendable (RedisEndpoint) -> Void) {
        eventLoop.execute { self.onFound = onFound }
    }

    /// The master to connect to: the last answer if it is fresh, else that of a search. To be called from any thread.
    /// - Returns: fails with `RedisError` if no master was found
    func find() -> EventLoopFuture<RedisEndpoint> {
        eventLoop.flatSubmit {
            self.listen()
            return self.desk.find { self.begin(now: $0) }.map { $0.endpoint }
        }
    }

    /// Something says that the master may have changed. To be called from any thread.
    func doubt() { eventLoop.execute { self.doubted(by: nil) } }

    private func doubted(by sentinel: Int?) {
        guard !desk.isClosed else { return }
        if let sentinel { hintedBy = sentinel }
        desk.doubted()
    }

    /// Ends the search and the subscription. Succeeds once nothing is open any more.
    func shutdown() -> EventLoopFuture<Void> {
        eventLoop.flatSubmit {
            self.onFound = nil
            self.desk.shutdown()
            self.watch?.close(promise: nil)
            let watch = self.watch?.closeFuture.recover { _ in } ?? self.eventLoop.makeSucceededVoidFuture()
            return self.question.flatMap { watch }
        }
    }

    // MARK: The search

    private func begin(now: NIODeadline) {
        var generator = SystemRandomNumberGenerator()
        let order = MasterSearch.order(count: sentinels.endpoints.count, first: hintedBy, failed: failed, using: &generator)
        hintedBy = nil
        var search = MasterSearch(order: order, inUse: desk.finding, ends: now + TimeAmount(sentinels.searchTimeout))
        let step = search.begin(now: now)
        self.search = search
        follow(step)
    }

    private func follow(_ step: MasterSearch.Step) {
        guard !desk.isClosed else { return }
        switch step {
        case .ask(let index):
            ask(sentinels.endpoints[index]) { answer in
                guard let step = self.search?.answered(index, answer, now: self.eventLoop.now) else { return }
                self.follow(step)
            }
        case .checkRole(let master):
            askRole(master.endpoint) { role in
                guard let step = self.search?.checked(master, role, now: self.eventLoop.now) else { return }
                self.follow(step)
            }
        case .found(let master): found(master)
        case .failed: foundNone()
        }
    }

    private func found(_ master: Master) {
        ended()
        desk.found(master) { isNews in
            let before = known.withLock { known in
                defer { known = master.endpoint }
                return known
            }
            if before != nil, before != master.endpoint { counters.search.changes.increment() }
            if isNews { hooks.onMaster?(master.endpoint, sentinels.endpoints[master.saidBy]) }
            onFound?(master.endpoint)
        }
    }

    private func foundNone() {
        let words = ended().sorted { $0.key < $1.key }.map { "\(self.sentinels.endpoints[$0.key]): \($0.value)" }
        desk.foundNothing(words, silent: "no sentinel answered in time", hooks.onTrouble)
    }

    @discardableResult
    private func ended() -> [Int: String] {
        let troubles = search?.troubles ?? [:]
        failed = Set(troubles.keys)
        search = nil
        return troubles
    }

    // MARK: Questions

    private func ask(_ sentinel: RedisEndpoint, answer: @escaping @Sendable (MasterSearch.Answer) -> Void) {
        let sentinels = self.sentinels
        question(sentinel, sentinels.credentials) { connection, deadline in
            func send(_ command: RedisCommand) -> EventLoopFuture<RedisValue> { connection.send(command, deadline: deadline) }
            // The epoch is read before the address: if the sentinel changes its mind between the two, the new address gets the old epoch, which is harmless.
            let state = send(RedisCommand("SENTINEL", "MASTER", .string(sentinels.master))).recover { _ in .null }
            let address = send(RedisCommand("SENTINEL", "GET-MASTER-ADDR-BY-NAME", .string(sentinels.master)))
            return state.and(address).map { Self.read(address: $1, state: $0) }
        }.whenComplete { result in
            switch result {
            case .success(let found): answer(found)
            case .failure(let error): answer(.failed(RedisDial.words(error)))
            }
        }
    }

    /// What a sentinel's two replies say.
    static func read(address: RedisValue, state: RedisValue) -> MasterSearch.Answer {
        if address.isNull { return .unknown }
        guard let parts = address.array, parts.count == 2, let host = parts[0].string, !host.isEmpty, let port = parts[1].int,
            (1...65535).contains(port)
        else { return .failed("its answer cannot be read") }
        var epoch: Int64?
        // Names and values by turns.
        if let fields = state.array {
            for index in stride(from: 0, to: fields.count - 1, by: 2) where fields[index].string == "config-epoch" {
                epoch = fields[index + 1].int
            }
        }
        return .named(RedisEndpoint(host: host, port: Int(port)), epoch: epoch)
    }

    private func askRole(_ server: RedisEndpoint, answer: @escaping @Sendable (MasterSearch.Role) -> Void) {
        question(server, configuration.credentials) { connection, deadline in
            connection.send(RedisCommand("ROLE"), deadline: deadline).map { Self.role($0) }
        }.whenComplete { result in
            switch result {
            case .success(let role): answer(role)
            case .failure(let error): answer(.failed(RedisDial.words(error)))
            }
        }
    }

    /// What the reply to `ROLE` says: a master, or the word for what it is, with the state of its link where it is a replica.
    static func role(_ reply: RedisValue) -> MasterSearch.Role {
        guard let parts = reply.array, let word = parts.first?.string else { return .failed("its answer to ROLE cannot be read") }
        if word == "master" { return .master }
        let state = parts.count > 3 ? parts[3].string.map { " (\($0.prefix(20)))" } : nil
        return .other((word == "slave" ? "replica" : String(word.prefix(20))) + (state ?? ""))
    }

    private func question<Value: Sendable>(
        _ endpoint: RedisEndpoint,
        _ credentials: RedisCommand?,
        _ body: @escaping @Sendable (RedisConnection, NIODeadline) -> EventLoopFuture<Value>
    ) -> EventLoopFuture<Value> {
        let limit = TimeAmount(sentinels.answerTimeout)
        let question = RedisQuestion.ask(endpoint, on: eventLoop, configuration, tls, credentials: credentials, within: limit, body)
        self.question = question.ended
        return question.answer
    }

    // MARK: The subscription

    /// Listens to one sentinel, and goes on with the next whenever that ends, until `shutdown`.
    private func listen() {
        guard !isWatching, !desk.isClosed else { return }
        isWatching = true
        subscribe()
    }

    private func subscribe() {
        guard !desk.isClosed else { return }
        let (eventLoop, sentinels, index) = (self.eventLoop, self.sentinels, watched)
        let endpoint = sentinels.endpoints[index]
        let limit = TimeAmount(sentinels.answerTimeout)
        RedisDial.open(
            .tcp(host: endpoint.host, port: endpoint.port),
            on: eventLoop,
            tls: self.tls,
            timeout: limit,
            maximumOutgoingBytes: configuration.maximumOutgoingBytes
        ) { [weak self] channel in
            let handler = SwitchWatchHandler(sentinels, now: eventLoop.now) { isSwitch in
                guard let self else { return }
                if isSwitch { self.counters.switches.increment() } else { self.counters.listening.store(1) }
                self.doubted(by: index)
            }
            try channel.pipeline.syncOperations.addHandler(handler)
        }.whenComplete { result in
            switch result {
            case .success(let channel):
                self.watch = channel
                if self.desk.isClosed { channel.close(promise: nil) }
                channel.closeFuture.whenComplete { _ in self.subscriptionEnded() }
            case .failure: self.subscriptionEnded()
            }
        }
    }

    private func subscriptionEnded() {
        self.watch = nil
        self.counters.listening.store(0)
        self.watched = (self.watched + 1) % max(1, self.sentinels.endpoints.count)
        _ = self.eventLoop.scheduleTask(in: .seconds(1)) { self.subscribe() }
    }
}

/// What the search for the master has done: written on the locator's loop alone, read from anywhere.
final class LocatorCounters: Sendable {
    let search: SearchCounters
    let switches = LoopCounters.Counter()
    let listening = LoopCounters.Counter()

    init(_ search: SearchCounters) { self.search = search }
}
