import NIOCore
import NIOHTTP1
import NIOPosix

/// One keep-alive connection that carries one request at a time.
///
/// A load generator that shares two cores with everything it measures must cost little: no task, no continuation and no
/// timer is made per request, and the request's head is built once and copied on write.
///
/// Invariant: at most one exchange is under way, and its completion is called exactly once, always on the event loop. After a
/// failure the connection is given up; the next request makes a new one. Bounds: one request, `timeout` for connecting
/// and answering together, `bodyLimit` bytes of body. Confined to its event loop: it is not Sendable.
public final class HTTPConnection {
    /// Called once, on the event loop.
    public typealias Completion = (Result<HTTPAnswer, HTTPFailure>) -> Void

    private enum Link {
        case none
        case connecting
        case up(any Channel, AnswerHandler)
    }

    private struct Exchange {
        let head: HTTPRequestHead
        let body: ByteBuffer?
        let deadline: NIODeadline
        let completion: Completion
        var status: HTTPResponseHead?
        var received = ByteBuffer()
    }

    private let eventLoop: any EventLoop
    private let address: SocketAddress
    private let timeout: TimeAmount
    private let bodyLimit: Int
    private var link = Link.none
    private var exchange: Exchange?
    private var timerIsArmed = false
    /// Tells an answer of the current channel from one of a channel given up.
    private var generation = 0
    /// Connections made so far. With keep-alive this stays far below the requests sent.
    public private(set) var connectionsMade = 0

    /// - Parameters:
    ///   - eventLoop: where everything happens.
    ///   - address: whom to connect to.
    ///   - timeout: for connecting, sending and the whole answer together.
    ///   - bodyLimit: bytes of body at which an answer is refused.
    public init(eventLoop: any EventLoop, address: SocketAddress, timeout: TimeAmount, bodyLimit: Int = 64 * 1024) {
        self.eventLoop = eventLoop
        self.address = address
        self.timeout = timeout
        self.bodyLimit = bodyLimit
    }

    /// Whether a request is under way.
    public var isBusy: Bool { exchange != nil }

    /// Sends a request. The connection must not be busy: a second request fails at once as `closed`.
    public func send(_ head: HTTPRequestHead, body: ByteBuffer?, completion: @escaping Completion) {
        eventLoop.preconditionInEventLoop()
        guard exchange == nil else { return completion(.failure(.closed)) }
        exchange = Exchange(head: head, body: body, deadline: .now() + timeout, completion: completion)
        armTimer()
        switch link {
        case .up(let channel, let handler) where channel.isActive:
            handler.write(head, body)
        case .up, .none:
            connect()
        case .connecting:
            break
        }
    }

    /// Closes the connection. A request under way fails as `closed`.
    public func close() {
        fail(.closed)
        dropLink()
    }

    private func connect() {
        dropLink()
        link = .connecting
        connectionsMade += 1
        let generation = self.generation
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        ClientBootstrap(group: eventLoop)
            .connectTimeout(timeout)
            .channelOption(.socketOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    try pipeline.addHandler(HTTPRequestEncoder())
                    try pipeline.addHandler(ByteToMessageHandler(HTTPResponseDecoder(leftOverBytesStrategy: .dropBytes)))
                    try pipeline.addHandler(AnswerHandler(owner: bound.value, generation: generation))
                }
            }
            .connect(to: address)
            .assumeIsolated()
            .whenComplete { self.connected($0, generation: generation) }
    }

    private func connected(_ result: Result<any Channel, any Error>, generation: Int) {
        guard generation == self.generation else {
            if case .success(let channel) = result { channel.close(promise: nil) }
            return
        }
        switch result {
        case .failure(let error):
            link = .none
            fail(.connect(String(describing: error)))
        case .success(let channel):
            guard let handler = try? channel.pipeline.syncOperations.handler(type: AnswerHandler.self) else {
                link = .none
                return fail(.closed)
            }
            link = .up(channel, handler)
            if let exchange { handler.write(exchange.head, exchange.body) }
        }
    }

    /// One timer at a time, set again only when it fires: cheaper than one per request.
    private func armTimer() {
        guard !timerIsArmed, let exchange else { return }
        timerIsArmed = true
        eventLoop.assumeIsolated().scheduleTask(deadline: exchange.deadline) { [weak self] in
            guard let self else { return }
            self.timerIsArmed = false
            guard let exchange = self.exchange else { return }
            if exchange.deadline <= .now() {
                // The link is dropped first: a late answer must never meet the next request.
                self.dropLink()
                self.fail(.timedOut)
            } else {
                self.armTimer()
            }
        }
    }

    private func dropLink() {
        generation += 1
        if case .up(let channel, _) = link { channel.close(promise: nil) }
        link = .none
    }

    private func fail(_ failure: HTTPFailure) {
        guard let exchange else { return }
        self.exchange = nil
        exchange.completion(.failure(failure))
    }

    // MARK: What the channel tells

    fileprivate func received(_ part: HTTPClientResponsePart, generation: Int) {
        guard generation == self.generation else { return }
        guard exchange != nil else {
            // Nobody asked: the connection cannot be trusted any more.
            dropLink()
            return
        }
        switch part {
        case .head(let head):
            exchange?.status = head
        case .body(var bytes):
            exchange?.received.writeBuffer(&bytes)
            if let size = exchange?.received.readableBytes, size > bodyLimit {
                dropLink()
                fail(.tooLarge)
            }
        case .end:
            guard let exchange, let head = exchange.status else { return }
            self.exchange = nil
            if !head.isKeepAlive { dropLink() }
            let seconds = head.headers.first(name: "retry-after").flatMap { Int64($0) }
            exchange.completion(
                .success(
                    HTTPAnswer(
                        status: Int(head.status.code),
                        retryAfter: seconds.flatMap { (0...86_400).contains($0) ? .seconds($0) : nil },
                        body: exchange.received
                    )
                )
            )
        }
    }

    fileprivate func ended(_ failure: HTTPFailure, generation: Int) {
        guard generation == self.generation else { return }
        dropLink()
        fail(failure)
    }
}

/// The last handler of the pipeline: hands parts to the connection that made the channel.
private final class AnswerHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPClientResponsePart
    typealias OutboundOut = HTTPClientRequestPart

    private let owner: HTTPConnection
    private let generation: Int
    private var context: ChannelHandlerContext?

    init(owner: HTTPConnection, generation: Int) {
        self.owner = owner
        self.generation = generation
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
    }

    func write(_ head: HTTPRequestHead, _ body: ByteBuffer?) {
        guard let context else { return }
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        if let body { context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil) }
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        owner.received(unwrapInboundIn(data), generation: generation)
    }

    func channelInactive(context: ChannelHandlerContext) {
        owner.ended(.closed, generation: generation)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        let failure: HTTPFailure = error is HTTPParserError ? .malformed(String(describing: error)) : .closed
        owner.ended(failure, generation: generation)
        context.close(promise: nil)
    }
}
