import NIOCore
import Synchronization

/// Tells once that the client of a connection has gone: it closed the connection, or its sending half, which for a client that still waits for an answer is the same
/// here. It stands in the pipeline for the time of one request that waits, and the connection is kept behind it.
final class DisconnectHandler: ChannelInboundHandler, RemovableChannelHandler, Sendable {
    typealias InboundIn = NIOAny

    private let onDisconnect: @Sendable () -> Void
    private let isTold = Atomic(false)

    private init(onDisconnect: @escaping @Sendable () -> Void) { self.onDisconnect = onDisconnect }

    private func tell() {
        if !self.isTold.exchange(true, ordering: .relaxed) { self.onDisconnect() }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if let event = event as? ChannelEvent, event == .inputClosed { self.tell() }
        context.fireUserInboundEventTriggered(event)
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.tell()
        context.fireChannelInactive()
    }

    /// Runs `body`, whose task is cancelled when the channel's client goes.
    static func watch<Value: Sendable>(_ channel: any Channel, _ body: @escaping @Sendable () async -> Value) async -> Value {
        let task = Task { await body() }
        let handler = DisconnectHandler { task.cancel() }
        do {
            try await channel.eventLoop.submit {
                try channel.pipeline.syncOperations.addHandler(handler, position: .first)
                if !channel.isActive { handler.tell() }
            }.get()
        } catch {
            // No pipeline any more: the client has gone.
            task.cancel()
        }
        let value = await withTaskCancellationHandler {
            await task.value
        } onCancel: {
            task.cancel()
        }
        // Fails if the connection has ended meanwhile, and the handler with it.
        try? await channel.pipeline.removeHandler(handler).get()
        return value
    }
}
