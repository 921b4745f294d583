import NIOCore
import NIOPosix
import NIOTransportSecurity

/// The shell around `ReconnectStateMachine`: the place of one connection on one event loop. Used on that loop only.
// Sendable, although its state is not locked: each entry checks that it runs on `eventLoop`.
final class ConnectionSlot: @unchecked Sendable {
    typealias Connection = RedisConnection

    let eventLoop: any EventLoop
    let counters = LoopCounters()
    private let configuration: RedisConfiguration
    /// Nil without TLS.
    private let tls: TLSByHost?
    /// Names the server to connect to; nil where the address does.
    private let locator: MasterLocator?
    /// The server that the attempt or connection of now goes to; nil while the locator is asked, and without a locator.
    private var endpoint: RedisEndpoint?
    /// The master that the locator has named last.
    private var master: RedisEndpoint?
    private let onConnect: RedisClient.ConnectHook?
    private let onDisconnect: RedisClient.DisconnectHook?
    private let onTLSFailure: RedisClient.TLSFailureHook?
    /// Told when the server may not be the right one any more.
    private let onDoubt: (@Sendable () -> Void)?
    private var machine: ReconnectStateMachine<RedisConnection>
    /// Those who wait for a connection, each until a deadline of its own. Bounded like the pending commands.
    private var waiters: [UInt64: EventLoopPromise<RedisConnection>] = [:]
    private var nextWaiter: UInt64 = 0
    private var lastFailure: String?
    /// Made by the first `close`.
    private var closed: EventLoopPromise<Void>?

    init(
        eventLoop: any EventLoop,
        configuration: RedisConfiguration,
        tls: TLSByHost?,
        locator: MasterLocator?,
        onConnect: RedisClient.ConnectHook?,
        onDisconnect: RedisClient.DisconnectHook?,
        onTLSFailure: RedisClient.TLSFailureHook?,
        onDoubt: (@Sendable () -> Void)?
    ) {
        self.eventLoop = eventLoop
        self.configuration = configuration
        self.tls = tls
        self.locator = locator
        self.onConnect = onConnect
        self.onDisconnect = onDisconnect
        self.onTLSFailure = onTLSFailure
        self.onDoubt = onDoubt
        machine = ReconnectStateMachine(
            minimum: TimeAmount(configuration.minimumBackoff),
            maximum: TimeAmount(configuration.maximumBackoff)
        )
    }

    /// The ready connection, or nil; the first call starts to connect.
    func connection() -> RedisConnection? {
        eventLoop.preconditionInEventLoop()
        if let connection = machine.ready, connection.isOpen { return connection }
        switch machine.wanted() {
        case .connect: self.connect()
        case .wait: break
        }
        return nil
    }

    /// Waits for a ready connection, at most until the deadline.
    func whenReady(deadline: NIODeadline) -> EventLoopFuture<RedisConnection> {
        eventLoop.preconditionInEventLoop()
        if let connection = self.connection() { return eventLoop.makeSucceededFuture(connection) }
        if case .closed = machine.state { return eventLoop.makeFailedFuture(RedisError(.closed)) }
        guard waiters.count < configuration.maximumPendingCommands else {
            return eventLoop.makeFailedFuture(RedisError(.queueFull))
        }
        let promise = eventLoop.makePromise(of: RedisConnection.self)
        let number = nextWaiter
        nextWaiter += 1
        waiters[number] = promise
        let timer = eventLoop.scheduleTask(deadline: deadline) {
            guard let waiter = self.waiters.removeValue(forKey: number) else { return }
            waiter.fail(RedisError(.notConnected, detail: self.lastFailure))
        }
        promise.futureResult.whenComplete { _ in timer.cancel() }
        return promise.futureResult
    }

    /// Closes gracefully. Succeeds once nothing is open any more; that takes at most the connect timeout or the silence limit. (A locator is closed first.)
    func close() -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        let closed = self.closed ?? eventLoop.makePromise()
        self.closed = closed
        switch machine.close() {
        case .done: closed.succeed()
        case .awaitAttempt, .alreadyClosed: break
        case .drain(let connection):
            if counters.ready.current > 0 { counters.ready.store(0) }
            connection.drain()
            let limit = eventLoop.scheduleTask(in: TimeAmount(configuration.silenceLimit)) { connection.close() }
            closed.futureResult.whenComplete { _ in limit.cancel() }
        }
        failWaiters(RedisError(.closed))
        return closed.futureResult
    }

    // MARK: The attempt

    private func connect() {
        counters.connectAttempts.increment()
        guard let locator = self.locator else { return open(configuration.address) }
        self.endpoint = nil
        locator.find().hop(to: eventLoop).whenComplete { result in
            switch result {
            case .success(let endpoint):
                self.endpoint = endpoint
                self.master = endpoint
                self.open(.tcp(host: endpoint.host, port: endpoint.port))
            case .failure(let error):
                self.lastFailure = String(describing: error)
                self.ended(nil)
            }
        }
    }

    private func open(_ address: RedisConfiguration.Address) {
        let (eventLoop, configuration, counters, locator) = (self.eventLoop, self.configuration, self.counters, self.locator)
        let onReadOnly: (@Sendable () -> Void)? = if let locator { { locator.doubt() } } else { onDoubt }
        RedisDial.open(
            address,
            on: eventLoop,
            tls: self.tls,
            timeout: TimeAmount(configuration.connectTimeout),
            maximumOutgoingBytes: configuration.maximumOutgoingBytes
        ) { channel in
            let handler = RedisChannelHandler(
                eventLoop: eventLoop,
                configuration: configuration,
                counters: counters,
                onReadOnly: onReadOnly
            )
            try channel.pipeline.syncOperations.addHandler(handler)
        }.whenComplete { result in
            do {
                let channel = try result.get()
                let handler = try channel.pipeline.syncOperations.handler(type: RedisChannelHandler.self)
                handler.connected()
                self.connected(RedisConnection(channel: channel, handler: handler, configuration: configuration))
            } catch {
                self.lastFailure = String(describing: error)
                if let failure = error as? TLSFailure { self.onTLSFailure?(failure) }
                self.ended(nil)
            }
        }
    }

    /// A search has found this master. A connection to another server is closed: what was sent over it has an unknown outcome.
    func found(master: RedisEndpoint) {
        eventLoop.preconditionInEventLoop()
        self.master = master
        switch machine.state {
        case .preparing(let connection, _), .ready(let connection, _, _): closeIfMoved(connection)
        // The attempt compares the two when it has connected.
        case .idle, .connecting, .backingOff, .closed: break
        }
    }

    private func closeIfMoved(_ connection: RedisConnection) {
        guard let endpoint = self.endpoint, let master = self.master, endpoint != master else { return }
        connection.close(RedisError(.connectionLost(sent: true), detail: "the master is \(master) now"))
    }

    private func connected(_ connection: RedisConnection) {
        let action = machine.connected(connection)
        connection.channel.closeFuture.whenComplete { _ in self.ended(connection) }
        switch action {
        case .prepare(let connection):
            prepare(connection)
            closeIfMoved(connection)
        case .close(let connection): connection.close()
        }
    }

    private func prepare(_ connection: RedisConnection) {
        let timeout = TimeAmount(self.configuration.preparationTimeout)
        let deadline = eventLoop.now + timeout
        let limit = eventLoop.scheduleTask(deadline: deadline) {
            connection.close(RedisError(.connectionLost(sent: true), detail: "not ready in time"))
        }
        let (configuration, onConnect) = (self.configuration, self.onConnect)
        var steps = eventLoop.makeSucceededVoidFuture()
        if let credentials = configuration.credentials {
            steps = steps.flatMap { connection.send(credentials, deadline: deadline).map { _ in } }
        }
        if let locator = self.locator {
            // The answer may be some moments old, and a server may have changed its role since.
            steps = steps.flatMap { connection.send(RedisCommand("ROLE"), deadline: deadline) }.flatMapThrowing { reply in
                guard case .master = MasterLocator.role(reply) else {
                    locator.doubt()
                    throw RedisError(.notConnected, detail: "the server is no master")
                }
            }
        }
        if configuration.database != 0 {
            steps = steps.flatMap { connection.send(.select(configuration.database), deadline: deadline).map { _ in } }
        }
        let prepared: EventLoopFuture<(any Sendable)?> = steps.flatMap {
            guard let onConnect else { return connection.eventLoop.makeSucceededFuture(nil) }
            return onConnect(connection).hop(to: connection.eventLoop).map { $0 as (any Sendable)? }
        }
        prepared.whenComplete { result in
            limit.cancel()
            switch result {
            case .success(let attachment):
                guard connection.isOpen, case .handOut = self.machine.prepared(now: self.eventLoop.now) else { return }
                connection.attachment = attachment
                self.counters.connects.increment()
                self.counters.ready.store(1)
                self.lastFailure = nil
                let waiters = self.waiters.values
                self.waiters = [:]
                for waiter in waiters { waiter.succeed(connection) }
            case .failure(let error):
                connection.close(RedisError(.connectionLost(sent: true), detail: String(describing: error)))
            }
        }
    }

    /// The attempt failed (nil) or this connection's channel closed.
    private func ended(_ connection: RedisConnection?) {
        let random = Double.random(in: 0...1)
        if let reason = connection?.closeReason { lastFailure = reason.description }
        if let failure = connection?.tlsFailure { onTLSFailure?(failure) }
        switch machine.ended(now: eventLoop.now, random: random) {
        case .lost(let retryAfter):
            onDoubt?()
            counters.disconnects.increment()
            counters.ready.store(0)
            retry(after: retryAfter)
            if let connection, let onDisconnect = self.onDisconnect {
                onDisconnect(connection, connection.closeReason ?? RedisError(.connectionLost(sent: true)))
            }
        case .failed(let retryAfter):
            onDoubt?()
            counters.connectFailures.increment()
            retry(after: retryAfter)
        case .closed: self.closed?.succeed()
        }
    }

    private func retry(after delay: TimeAmount) {
        _ = self.eventLoop.scheduleTask(in: delay) {
            switch self.machine.backoffElapsed() {
            case .connect: self.connect()
            case .wait: break
            }
        }
    }

    private func failWaiters(_ error: RedisError) {
        let waiters = self.waiters.values
        self.waiters = [:]
        for waiter in waiters { waiter.fail(error) }
    }
}
