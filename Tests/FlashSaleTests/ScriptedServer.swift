import NIOCore
import NIOPosix

/// A TCP server that answers each request it has read with the next bytes of a script.
final class ScriptedServer: Sendable {
    /// What it does with one request.
    enum Step: Sendable {
        /// Writes these pieces, each flushed by itself.
        case answer([String])
        /// Writes these bytes, then closes.
        case answerAndClose(String)
        /// Closes without a word.
        case close
        /// Never answers.
        case silence
        /// Answers after so long.
        case late(TimeAmount, String)
    }

    static let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    let address: SocketAddress
    private let channel: any Channel

    init(_ steps: [Step], group: any EventLoopGroup) async throws {
        let eventLoop = group.next()
        let script = try await eventLoop.submit { NIOLoopBound(Script(steps), eventLoop: eventLoop) }.get()
        channel = try await ServerBootstrap(group: eventLoop)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(ScriptHandler(script.value))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        guard let address = channel.localAddress else { throw ChannelError.unknownLocalAddress }
        self.address = address
    }

    func close() async {
        try? await channel.close().get()
    }
}

private final class Script {
    var steps: ArraySlice<ScriptedServer.Step>

    init(_ steps: [ScriptedServer.Step]) {
        self.steps = steps[...]
    }
}

private final class ScriptHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let script: Script
    private var received = ""

    init(_ script: Script) {
        self.script = script
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        received += String(buffer: unwrapInboundIn(data))
        // The tests' requests have no body.
        guard received.hasSuffix("\r\n\r\n"), let step = script.steps.popFirst() else { return }
        received = ""
        switch step {
        case .answer(let pieces):
            for piece in pieces { context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: piece)), promise: nil) }
        case .answerAndClose(let text):
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: text)), promise: nil)
            context.close(promise: nil)
        case .close:
            context.close(promise: nil)
        case .silence:
            break
        case .late(let delay, let text):
            let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
            context.eventLoop.scheduleTask(in: delay) {
                let (handler, context) = bound.value
                context.writeAndFlush(handler.wrapOutboundOut(ByteBuffer(string: text)), promise: nil)
            }
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        context.close(promise: nil)
    }
}
