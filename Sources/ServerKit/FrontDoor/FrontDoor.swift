// The front door of a server: it stands between the socket and the router and is the only reader of a connection's bytes. It reads whole requests, hands each to
// the hot path or to the router, and writes both their answers, so that there is one set of rules for all routes: what a request is, when a connection ends, how
// long it may wait and how much it may hold.
//
// Invariant: answers leave in the order of their requests. At most one request of a connection is in work. See `ConnectionMachine` for when the next is taken,
//   `RequestReader` for what a request is, `ConnectionClock` for how long it may wait.
// Bounds: of what a client sends, at most one request is held, with the bytes that one read of the socket brought along. The socket is read on only when
//   these are dealt with, and a request is taken only while the client takes its answers. When a client ends its half, SwiftNIO reads all that the kernel
//   holds for the connection at once, whatever these rules say: `FrontDoorSizes.receiveBufferBytes` bounds that. So the buffer stays below
//   `FrontDoorSizes.maximumWaitingBytes`; a connection that reaches this size all the same is closed.
// Stop: a stopping server answers what has come, says `Connection: close`, closes idle connections after `ConnectionTimes.stopIdle`, and the others within
//   the other times of a stop. A client that takes nothing of its answers for `ConnectionTimes.stopTaking` is closed; one that takes them has
//   `ConnectionTimes.stopWorking`.

import APIErrors
import HotPath
import HTTPTypes
import Hummingbird
import NIOCore
import NIOHTTPTypes
import NIOTransportSecurity

/// Reads the requests of one connection and writes their answers.
final class FrontDoor<Endpoint: HotPathEndpoint>: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = ByteBuffer

    /// Bytes that were dealt with stay in the buffer up to this size.
    private static var maximumDealtWithBytes: Int { 16 * 1024 }
    /// Parts of an answer of the router's are gathered up to this size, so that a small answer is one write.
    static var maximumGatheredBytes: Int { 16 * 1024 }

    /// The router's answer that is being written.
    struct RouterAnswer {
        let request: RequestHead
        /// False for the answer to a HEAD.
        let hasBody: Bool
        var framing: AnswerFraming?
        var gathered = ByteBuffer()
        var promises: [EventLoopPromise<Void>] = []
    }

    private let endpoint: Endpoint
    let configuration: FrontDoorConfiguration
    var pass: ConnectionPass
    private let number = UInt64.random(in: .min ... .max)
    private let date = HTTPDate()

    var machine = ConnectionMachine()
    var reader: RequestReader
    var clock: ConnectionClock
    /// What has come and is not dealt with.
    private var waiting = ByteBuffer()
    var answer: RouterAnswer?
    private var isFromLoopback = false
    var isWritable = true
    private var wantsRead = false
    private var isProceeding = false
    /// Requests taken so far.
    var requests: UInt64 = 0
    /// Answers finished so far.
    var answers: UInt64 = 0
    var written: UInt64 = 0
    var beat: Scheduled<Void>?
    var closing: Scheduled<Void>?
    var quiescing: Scheduled<Void>?
    var taking: Scheduled<Void>?
    var closesAt = NIODeadline.distantFuture

    init(endpoint: Endpoint, configuration: FrontDoorConfiguration, pass: ConnectionPass = .ordinary) {
        self.endpoint = endpoint
        self.configuration = configuration
        self.pass = pass
        reader = RequestReader(limits: configuration.limits)
        clock = ConnectionClock(times: pass.times(configuration.times))
    }

    // MARK: The connection

    func handlerAdded(context: ChannelHandlerContext) {
        if context.channel.isActive { begin(context) }
    }

    func channelActive(context: ChannelHandlerContext) {
        begin(context)
        context.fireChannelActive()
    }

    private func begin(_ context: ChannelHandlerContext) {
        guard beat == nil else { return }
        isFromLoopback = context.channel.remoteAddress?.isLoopback ?? false
        scheduleBeat(context)
    }

    func channelInactive(context: ChannelHandlerContext) {
        end()
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) { end() }

    private func end() {
        machine.close()
        beat?.cancel()
        beat = nil
        closing?.cancel()
        closing = nil
        quiescing?.cancel()
        quiescing = nil
        taking?.cancel()
        taking = nil
        waiting = ByteBuffer()
        fail(answer)
        answer = nil
    }

    private func fail(_ answer: RouterAnswer?) {
        for promise in answer?.promises ?? [] { promise.fail(ChannelError.ioOnClosedChannel) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // A socket that has failed is closed. The router hears of it as of any other end.
        perform(machine.close(), context)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch event {
        case let event as ChannelEvent where event == .inputClosed: perform(machine.inputClosed(), context)
        case is ChannelShouldQuiesceEvent:
            if taking == nil { watchTaking(context, last: nil) }
            let grace = configuration.times.stopIdle
            guard grace > .zero, machine.state == .reading, !hasPart, quiescing == nil else { return quiesce(context) }
            quiescing = context.eventLoop.assumeIsolated().scheduleTask(in: grace) { self.quiesce(context) }
        default: context.fireUserInboundEventTriggered(event)
        }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        isWritable = context.channel.isWritable
        context.fireChannelWritabilityChanged()
        if isWritable { proceed(context) }
    }

    /// Does what the machine says.
    func perform(_ step: ConnectionMachine.Step, _ context: ChannelHandlerContext) {
        switch step {
        case .wait: break
        case .proceed: self.proceed(context)
        case .end: endOutput(context)
        case .close: close(context, nil)
        }
    }

    func close(_ context: ChannelHandlerContext, _ promise: EventLoopPromise<Void>?) {
        context.close(mode: .all, promise: promise)
        // A stop does not wait for the client's answer to the goodbye of TLS.
        if configuration.tls != nil, machine.isQuiescing { context.triggerUserOutboundEvent(TransportEnd.Close(), promise: nil) }
    }

    /// Closes the server's half after the last answer. The client's half is closed when the client does so, and after a short while otherwise.
    private func endOutput(_ context: ChannelHandlerContext) {
        waiting = ByteBuffer()
        // Where the client has closed its half, SwiftNIO makes the end of this half the end of all, and drops what the socket has not taken by then. So the end
        // waits here until the socket has taken everything; a client that takes nothing is closed by the clock.
        guard machine.isInputClosed else { return closeOutput(context) }
        let taken = context.eventLoop.makePromise(of: Void.self)
        taken.futureResult.assumeIsolated().whenComplete { _ in self.closeOutput(context) }
        context.writeAndFlush(wrapOutboundOut(ByteBuffer()), promise: taken)
    }

    private func closeOutput(_ context: ChannelHandlerContext) {
        guard machine.state == .ending else { return }
        let lingering =
            machine.isQuiescing ? min(configuration.times.lingering, .milliseconds(100)) : configuration.times.lingering
        let promise = context.eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { result in
            // The channel has no halves, or the client has closed its own: there is nothing to wait for.
            if case .failure = result { return self.perform(self.machine.close(), context) }
            self.perform(self.machine.outputClosed(), context)
            if self.machine.state != .closed { self.close(in: lingering, context) }
        }
        context.close(mode: .output, promise: promise)
        resumeReading(context)
    }

    // MARK: Reading

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = unwrapInboundIn(data)
        switch machine.state {
        // What comes after the last answer is dropped.
        case .ending, .closed: return
        case .reading, .working: break
        }
        if waiting.readableBytes == 0 {
            waiting = bytes
        } else {
            // The buffer keeps the bytes that were dealt with, before the rest. Without this, a client that always has something waiting would make it grow by all
            // that it ever sends.
            if waiting.readerIndex > Self.maximumDealtWithBytes { waiting.discardReadBytes() }
            waiting.writeBuffer(&bytes)
        }
        guard waiting.readableBytes <= FrontDoorSizes.maximumWaitingBytes else { return perform(machine.close(), context) }
        proceed(context)
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        // The router is told of each request by `handOn`, when all of it has come. Nothing is passed on here.
    }

    func read(context: ChannelHandlerContext) {
        if mayRead { context.read() } else { wantsRead = true }
    }

    /// Whether the socket may be read on. It stays registered for reading while a client waits for each answer before it asks again.
    private var mayRead: Bool {
        waiting.readableBytes == 0 || (machine.state == .reading && isWritable)
    }

    private func resumeReading(_ context: ChannelHandlerContext) {
        guard wantsRead, mayRead else { return }
        wantsRead = false
        context.read()
    }

    /// Takes requests until one is in work or what has come is dealt with. An answer that comes at once comes back here: this loop takes the next request itself,
    /// so that the stack does not grow.
    private func proceed(_ context: ChannelHandlerContext) {
        guard !isProceeding else { return }
        isProceeding = true
        defer { isProceeding = false }
        // Ends: each round takes a request, which takes bytes, or leaves.
        while machine.mayTake(isWritable: self.isWritable) {
            switch reader.next(&waiting) {
            case .more:
                let hasPart = self.hasPart
                if machine.isTruncated(hasPart: hasPart) {
                    refuse(.truncated, nil, context)
                } else {
                    perform(machine.needsMore(hasPart: hasPart), context)
                }
                if waiting.readableBytes == 0, waiting.capacity > 0 { waiting = ByteBuffer() }
                return resumeReading(context)
            case .continue: send(ByteBuffer(string: "HTTP/1.1 100 Continue\r\n\r\n"), context)
            case .refused(let refusal, let head): return refuse(refusal, head, context)
            case .request(var head, let body):
                requests &+= 1
                head.madeID = (number, requests)
                head.isFromLoopback = isFromLoopback
                guard pass.admits(head) else { return refuse(.full, head, context) }
                machine.took(closes: head.closes || pass.endsAfter(head))
                // The rest of a request that a stopping server waited for has come: it has the time of work now.
                if machine.isQuiescing { allow(configuration.times.stopWorking, context) }
                handOn(head, body, context)
            }
        }
        if waiting.readableBytes == 0, waiting.capacity > 0 { waiting = ByteBuffer() }
        resumeReading(context)
    }

    /// The size of the buffer of what waits, in bytes, with those that were dealt with.
    var waitingCapacity: Int { waiting.capacity }

    var hasPart: Bool { reader.isInsideRequest || waiting.readableBytes > 0 }

    private func handOn(_ head: RequestHead, _ body: ByteBuffer, _ context: ChannelHandlerContext) {
        if body.readableBytes <= endpoint.maximumBodyBytes, let match = endpoint.match(head) {
            let request = requests
            // Confined to this channel's loop, where the endpoint answers.
            endpoint.respond(to: match, head: head, body: body, on: context.eventLoop) { answer in
                self.write(answer, to: head, request, context)
            }
            return
        }
        self.answer = RouterAnswer(request: head, hasBody: head.methodText != "HEAD")
        context.fireChannelRead(wrapInboundOut(.head(head.httpRequest)))
        if body.readableBytes > 0 { context.fireChannelRead(wrapInboundOut(.body(body))) }
        context.fireChannelRead(wrapInboundOut(.end(nil)))
        context.fireChannelReadComplete()
    }

    // MARK: Answers of the hot path

    private func write(_ answer: HotPathAnswer, to head: RequestHead, _ request: UInt64, _ context: ChannelHandlerContext) {
        // An answer that is given twice, or after the connection's end, is dropped.
        guard machine.state == .working, requests == request, answers &+ 1 == request else { return }
        let isLast = machine.answers(hasMore: hasPart, isDraining: configuration.drain.isDraining)
        var bytes = context.channel.allocator.buffer(capacity: 208 + answer.lines.utf8.count + answer.body.count)
        bytes.writeStatusLine(answer.status)
        bytes.writeString(answer.lines)
        bytes.writeStaticString("Content-Length: ")
        bytes.writeString(String(answer.body.count))
        bytes.writeStaticString("\r\nDate: ")
        bytes.writeString(date.now())
        bytes.writeStaticString("\r\nX-Request-Id: ")
        bytes.writeRequestID(head.id)
        bytes.writeStaticString("\r\n")
        bytes.writeConnection(to: head, isLast: isLast)
        bytes.writeStaticString("\r\n")
        bytes.writeBytes(answer.body)
        send(bytes, context)
        finished(context)
    }

    private func send(_ bytes: ByteBuffer, _ context: ChannelHandlerContext) {
        written &+= UInt64(bytes.readableBytes)
        context.writeAndFlush(wrapOutboundOut(bytes), promise: nil)
    }

    func finished(_ context: ChannelHandlerContext) {
        answers &+= 1
        perform(machine.answered(), context)
    }

    // MARK: Refusals

    func refuse(_ refusal: RequestRefusal, _ head: RequestHead?, _ context: ChannelHandlerContext) {
        guard machine.state == .reading else { return }
        configuration.metrics?.refused(refusal)
        let limits = configuration.limits
        let error = refusal.error(maximumBodyBytes: (head ?? reader.head).map(limits.bodyBytes(of:)) ?? limits.bodyBytes)
        let request = (head ?? reader.head).map(RefusedRequest.init) ?? RefusedRequest(partial: waiting)
        let rendered = error.render(accept: request.accept, language: .negotiated(request.acceptLanguage))
        var bytes = context.channel.allocator.buffer(capacity: 512)
        bytes.writeStatusLine(.init(code: rendered.status, reasonPhrase: error.code.phrase))
        for field in rendered.headerFields { bytes.writeString("\(field.name.rawName): \(field.value)\r\n") }
        bytes.writeString("Content-Length: \(rendered.body.count)\r\nDate: \(date.now())\r\nX-Request-Id: ")
        bytes.writeRequestID(request.id.map { .given($0) } ?? .made(connection: self.number, number: requests &+ 1))
        bytes.writeStaticString("\r\nConnection: close\r\n\r\n")
        // The answer to a HEAD has no body.
        if !request.isHEAD { bytes.writeBytes(rendered.body) }
        send(bytes, context)
        perform(machine.refused(), context)
    }
}
