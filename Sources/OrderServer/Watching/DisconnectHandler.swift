import NIOCore
import Synchronization

/// Reports once that a connection's client has gone. It has closed the connection, or its sending half, which for a client that waits for an answer means the
/// same here. The handler is in the pipeline while one request waits, and the connection is kept afterwards.
final class DisconnectHandler: ChannelInboundHandler, RemovableChannelHandler, Sendable {
    typealias InboundIn = NIOAny

    private let onDisconnect: @Sendable () -> Void
    private let isTold = Atomic(false)

    private init(onDisconnect: @escaping @Sendable () -> Void) { self.onDisconnect = onDisconnect }

    private func tell() {
        if !isTold.exchange(true, ordering: .relaxed) { onDisconnect() }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if let event = event as? ChannelEvent, event == .inputClosed { tell() }
        context.fireUserInboundEventTriggered(event)
    }

    func channelInactive(context: ChannelHandlerContext) {
        tell()
        context.fireChannelInactive()
    }

    /// Runs `body`, whose task is cancelled when the channel's client has gone.
    static func watch<Value: Sendable>(_ channel: any Channel, _ body: @escaping @Sendable () async -> Value) async -> Value {
        let task = Task { await body() }
        let handler = DisconnectHandler { task.cancel() }
        do {
            try await channel.eventLoop.submit {
                try channel.pipeline.syncOperations.addHandler(handler, position: .first)
                if !channel.isActive { handler.tell() }
            }.get()
        } catch {
            // There is no pipeline any more, because the client has gone.
            task.cancel()
        }
        let value = await withTaskCancellationHandler {
            await task.value
        } onCancel: {
            task.cancel()
        }
        // This fails if the connection has ended meanwhile, which ends the handler too.
        try? await channel.pipeline.removeHandler(handler).get()
        return value
    }
}
