// How a server ends a TLS connection by itself, without an answer from the client: a handshake takes too long, or the server stops.
//
// Bound: a handshake ends within `limit`, and within `stopLimit` of the moment in which the server stops; else the connection ends.

public import NIOCore
import NIOTLS

/// Stands behind the TLS handler of a server's new connection until the handshake is over, and then leaves.
///
/// A handshake that exceeds its time ends the connection. No request has come yet, so no client waits for an answer; without this limit a stopping server would
/// wait for clients that stay silent.
public final class TLSServerHandshake: ChannelInboundHandler, RemovableChannelHandler {
    /// What it passes on.
    public typealias InboundIn = ByteBuffer

    private let limit: TimeAmount
    private let stopLimit: TimeAmount
    private let failed: @Sendable () -> Void
    private var timer: Scheduled<Void>?
    private var isOver = false

    /// Makes one.
    /// - Parameters:
    ///   - limit: how long a handshake may take
    ///   - stopLimit: how long it may still take when the server stops
    ///   - failed: called once for a connection whose handshake failed, or took too long
    public init(limit: TimeAmount, stopLimit: TimeAmount, failed: @escaping @Sendable () -> Void) {
        self.limit = limit
        self.stopLimit = stopLimit
        self.failed = failed
    }

    /// Begins the time.
    public func handlerAdded(context: ChannelHandlerContext) { end(in: limit, context) }

    private func end(in time: TimeAmount, _ context: ChannelHandlerContext) {
        self.timer?.cancel()
        self.timer = context.eventLoop.assumeIsolated().scheduleTask(in: time) {
            self.fail()
            context.close(promise: nil)
            // TLS would wait for an answer to its goodbye, which a client without a session has no reason to give.
            context.triggerUserOutboundEvent(TransportEnd.Close(), promise: nil)
        }
    }

    /// Ends with the handshake, and has less time when the server stops.
    public func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        // The running timer may have less time left than this limit, and is replaced all the same: the limit of a stop is short.
        if event is ChannelShouldQuiesceEvent, !isOver { end(in: min(limit, stopLimit), context) }
        let isCompleted = if case .handshakeCompleted? = event as? TLSUserEvent { true } else { false }
        if isCompleted { end() }
        context.fireUserInboundEventTriggered(event)
        if isCompleted { context.pipeline.syncOperations.removeHandler(context: context, promise: nil) }
    }

    /// A handshake that fails.
    public func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail()
        context.fireErrorCaught(error)
    }

    /// A client that leaves during its handshake.
    public func channelInactive(context: ChannelHandlerContext) {
        fail()
        context.fireChannelInactive()
    }

    /// The connection has ended, or the handshake is over.
    public func handlerRemoved(context: ChannelHandlerContext) { end() }

    private func fail() {
        guard !isOver else { return }
        end()
        failed()
    }

    private func end() {
        isOver = true
        timer?.cancel()
        timer = nil
    }
}

/// Stands next to the socket, in front of the TLS handler, and closes the connection there when somebody behind TLS asks for it.
///
/// The TLS handler closes a connection only when the client has answered its goodbye, or `TLSConfiguration.shutdownTimeout` is over. A stopping server has no
/// such time left.
public final class TransportEnd: ChannelOutboundHandler {
    /// What it passes on.
    public typealias OutboundIn = ByteBuffer

    /// The outbound event that closes the socket. What TLS has written before goes out first.
    public struct Close: Sendable {
        /// Makes the event.
        public init() {}
    }

    /// Makes one.
    public init() {}

    /// Closes the socket for a ``Close``.
    public func triggerUserOutboundEvent(context: ChannelHandlerContext, event: Any, promise: EventLoopPromise<Void>?) {
        if event is Close { context.close(promise: promise) } else { context.triggerUserOutboundEvent(event, promise: promise) }
    }
}
