import NIOCore

/// The shell around `SwitchWatch`: hiredis' reader, the socket and the timer of one subscription. Loop-bound.
final class SwitchWatchHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let sentinels: RedisSentinels
    private let onHint: (_ isSwitch: Bool) -> Void
    private var machine: SwitchWatch
    private var tick: Scheduled<Void>?
    /// What is heard is short: a line of names and addresses.
    private let reader = ReplyReader(maximumBytes: 64 << 10, maximumElements: 64)

    /// - Parameter onHint: the master may be another one; `isSwitch` if the sentinel has said so.
    init(_ sentinels: RedisSentinels, now: NIODeadline, onHint: @escaping (_ isSwitch: Bool) -> Void) {
        self.sentinels = sentinels
        self.onHint = onHint
        machine = SwitchWatch(
            master: sentinels.master,
            authenticates: sentinels.password != nil,
            silence: TimeAmount(sentinels.watchSilence),
            now: now
        )
    }

    func handlerAdded(context: ChannelHandlerContext) {
        if context.channel.isActive { start(context) }
    }

    func channelActive(context: ChannelHandlerContext) {
        start(context)
        context.fireChannelActive()
    }

    private func start(_ context: ChannelHandlerContext) {
        guard tick == nil else { return }
        send(sentinels.credentials ?? RedisCommand("SUBSCRIBE", .string(SwitchWatch.channel)), context)
        schedule(context)
    }

    private func schedule(_ context: ChannelHandlerContext) {
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        self.tick = context.eventLoop.scheduleTask(in: TimeAmount(sentinels.watchSilence / 4)) {
            let (handler, context) = bound.value
            handler.schedule(context)
            handler.follow(handler.machine.tick(now: context.eventLoop.now), context)
        }
    }

    private func follow(_ action: SwitchWatch.Action, _ context: ChannelHandlerContext) {
        switch action {
        case .none: break
        case .subscribe: send(RedisCommand("SUBSCRIBE", .string(SwitchWatch.channel)), context)
        case .ping: send(.ping, context)
        case .listening: onHint(false)
        case .switched: onHint(true)
        case .end: context.close(promise: nil)
        }
    }

    private func send(_ command: RedisCommand, _ context: ChannelHandlerContext) {
        var buffer = context.channel.allocator.buffer(capacity: 64)
        command.encode(into: &buffer)
        context.writeAndFlush(wrapOutboundOut(buffer), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard let reader = self.reader else { return context.close(promise: nil) }
        unwrapInboundIn(data).withUnsafeReadableBytes { bytes in
            var offset = 0
            // Ends: each round feeds at least one byte.
            while offset < bytes.count {
                let end = min(offset + ReplyReader.pieceSize, bytes.count)
                reader.feed(UnsafeRawBufferPointer(rebasing: bytes[offset..<end]))
                offset = end
                reading: while true {
                    switch reader.next() {
                    case .needMore: break reading
                    case .failed: return context.close(promise: nil)
                    case .reply(let value): follow(machine.received(value, now: context.eventLoop.now), context)
                    }
                }
            }
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        tick?.cancel()
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) { tick?.cancel() }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
