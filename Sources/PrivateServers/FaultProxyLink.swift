import NIOCore
import NIOPosix

/// One connection through the proxy: two channels, and a flow in each direction.
final class FaultProxyLink {
    let core: FaultProxyCore
    let client: any Channel
    private(set) var server: (any Channel)?
    let toServer: FaultProxyFlow
    let toClient: FaultProxyFlow
    private var isCut = false

    init(core: FaultProxyCore, client: any Channel) {
        self.core = core
        self.client = client
        toServer = FaultProxyFlow(core: core, which: .toServer)
        toClient = FaultProxyFlow(core: core, which: .toClient)
    }

    func open() {
        let bound = NIOLoopBound(self, eventLoop: core.loop)
        do {
            try client.pipeline.syncOperations.addHandler(Side(link: self, isClient: true))
        } catch {
            return cut()
        }
        client.closeFuture.whenComplete { _ in bound.value.closed() }
        ClientBootstrap(group: core.loop)
            .channelOption(.autoRead, value: false)
            .channelOption(.allowRemoteHalfClosure, value: true)
            .channelOption(.socketOption(.tcp_nodelay), value: 1)
            .connectTimeout(.seconds(5))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try closeOnExec(channel)
                    try channel.pipeline.syncOperations.addHandler(Side(link: bound.value, isClient: false))
                }
            }
            .connect(host: core.host, port: core.server)
            .whenComplete { bound.value.connected($0) }
    }

    private func connected(_ result: Result<any Channel, any Error>) {
        guard case .success(let server) = result, !isCut, client.isActive else {
            if case .success(let server) = result { FaultProxyLink.reset(server) }
            return cut()
        }
        self.server = server
        let bound = NIOLoopBound(self, eventLoop: core.loop)
        server.closeFuture.whenComplete { _ in bound.value.closed() }
        toServer.connect(from: client, to: server)
        toClient.connect(from: server, to: client)
    }

    /// Cuts both sides at once, with RST.
    func cut() {
        guard !isCut else { return }
        isCut = true
        for channel in [client, server].compactMap({ $0 }) { FaultProxyLink.reset(channel) }
        core.ended(self)
    }

    /// One side has closed. The other side is closed once it has everything that was sent to it.
    private func closed() {
        for flow in [toServer, toClient] { flow.sourceEnded() }
        if server == nil || (server?.isActive == false && !client.isActive) { cut() }
    }

    private static func reset(_ channel: any Channel) {
        // With a linger time of zero the kernel answers with RST instead of FIN.
        (channel as? any SocketOptionProvider)?.setSoLinger(linger(l_onoff: 1, l_linger: 0)).whenComplete { _ in
            channel.close(promise: nil)
        }
    }
}

/// One direction of one connection: a queue of bytes, each held until its time.
final class FaultProxyFlow {
    private let core: FaultProxyCore
    private let which: FaultProxy.Direction
    private var source: (any Channel)?
    private var destination: (any Channel)?
    private var held = CircularBuffer<(bytes: ByteBuffer, came: NIODeadline, chance: Double)>()
    private(set) var bytes = 0
    private var isReading = false
    private var hasEnded = false
    private var timer: (task: Scheduled<Void>, due: NIODeadline)?

    init(core: FaultProxyCore, which: FaultProxy.Direction) {
        self.core = core
        self.which = which
    }

    func connect(from source: any Channel, to destination: any Channel) {
        (self.source, self.destination) = (source, destination)
        readMore()
        if hasEnded { drain() }
    }

    func received(_ buffer: ByteBuffer) {
        held.append((buffer, .now(), .random(in: 0...1)))
        bytes += buffer.readableBytes
        drain()
    }

    func readCompleted() {
        isReading = false
        readMore()
    }

    func sourceEnded() {
        guard !hasEnded else { return }
        hasEnded = true
        drain()
    }

    private func readMore() {
        guard let source, !isReading, !hasEnded, bytes < FaultProxy.bufferLimit else { return }
        isReading = true
        source.read()
    }

    /// Passes on the bytes that are due, as far as the receiver takes them.
    func drain() {
        guard let destination, !core.isStalled else { return }
        guard destination.isActive else {
            held.removeAll()
            bytes = 0
            return
        }
        let now = NIODeadline.now()
        var count = 0
        var isDue = true
        while destination.isWritable, let first = held.first {
            let pace = core.pace(which)
            let due = max(pace.due(came: first.came, chance: first.chance), pace.busyUntil(now) ?? now)
            guard due <= now else {
                isDue = false
                wake(at: due)
                break
            }
            let taken = core.take(first.bytes.readableBytes, which, at: now)
            var buffer = first.bytes.getSlice(at: first.bytes.readerIndex, length: taken) ?? first.bytes
            if let allowed = core.allowance(which, of: buffer.readableBytes) {
                if let rest = buffer.readSlice(length: allowed) { destination.writeAndFlush(rest, promise: nil) }
                core.handedOn(count + allowed, which)
                return core.reset()
            }
            if taken < first.bytes.readableBytes {
                held[held.startIndex].bytes.moveReaderIndex(forwardBy: taken)
            } else {
                held.removeFirst()
            }
            bytes -= buffer.readableBytes
            count += buffer.readableBytes
            destination.write(buffer, promise: nil)
        }
        if count > 0 {
            core.handedOn(count, which)
            destination.flush()
        }
        if held.isEmpty, hasEnded {
            // A source that has only stopped sending still waits for answers.
            destination.close(mode: source?.isActive == true ? .output : .all, promise: nil)
        } else if isDue || bytes < FaultProxy.bufferLimit {
            readMore()
        }
    }

    private func wake(at due: NIODeadline) {
        if let timer, timer.due == due { return }
        timer?.task.cancel()
        let bound = NIOLoopBound(self, eventLoop: core.loop)
        timer = (core.loop.scheduleTask(deadline: due) { bound.value.woken() }, due)
    }

    private func woken() {
        timer = nil
        drain()
    }
}

/// Passes one channel's events to the link's flows.
private final class Side: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let link: FaultProxyLink
    private let isClient: Bool

    init(link: FaultProxyLink, isClient: Bool) {
        self.link = link
        self.isClient = isClient
    }

    private var outgoing: FaultProxyFlow { isClient ? link.toServer : link.toClient }
    private var incoming: FaultProxyFlow { isClient ? link.toClient : link.toServer }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { outgoing.received(unwrapInboundIn(data)) }

    func channelReadComplete(context: ChannelHandlerContext) { outgoing.readCompleted() }

    func channelWritabilityChanged(context: ChannelHandlerContext) { incoming.drain() }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case .inputClosed? = event as? ChannelEvent { outgoing.sourceEnded() }
    }

    /// An error on one side cuts both.
    func errorCaught(context: ChannelHandlerContext, error: any Error) { link.cut() }
}
