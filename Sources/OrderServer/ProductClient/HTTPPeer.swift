// Invariant: a connection carries one request at a time and is idle, busy or closed. Every call ends exactly once: by its answer, its failure or its timeout.
//
// A connection ages: beyond its age it carries no further request, and is closed after its present answer. One host name may stand for many servers, and only a
// new connection looks the name up again. If connections lasted for ever, a server that joins would get no calls. Ages vary by a quarter, so that connections
// do not all end together.
//
// Bounds: as many connections, including idle ones, as the callers have calls out, which the callers bound; an answer of at most 1 MiB; the timeout of each
//   call, which includes connecting. No call is repeated here, because a call that was cut off may have taken effect.

import NIOCore
import NIOHTTP1
import NIOPosix
import NIOTransportSecurity
import Synchronization

struct HTTPAnswer: Sendable {
    var status: Int
    var headers: HTTPHeaders
    var body: ByteBuffer

    /// The value of `Retry-After` in seconds. Its other form, a date, is ignored.
    var retryAfter: Duration? {
        guard let text = headers.first(name: "retry-after"), let seconds = Int64(text), (0...86_400).contains(seconds) else {
            return nil
        }
        return .seconds(seconds)
    }
}

/// Why a call has no answer.
enum HTTPCallFailure: Error, Equatable {
    /// There was no connection, so nothing was sent.
    case cannotConnect
    /// The request was sent, and no answer came in time.
    case timedOut
    /// The request was sent, and the connection ended or the answer made no sense.
    case connectionLost

    /// The label of this failure in metrics.
    var cause: String {
        switch self {
        case .cannotConnect: NoAnswerCause.cannotConnect
        case .timedOut: NoAnswerCause.timedOut
        case .connectionLost: NoAnswerCause.connectionLost
        }
    }
}

/// A client of one HTTP/1.1 server, over connections that it keeps.
final class HTTPPeer: Sendable {
    /// A request. Its path is appended to that of the server's URL.
    struct Request: Sendable {
        var method: HTTPMethod
        var path: String
        var headers: HTTPHeaders = [:]
        var body: ByteBuffer?
    }

    private struct Connection {
        let channel: any Channel
        let endsAt: NIODeadline
    }

    private struct State {
        var idle: [Connection] = []
        var downUntil: NIODeadline?
        var isClosed = false
        /// What was said last about TLS; nil since it works.
        var trouble: String?
    }

    /// Hears why TLS is in the way of an endpoint, once until the words change; nil: it works again.
    typealias TroubleHook = @Sendable (HTTPEndpoint, TLSFailure?) -> Void

    private let endpoint: HTTPEndpoint
    private let loop: any EventLoop
    private let state = Mutex(State())
    private let connectionAge: TimeAmount
    /// Nil without TLS.
    private let tls: TLSClientContexts?
    private let onTrouble: TroubleHook

    /// The default age of connections.
    static let connectionAge: Duration = .seconds(30)
    /// How long a server that refused a connection is skipped while there are others.
    static let downTime: TimeAmount = .seconds(1)
    static let maximumAnswerBytes = 1 << 20

    init(
        _ endpoint: HTTPEndpoint,
        loop: any EventLoop,
        connectionAge: Duration = HTTPPeer.connectionAge,
        onTrouble: @escaping TroubleHook = { _, _ in }
    ) {
        tls = endpoint.tls.map { TLSClientContexts($0, name: endpoint.host) }
        self.onTrouble = onTrouble
        self.connectionAge = TimeAmount(connectionAge)
        self.endpoint = endpoint
        self.loop = loop
    }

    /// Whether the server refused a connection a moment ago.
    var isDown: Bool { state.withLock { $0.downUntil.map { $0 > .now() } ?? false } }

    /// Sends a request.
    func call(_ request: Request, timeout: Duration) -> EventLoopFuture<HTTPAnswer> {
        let promise = loop.makePromise(of: HTTPAnswer.self)
        let deadline = NIODeadline.now() + TimeAmount(timeout)
        if let connection = takeIdle() {
            send(request, on: connection, deadline, promise)
        } else {
            connect(TimeAmount(timeout)).whenComplete { result in
                switch result {
                case .success(let connection):
                    self.send(request, on: connection, deadline, promise)
                case .failure(let error):
                    if let failure = error as? TLSFailure { self.tell(failure) }
                    self.state.withLock { $0.downUntil = .now() + HTTPPeer.downTime }
                    promise.fail(HTTPCallFailure.cannotConnect)
                }
            }
        }
        return promise.futureResult
    }

    /// Closes the idle connections. Busy ones close when their call ends.
    func shutdown() {
        let idle = self.state.withLock { state in
            state.isClosed = true
            defer { state.idle = [] }
            return state.idle
        }
        for connection in idle { connection.channel.close(promise: nil) }
    }

    private func takeIdle() -> Connection? {
        var tooOld: [Connection] = []
        defer { for connection in tooOld { connection.channel.close(promise: nil) } }
        return self.state.withLock { state in
            // A connection that the server has closed is out of this list already, or is about to be taken out. It is skipped.
            while let connection = state.idle.popLast() {
                guard connection.channel.isActive else { continue }
                if connection.endsAt > .now() { return connection }
                tooOld.append(connection)
            }
            return nil
        }
    }

    private func giveBack(_ connection: Connection) {
        let isKept = self.state.withLock { state in
            guard !state.isClosed, connection.channel.isActive, connection.endsAt > .now() else { return false }
            state.idle.append(connection)
            return true
        }
        if !isKept { connection.channel.close(promise: nil) }
    }

    private func forget(_ channel: any Channel) {
        self.state.withLock { state in state.idle.removeAll { $0.channel === channel } }
    }

    private func tell(_ failure: TLSFailure?) {
        let isNews = self.state.withLock { state in
            defer { state.trouble = failure?.description }
            return state.trouble != failure?.description
        }
        if isNews { onTrouble(endpoint, failure) }
    }

    /// A random age for a new connection: the configured age, more or less by up to a quarter.
    private var someAge: TimeAmount {
        .nanoseconds(Int64(Double(self.connectionAge.nanoseconds) * .random(in: 0.75...1.25)))
    }

    private func connect(_ timeout: TimeAmount) -> EventLoopFuture<Connection> {
        let connected = ClientBootstrap(group: loop)
            .connectTimeout(timeout)
            .channelOption(.socketOption(.tcp_nodelay), value: 1)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try self.tls?.secure(channel)
                    try channel.pipeline.syncOperations.addHTTPClientHandlers()
                    try channel.pipeline.syncOperations.addHandler(
                        NIOHTTPClientResponseAggregator(maxContentLength: HTTPPeer.maximumAnswerBytes)
                    )
                    try channel.pipeline.syncOperations.addHandler(HTTPCallHandler { self.tell($0) })
                }
            }
            .connect(host: endpoint.host, port: endpoint.port)
        let checked =
            tls == nil
            ? connected : connected.flatMap { channel in TLSClientContexts.handshake(of: channel, within: timeout).map { channel } }
        return
            checked
            .map { channel in
                channel.closeFuture.whenComplete { _ in self.forget(channel) }
                return Connection(channel: channel, endsAt: .now() + self.someAge)
            }
    }

    private func send(
        _ request: Request,
        on connection: Connection,
        _ deadline: NIODeadline,
        _ promise: EventLoopPromise<HTTPAnswer>
    ) {
        let channel = connection.channel
        var head = HTTPRequestHead(
            version: .http1_1,
            method: request.method,
            uri: endpoint.path + request.path,
            headers: request.headers
        )
        head.headers.replaceOrAdd(name: "host", value: endpoint.authority)
        if let body = request.body { head.headers.replaceOrAdd(name: "content-length", value: String(body.readableBytes)) }
        let timer = loop.scheduleTask(deadline: deadline) {
            promise.fail(HTTPCallFailure.timedOut)
            channel.close(promise: nil)
        }
        let answered = loop.makePromise(of: HTTPAnswer.self)
        answered.futureResult.whenComplete { result in
            timer.cancel()
            if self.tls != nil, case .success = result { self.tell(nil) }
            if case .success(let answer) = result, answer.isKeepAlive { self.giveBack(connection) } else { channel.close(promise: nil) }
            // After a timeout the promise is completed already. This second completion changes nothing, because NIO promises ignore it.
            promise.completeWith(result)
        }
        channel.writeAndFlush(HTTPCallHandler.Call(head: head, body: request.body, answer: answered)).whenFailure { _ in
            answered.fail(HTTPCallFailure.connectionLost)
        }
    }
}

extension HTTPAnswer {
    /// Whether the connection may carry another request.
    fileprivate var isKeepAlive: Bool { !headers[canonicalForm: "connection"].contains { $0.lowercased() == "close" } }
}

/// Writes one request, and gives the next answer to its caller.
private final class HTTPCallHandler: ChannelDuplexHandler {
    struct Call: Sendable {
        var head: HTTPRequestHead
        var body: ByteBuffer?
        var answer: EventLoopPromise<HTTPAnswer>
    }

    typealias InboundIn = NIOHTTPClientResponseFull
    typealias OutboundIn = Call
    typealias OutboundOut = HTTPClientRequestPart

    private var waiting: EventLoopPromise<HTTPAnswer>?
    private let onTLSFailure: (TLSFailure) -> Void

    /// - Parameter onTLSFailure: hears of what TLS has against the connection after the handshake: a server may refuse a certificate then
    init(onTLSFailure: @escaping (TLSFailure) -> Void) { self.onTLSFailure = onTLSFailure }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        let call = unwrapOutboundIn(data)
        waiting = call.answer
        context.write(wrapOutboundOut(.head(call.head)), promise: nil)
        if let body = call.body { context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil) }
        context.write(wrapOutboundOut(.end(nil)), promise: promise)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let answer = unwrapInboundIn(data)
        guard let waiting else { return context.close(promise: nil) }
        self.waiting = nil
        waiting.succeed(
            HTTPAnswer(status: Int(answer.head.status.code), headers: answer.head.headers, body: answer.body ?? ByteBuffer())
        )
    }

    func channelInactive(context: ChannelHandlerContext) {
        lose()
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if let failure = error as? TLSFailure { onTLSFailure(failure) }
        lose()
        context.close(promise: nil)
    }

    private func lose() {
        waiting?.fail(HTTPCallFailure.connectionLost)
        waiting = nil
    }
}
