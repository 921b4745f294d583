package import NIOCore
import Synchronization

/// Reports once that a connection's client has gone. It has closed the connection, or its sending half, which for a client that waits for an answer means the
/// same here. The handler is in the pipeline while one request waits, and the connection is kept afterwards.
package final class DisconnectHandler: ChannelInboundHandler, RemovableChannelHandler, Sendable {
    package typealias InboundIn = NIOAny

    private let onDisconnect: @Sendable () -> Void
    private let isTold = Atomic(false)

    private init(onDisconnect: @escaping @Sendable () -> Void) { self.onDisconnect = onDisconnect }

    private func tell() {
        if !isTold.exchange(true, ordering: .relaxed) { onDisconnect() }
    }

    package func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if let event = event as? ChannelEvent, event == .inputClosed { tell() }
        context.fireUserInboundEventTriggered(event)
    }

    package func channelInactive(context: ChannelHandlerContext) {
        tell()
        context.fireChannelInactive()
    }

    /// Runs `body`, whose task is cancelled when the channel's client has gone.
    package static func watch<Value: Sendable>(_ channel: any Channel, _ body: @escaping @Sendable () async -> Value) async -> Value {
        let task = Task { await body() }
        return await watch(channel) {
            task.cancel()
        } during: {
            await withTaskCancellationHandler {
                await task.value
            } onCancel: {
                task.cancel()
            }
        }
    }

    /// Runs `body`, and calls `onDisconnect` once if the channel's client goes before `body` has ended.
    package static func watch<Value, Failure: Error>(
        _ channel: any Channel,
        onDisconnect: @escaping @Sendable () -> Void,
        during body: () async throws(Failure) -> Value
    ) async throws(Failure) -> Value {
        let handler = DisconnectHandler(onDisconnect: onDisconnect)
        do {
            try await channel.eventLoop.submit {
                try channel.pipeline.syncOperations.addHandler(handler, position: .first)
                if !channel.isActive { handler.tell() }
            }.get()
        } catch {
            // There is no pipeline any more, because the client has gone.
            handler.tell()
        }
        let result: Result<Value, Failure>
        do throws(Failure) { result = .success(try await body()) } catch { result = .failure(error) }
        // This fails if the connection has ended meanwhile, which ends the handler too.
        try? await channel.pipeline.removeHandler(handler).get()
        return try result.get()
    }
}
