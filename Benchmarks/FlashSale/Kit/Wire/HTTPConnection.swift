public import NIOCore
import NIOPosix
import NIOSSL

/// One keep-alive connection that carries one request at a time.
///
/// A load generator that shares two cores with everything it measures must cost little: no task, no continuation and no
/// timer is made per request, and neither an encoder nor a header dictionary stands between the bytes and the order.
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
        let request: ByteBuffer
        let deadline: NIODeadline
        let completion: Completion
    }

    private let eventLoop: any EventLoop
    private let address: SocketAddress
    private let tls: TLSClient?
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
    ///   - tls: nil for plain HTTP.
    ///   - timeout: for connecting, sending and the whole answer together.
    ///   - bodyLimit: bytes of body at which an answer is refused.
    public init(
        eventLoop: any EventLoop,
        address: SocketAddress,
        tls: TLSClient? = nil,
        timeout: TimeAmount,
        bodyLimit: Int = 64 * 1024
    ) {
        self.eventLoop = eventLoop
        self.address = address
        self.tls = tls
        self.timeout = timeout
        self.bodyLimit = bodyLimit
    }

    /// Whether a request is under way.
    public var isBusy: Bool { exchange != nil }

    /// Sends a request, its bytes complete. The connection must not be busy: a second request fails at once as `closed`.
    public func send(_ request: ByteBuffer, completion: @escaping Completion) {
        eventLoop.preconditionInEventLoop()
        guard exchange == nil else { return completion(.failure(.closed)) }
        exchange = Exchange(request: request, deadline: .now() + timeout, completion: completion)
        armTimer()
        switch link {
        case .up(let channel, let handler) where channel.isActive:
            handler.write(request)
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
        let (tls, bodyLimit) = (self.tls, self.bodyLimit)
        ClientBootstrap(group: eventLoop)
            .connectTimeout(timeout)
            .channelOption(.socketOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let pipeline = channel.pipeline.syncOperations
                    if let tls { try pipeline.addHandler(tls.handler()) }
                    try pipeline.addHandler(AnswerHandler(owner: bound.value, generation: generation, bodyLimit: bodyLimit))
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
            if let exchange { handler.write(exchange.request) }
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

    fileprivate func received(_ answer: AnswerParser.Answer, generation: Int) {
        guard generation == self.generation else { return }
        guard let exchange else {
            // Bytes came that answer no request: the connection cannot be trusted any more.
            dropLink()
            return
        }
        self.exchange = nil
        if !answer.keepsAlive { dropLink() }
        exchange.completion(.success(answer.answer))
    }

    fileprivate func ended(_ failure: HTTPFailure, generation: Int) {
        guard generation == self.generation else { return }
        dropLink()
        fail(failure)
    }
}

/// The last handler of the pipeline: reads answers and hands them to the connection that made the channel.
private final class AnswerHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let owner: HTTPConnection
    private let generation: Int
    private var context: ChannelHandlerContext?
    private var parser: AnswerParser
    /// What is left of bytes that were not a whole answer.
    private var rest: ByteBuffer?
    private var isBroken = false

    init(owner: HTTPConnection, generation: Int, bodyLimit: Int) {
        self.owner = owner
        self.generation = generation
        parser = AnswerParser(bodyLimit: bodyLimit)
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.context = nil
    }

    func write(_ request: ByteBuffer) {
        guard let context else { return }
        context.writeAndFlush(wrapOutboundOut(request), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !isBroken else { return }
        var bytes = unwrapInboundIn(data)
        if var rest {
            rest.writeBuffer(&bytes)
            bytes = rest
            self.rest = nil
        }
        do {
            while let answer = try parser.next(&bytes) { owner.received(answer, generation: generation) }
            if bytes.readableBytes > 0 { rest = bytes }
        } catch {
            isBroken = true
            owner.ended(error, generation: generation)
            context.close(promise: nil)
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        if !isBroken, let answer = parser.end() { owner.received(answer, generation: generation) }
        owner.ended(.closed, generation: generation)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // When the TLS handshake fails, no request was sent yet, so no answer is lost.
        let isHandshake = error is NIOSSLError || error is BoringSSLError || error is NIOSSLExtraError
        owner.ended(isHandshake ? .connect("TLS: \(TLSOptions.words(error))") : .closed, generation: generation)
        context.close(promise: nil)
    }
}
