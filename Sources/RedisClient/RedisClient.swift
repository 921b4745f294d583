public import NIOCore
import NIOPosix
public import NIOTransportSecurity

/// Redis over one connection per event loop: connected when first asked for, and again, with bounded backoff, whenever it is lost.
///
/// The fast way is `connection(on:)` from code that runs on an event loop. `send` and `withConnection` serve tasks; they wait for a connection
/// until their deadline. Nothing is ever retried. Close a client before its event loops are shut down.
public final class RedisClient: Sendable {
    /// Runs on each new connection, on its loop, after `AUTH` and `SELECT` and before it is handed out. What it returns becomes the connection's
    /// `attachment`. If it fails, or takes longer than `RedisConfiguration.preparationTimeout`, the connection is closed and another attempt is made.
    public typealias ConnectHook = @Sendable (RedisConnection) -> EventLoopFuture<any Sendable>
    /// Runs on the loop of a connection that had been handed out and has ended, with the reason. Not for those that the client closed itself.
    public typealias DisconnectHook = @Sendable (RedisConnection, RedisError) -> Void

    /// Runs on the loop where an attempt has failed because TLS was not agreed on, with the reason: for each attempt anew.
    public typealias TLSFailureHook = @Sendable (TLSFailure) -> Void

    /// Who is told of the master that sentinels name. Each is called on an event loop of the client.
    public struct MasterHooks: Sendable {
        /// A master was found that differs from the one last told of, or the first one after a trouble. `saidBy` is the sentinel that named it.
        public var onMaster: (@Sendable (_ master: RedisEndpoint, _ saidBy: RedisEndpoint) -> Void)?
        /// No master was found. `why` has what each sentinel said. Told again only when the words change.
        public var onTrouble: (@Sendable (_ why: String) -> Void)?

        /// Hooks, each of which may be missing.
        public init(
            onMaster: (@Sendable (_ master: RedisEndpoint, _ saidBy: RedisEndpoint) -> Void)? = nil,
            onTrouble: (@Sendable (_ why: String) -> Void)? = nil
        ) {
            self.onMaster = onMaster
            self.onTrouble = onTrouble
        }
    }

    /// Where to connect, and the bounds.
    public let configuration: RedisConfiguration
    private let group: any EventLoopGroup
    /// Nil where the address names the server itself.
    private let locator: MasterLocator?
    private let slots: [ObjectIdentifier: ConnectionSlot]

    /// Connects nothing yet.
    /// - Parameters:
    ///   - configuration: where to connect, and the bounds.
    ///   - eventLoopGroup: each of its loops gets a connection once one is asked for on it.
    ///   - onConnect: prepares a connection before it is handed out.
    ///   - onDisconnect: is told when a connection that was handed out has ended.
    ///   - onTLSFailure: is told why an attempt failed, where TLS was in the way.
    ///   - masterHooks: are told of the master, where the address names sentinels.
    public convenience init(
        configuration: RedisConfiguration,
        eventLoopGroup: any EventLoopGroup,
        onConnect: ConnectHook? = nil,
        onDisconnect: DisconnectHook? = nil,
        onTLSFailure: TLSFailureHook? = nil,
        masterHooks: MasterHooks = MasterHooks()
    ) {
        self.init(
            configuration: configuration,
            eventLoopGroup: eventLoopGroup,
            onConnect: onConnect,
            onDisconnect: onDisconnect,
            onTLSFailure: onTLSFailure,
            masterHooks: masterHooks,
            onDoubt: nil
        )
    }

    /// - Parameter onDoubt: runs on the loop where the server has said that it is a replica, where a connection was lost, and where an attempt failed.
    init(
        configuration: RedisConfiguration,
        eventLoopGroup: any EventLoopGroup,
        onConnect: ConnectHook?,
        onDisconnect: DisconnectHook?,
        onTLSFailure: TLSFailureHook?,
        masterHooks: MasterHooks = MasterHooks(),
        onDoubt: (@Sendable () -> Void)?
    ) {
        self.configuration = configuration
        group = eventLoopGroup
        let tls = configuration.tls.map { TLSByHost($0) }
        let locator: MasterLocator? =
            if case .sentinels(let sentinels) = configuration.address {
                MasterLocator(
                    eventLoop: eventLoopGroup.next(),
                    configuration: configuration,
                    sentinels: sentinels,
                    tls: tls,
                    hooks: masterHooks
                )
            } else {
                nil
            }
        self.locator = locator
        var slots: [ObjectIdentifier: ConnectionSlot] = [:]
        for eventLoop in eventLoopGroup.makeIterator() {
            slots[ObjectIdentifier(eventLoop)] = ConnectionSlot(
                eventLoop: eventLoop,
                configuration: configuration,
                tls: tls,
                locator: locator,
                onConnect: onConnect,
                onDisconnect: onDisconnect,
                onTLSFailure: onTLSFailure,
                onDoubt: onDoubt
            )
        }
        self.slots = slots
        let all = Array(slots.values)
        locator?.tell { master in for slot in all { slot.eventLoop.execute { slot.found(master: master) } } }
    }

    /// The master that the sentinels have named last; nil before they have, and where the address names the server itself.
    public var master: RedisEndpoint? { locator?.master }

    /// The ready connection of a loop, without waiting. Must be called on that loop.
    /// - Returns: nil while there is none: the caller goes on without Redis, as after `notConnected`. The first call starts to connect;
    ///   from then on the client connects again by itself. Also nil for a loop of another group and after `shutdown`.
    public func connection(on eventLoop: any EventLoop) -> RedisConnection? {
        slots[ObjectIdentifier(eventLoop)]?.connection()
    }

    /// Waits for the ready connection of a loop, at most until the deadline. Must be called on that loop.
    func whenReady(on eventLoop: any EventLoop, deadline: NIODeadline) -> EventLoopFuture<RedisConnection> {
        slots[ObjectIdentifier(eventLoop)]?.whenReady(deadline: deadline)
            ?? eventLoop.makeFailedFuture(RedisError(.notConnected, detail: "the loop is of another group"))
    }

    /// Starts to connect on every loop and waits until all are ready.
    /// - Parameter timeout: how long to wait.
    /// - Throws: `notConnected` if one is not ready in time, `closed`, or `queueFull` if too many wait.
    public func waitUntilConnected(timeout: Duration) async throws(RedisError) {
        let deadline = NIODeadline.now() + TimeAmount(timeout)
        for slot in slots.values {
            _ = try await Self.result(slot.eventLoop.flatSubmit { slot.whenReady(deadline: deadline) })
        }
    }

    /// Sends a command from a task: on the connection of the loop it runs on, else of the next one. Waits for the connection, if there is none,
    /// and for the reply until the deadline. A cancelled task stops waiting; Redis may run the command all the same.
    /// - Parameters:
    ///   - command: the command.
    ///   - timeout: how long to wait; nil for the default timeout of the configuration.
    /// - Returns: the reply, never an error reply.
    public func send(_ command: RedisCommand, timeout: Duration? = nil) async throws(RedisError) -> RedisValue {
        let deadline = NIODeadline.now() + TimeAmount(timeout ?? configuration.commandTimeout)
        guard let slot = self.slot() else { throw RedisError(.notConnected, detail: "the group has no event loop") }
        let call = AsyncCommand(slot: slot)
        let result = await withTaskCancellationHandler {
            await withCheckedContinuation { (continuation: CheckedContinuation<Result<RedisValue, RedisError>, Never>) in
                slot.eventLoop.execute { call.start(command, deadline: deadline) { continuation.resume(returning: $0) } }
            }
        } onCancel: {
            slot.eventLoop.execute { call.cancel() }
        }
        return try result.get()
    }

    /// Runs several commands on one connection, on its loop. Waits for the connection, if there is none, until the timeout.
    /// - Parameters:
    ///   - timeout: how long to wait for the connection; nil for the default command timeout of the configuration.
    ///   - body: runs on the connection's loop.
    /// - Returns: what the body's future returns.
    /// - Throws: `RedisError` if there is no connection, else what the body's future fails with.
    public func withConnection<Value: Sendable>(
        timeout: Duration? = nil,
        _ body: @escaping @Sendable (RedisConnection) -> EventLoopFuture<Value>
    ) async throws -> Value {
        let deadline = NIODeadline.now() + TimeAmount(timeout ?? configuration.commandTimeout)
        guard let slot = self.slot() else { throw RedisError(.notConnected, detail: "the group has no event loop") }
        return try await slot.eventLoop.flatSubmit { slot.whenReady(deadline: deadline).flatMap(body) }.get()
    }

    /// What the client has done so far.
    public func snapshot() -> RedisSnapshot {
        var sum = RedisSnapshot()
        for slot in slots.values { sum.add(slot.counters) }
        if let locator = self.locator { sum.add(locator.counters) }
        return sum
    }

    /// Takes no further commands, waits for the replies of those that are out (at most the silence limit), and closes all connections.
    public func shutdown() async {
        // Whoever waits for the locator's answer is told that the client is closed.
        try? await locator?.shutdown().get()
        let closing = slots.values.map { slot in slot.eventLoop.flatSubmit { slot.close() } }
        for future in closing {
            // Fails only if the loop was shut down first; nothing is open then either.
            try? await future.get()
        }
    }

    private func slot() -> ConnectionSlot? {
        if let current = MultiThreadedEventLoopGroup.currentEventLoop, let slot = slots[ObjectIdentifier(current)] { return slot }
        return slots[ObjectIdentifier(group.next())] ?? slots.values.first
    }

    private static func result<Value: Sendable>(_ future: EventLoopFuture<Value>) async throws(RedisError) -> Value {
        do {
            return try await future.get()
        } catch let error as RedisError {
            throw error
        } catch {
            // Only a loop that is shut down fails with another error.
            throw RedisError(.closed, detail: String(describing: error))
        }
    }
}

/// One `send` of a task, so that it can be cancelled while it waits for a connection or a reply.
// Sendable, although its state is not locked: all of it is used on the slot's event loop alone.
private final class AsyncCommand: @unchecked Sendable {
    private let slot: ConnectionSlot
    private var completion: ((Result<RedisValue, RedisError>) -> Void)?
    private var connection: RedisConnection?
    private var id: RedisCommandID?
    private var cancelled = false

    init(slot: ConnectionSlot) {
        self.slot = slot
    }

    func start(_ command: RedisCommand, deadline: NIODeadline, completion: @escaping (Result<RedisValue, RedisError>) -> Void) {
        self.completion = completion
        guard !cancelled else { return finish(.failure(RedisError(.cancelled(sent: false)))) }
        if let connection = slot.connection() { return send(command, on: connection, deadline: deadline) }
        slot.whenReady(deadline: deadline).whenComplete { result in
            switch result {
            case .success(let connection): self.send(command, on: connection, deadline: deadline)
            case .failure(let error): self.finish(.failure(error as? RedisError ?? RedisError(.notConnected)))
            }
        }
    }

    func cancel() {
        cancelled = true
        if let connection = self.connection, let id = self.id {
            connection.cancel(id)
        } else {
            finish(.failure(RedisError(.cancelled(sent: false))))
        }
    }

    private func send(_ command: RedisCommand, on connection: RedisConnection, deadline: NIODeadline) {
        guard completion != nil else { return }
        self.connection = connection
        id = connection.send(command, deadline: deadline) { self.finish($0) }
    }

    /// The first outcome counts; a reply may come after a cancellation.
    private func finish(_ result: Result<RedisValue, RedisError>) {
        let completion = self.completion
        self.completion = nil
        completion?(result)
    }
}
