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
    private let tls: TLSClientContexts?
    private let onConnect: RedisClient.ConnectHook?
    private let onDisconnect: RedisClient.DisconnectHook?
    private let onTLSFailure: RedisClient.TLSFailureHook?
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
        tls: TLSClientContexts?,
        onConnect: RedisClient.ConnectHook?,
        onDisconnect: RedisClient.DisconnectHook?,
        onTLSFailure: RedisClient.TLSFailureHook?
    ) {
        self.eventLoop = eventLoop
        self.configuration = configuration
        self.tls = tls
        self.onConnect = onConnect
        self.onDisconnect = onDisconnect
        self.onTLSFailure = onTLSFailure
        self.machine = ReconnectStateMachine(
            minimum: TimeAmount(configuration.minimumBackoff),
            maximum: TimeAmount(configuration.maximumBackoff)
        )
    }

    /// The ready connection, or nil; the first call starts to connect.
    func connection() -> RedisConnection? {
        self.eventLoop.preconditionInEventLoop()
        if let connection = self.machine.ready, connection.isOpen { return connection }
        switch self.machine.wanted() {
        case .connect: self.connect()
        case .wait: break
        }
        return nil
    }

    /// Waits for a ready connection, at most until the deadline.
    func whenReady(deadline: NIODeadline) -> EventLoopFuture<RedisConnection> {
        self.eventLoop.preconditionInEventLoop()
        if let connection = self.connection() { return self.eventLoop.makeSucceededFuture(connection) }
        if case .closed = self.machine.state { return self.eventLoop.makeFailedFuture(RedisError(.closed)) }
        guard self.waiters.count < self.configuration.maximumPendingCommands else {
            return self.eventLoop.makeFailedFuture(RedisError(.queueFull))
        }
        let promise = self.eventLoop.makePromise(of: RedisConnection.self)
        let number = self.nextWaiter
        self.nextWaiter += 1
        self.waiters[number] = promise
        let timer = self.eventLoop.scheduleTask(deadline: deadline) {
            guard let waiter = self.waiters.removeValue(forKey: number) else { return }
            waiter.fail(RedisError(.notConnected, detail: self.lastFailure))
        }
        promise.futureResult.whenComplete { _ in timer.cancel() }
        return promise.futureResult
    }

    /// Closes gracefully. Succeeds once nothing is open any more; that takes at most the connect timeout or the silence limit.
    func close() -> EventLoopFuture<Void> {
        self.eventLoop.preconditionInEventLoop()
        let closed = self.closed ?? self.eventLoop.makePromise()
        self.closed = closed
        switch self.machine.close() {
        case .done: closed.succeed()
        case .awaitAttempt, .alreadyClosed: break
        case .drain(let connection):
            if self.counters.ready.current > 0 { self.counters.ready.store(0) }
            connection.drain()
            let limit = self.eventLoop.scheduleTask(in: TimeAmount(self.configuration.silenceLimit)) { connection.close() }
            closed.futureResult.whenComplete { _ in limit.cancel() }
        }
        self.failWaiters(RedisError(.closed))
        return closed.futureResult
    }

    // MARK: The attempt

    private func connect() {
        self.counters.connectAttempts.increment()
        let (eventLoop, configuration, counters, tls) = (self.eventLoop, self.configuration, self.counters, self.tls)
        let bootstrap = ClientBootstrap(group: eventLoop)
            .connectTimeout(TimeAmount(configuration.connectTimeout))
            .channelOption(.socketOption(.so_keepalive), value: 1)
            .channelOption(
                .writeBufferWaterMark,
                value: .init(low: configuration.maximumOutgoingBytes / 4, high: configuration.maximumOutgoingBytes)
            )
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try tls?.secure(channel)
                    let handler = RedisChannelHandler(eventLoop: eventLoop, configuration: configuration, counters: counters)
                    try channel.pipeline.syncOperations.addHandler(handler)
                }
            }
        let attempt =
            switch configuration.address {
            case .tcp(let host, let port):
                bootstrap.channelOption(.tcpOption(.tcp_nodelay), value: 1).connect(host: host, port: port)
            case .unix(let path): bootstrap.connect(unixDomainSocketPath: path)
            }
        let checked =
            tls == nil
            ? attempt
            : attempt.flatMap { channel in
                TLSClientContexts.handshake(of: channel, within: TimeAmount(configuration.connectTimeout)).map { channel }
            }
        checked.whenComplete { result in
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

    private func connected(_ connection: RedisConnection) {
        let action = self.machine.connected(connection)
        connection.channel.closeFuture.whenComplete { _ in self.ended(connection) }
        switch action {
        case .prepare(let connection): self.prepare(connection)
        case .close(let connection): connection.close()
        }
    }

    private func prepare(_ connection: RedisConnection) {
        let timeout = TimeAmount(self.configuration.preparationTimeout)
        let deadline = self.eventLoop.now + timeout
        let limit = self.eventLoop.scheduleTask(deadline: deadline) {
            connection.close(RedisError(.connectionLost(sent: true), detail: "not ready in time"))
        }
        let (configuration, onConnect) = (self.configuration, self.onConnect)
        var steps = self.eventLoop.makeSucceededVoidFuture()
        if let password = configuration.password {
            steps = steps.flatMap {
                connection.send(.auth(username: configuration.username, password: password), deadline: deadline).map { _ in }
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
        if let reason = connection?.closeReason { self.lastFailure = reason.description }
        if let failure = connection?.tlsFailure { self.onTLSFailure?(failure) }
        switch self.machine.ended(now: self.eventLoop.now, random: random) {
        case .lost(let retryAfter):
            self.counters.disconnects.increment()
            self.counters.ready.store(0)
            self.retry(after: retryAfter)
            if let connection, let onDisconnect = self.onDisconnect {
                onDisconnect(connection, connection.closeReason ?? RedisError(.connectionLost(sent: true)))
            }
        case .failed(let retryAfter):
            self.counters.connectFailures.increment()
            self.retry(after: retryAfter)
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
