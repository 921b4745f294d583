public import NIOCore
import NIOTransportSecurity

/// One connection to Redis, bound to one event loop. Everything but `eventLoop` must be used on that loop; anything else traps.
///
/// Commands that are sent in one turn of the loop leave together, in the order in which they were sent, in one write at the next tick.
/// Replies come in the same order. No command is ever sent twice.
///
/// Deadlines: a command that was not answered by its deadline fails with `timedOut`, up to a millisecond late, and its reply is dropped when it comes.
/// If nothing comes at all for `RedisConfiguration.silenceLimit` with commands outstanding, the connection closes; so blocking commands such as `BLPOP`
/// and those that change what replies mean (`SUBSCRIBE`, `MONITOR`, `CLIENT REPLY`) must not be sent.
public final class RedisConnection: @unchecked Sendable {
    // Sendable, although its state is not locked: each member that touches state first checks that it runs on `eventLoop`, in release builds too.

    /// The loop that all else must be used on.
    public let eventLoop: any EventLoop
    let channel: any Channel
    private let handler: RedisChannelHandler
    private let commandTimeout: TimeAmount
    private var storedAttachment: (any Sendable)?

    init(channel: any Channel, handler: RedisChannelHandler, configuration: RedisConfiguration) {
        eventLoop = handler.eventLoop
        self.channel = channel
        self.handler = handler
        commandTimeout = TimeAmount(configuration.commandTimeout)
    }

    /// What the client's `onConnect` hook returned for this connection; nil before that, and without a hook.
    public internal(set) var attachment: (any Sendable)? {
        get {
            eventLoop.preconditionInEventLoop()
            return storedAttachment
        }
        set {
            eventLoop.preconditionInEventLoop()
            storedAttachment = newValue
        }
    }

    /// Whether commands may be sent. It may change with any call.
    public var isOpen: Bool {
        eventLoop.preconditionInEventLoop()
        return handler.isOpen
    }

    /// The deadline of a command that is sent now with the default timeout of the configuration.
    public var defaultDeadline: NIODeadline { eventLoop.now + commandTimeout }

    /// Sends a command at the next tick.
    /// - Parameters:
    ///   - command: the command.
    ///   - deadline: when to give up waiting.
    ///   - completion: called exactly once on the loop; before this returns if the command is refused. It may send, cancel and close.
    /// - Returns: what names the command for `cancel`, or nil if it was refused.
    @discardableResult
    public func send(
        _ command: RedisCommand,
        deadline: NIODeadline,
        completion: @escaping (Result<RedisValue, RedisError>) -> Void
    ) -> RedisCommandID? {
        eventLoop.preconditionInEventLoop()
        return handler.send(deadline: deadline, completion: completion) { command.encode(into: &$0) }
    }

    /// Sends a command that is written straight into the outgoing buffer, without a `RedisCommand` in between: for the hottest paths.
    /// - Parameters:
    ///   - argumentCount: how many arguments `write` writes, the name included; writing another number of them traps.
    ///   - deadline: when to give up waiting.
    ///   - completion: as in `send(_:deadline:completion:)`.
    ///   - write: writes the name and the arguments; not called if the command is refused. It must not use this connection.
    /// - Returns: what names the command for `cancel`, or nil if it was refused.
    @discardableResult
    public func send(
        argumentCount: Int,
        deadline: NIODeadline,
        completion: @escaping (Result<RedisValue, RedisError>) -> Void,
        write: (inout RedisCommandWriter) -> Void
    ) -> RedisCommandID? {
        eventLoop.preconditionInEventLoop()
        return handler.send(deadline: deadline, completion: completion) { buffer in
            RedisCommandWriter.withWriter(into: &buffer, argumentCount: argumentCount, write)
        }
    }

    /// Sends a command at the next tick.
    /// - Parameters:
    ///   - command: the command.
    ///   - deadline: when to give up waiting; nil for the default timeout of the configuration.
    /// - Returns: the reply; it fails with `RedisError` only.
    public func send(_ command: RedisCommand, deadline: NIODeadline? = nil) -> EventLoopFuture<RedisValue> {
        let promise = eventLoop.makePromise(of: RedisValue.self)
        self.send(command, deadline: deadline ?? defaultDeadline) { result in
            switch result {
            case .success(let value): promise.succeed(value)
            case .failure(let error): promise.fail(error)
            }
        }
        return promise.futureResult
    }

    /// Stops waiting for a command: it fails with `cancelled`, and its reply is dropped when it comes. Redis may run it all the same.
    /// Does nothing if it has been completed.
    public func cancel(_ id: RedisCommandID) {
        eventLoop.preconditionInEventLoop()
        handler.cancel(id)
    }

    /// Closes at once. What is pending fails with `connectionLost`. A client connects again.
    public func close() {
        eventLoop.preconditionInEventLoop()
        handler.close(RedisError(.closed, detail: "closed by its owner"))
    }

    /// Takes no further commands and closes once nobody waits for a reply.
    func drain() {
        eventLoop.preconditionInEventLoop()
        handler.drain()
    }

    func close(_ reason: RedisError) {
        eventLoop.preconditionInEventLoop()
        handler.close(reason)
    }

    var tlsFailure: TLSFailure? {
        eventLoop.preconditionInEventLoop()
        return handler.tlsFailure
    }

    var closeReason: RedisError? {
        eventLoop.preconditionInEventLoop()
        return handler.closeReason
    }
}
