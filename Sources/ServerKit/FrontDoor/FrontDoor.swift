// The front door of a server: it stands between the socket and the router and is the only reader of a connection's bytes. It reads whole requests, hands each to
// the hot path or to the router, and writes both their answers, so that there is one set of rules for all routes: what a request is, when a connection ends, how
// long it may wait and how much it may hold.
//
// Invariant: answers leave in the order of their requests. At most one request of a connection is in work. See `ConnectionMachine` for when the next is taken,
//   `RequestReader` for what a request is, `ConnectionClock` for how long it may wait.
// Bounds: of what a client sends, at most one request is held, with the bytes that one read of the socket brought along; the socket is read on only when that
// is dealt with, and a
//   request is taken only while the client takes its answers. These rules keep the buffer below `maximumWaitingBytes`; a connection that reaches it all the
//   same is closed.
// Stop: a stopping server answers what has come, says `Connection: close`, closes idle connections after `ConnectionTimes.stopIdle`, and the others within
// the other times of a stop. Who takes nothing of its answers for `ConnectionTimes.stopTaking` is closed; who takes them has `ConnectionTimes.stopWorking`.

import APIErrors
import HotPath
import HTTPTypes
import Hummingbird
import NIOCore
import NIOHTTPTypes
import NIOTransportSecurity

/// What the front doors of one port share.
struct FrontDoorConfiguration: Sendable {
    var limits = RequestReader.Limits()
    var times = ConnectionTimes()
    /// Whether the server asks its clients to go elsewhere.
    var drain = ServerDrain()
    var metrics: FrontDoorMetrics?
    /// What the port shows of itself; nil: it speaks no TLS.
    var tls: TLSServerContexts?
    /// Bytes of answers that a channel's socket has not taken yet.
    var unsentBytes: @Sendable (any Channel) -> Int = { channel in
        (try? channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
    }
    /// Bytes that the client's end of a channel has taken so far; nil: the channel cannot tell. Called on the channel's loop.
    var takenBytes: @Sendable (any Channel) -> UInt64? = { AcknowledgedBytes.of($0) }
}

/// Reads the requests of one connection and writes their answers.
final class FrontDoor<Endpoint: HotPathEndpoint>: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = ByteBuffer

    static var maximumWaitingBytes: Int { 1024 * 1024 }
    /// Bytes that were dealt with stay in the buffer up to this size.
    private static var maximumDealtWithBytes: Int { 16 * 1024 }
    /// Parts of an answer of the router's are gathered up to this size, so that a small answer is one write.
    static var maximumGatheredBytes: Int { 16 * 1024 }

    /// The router's answer that is being written.
    struct RouterAnswer {
        let request: RequestHead
        /// The answer to a HEAD has no body.
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
    private var reader: RequestReader
    private var clock: ConnectionClock
    /// What has come and is not dealt with.
    private var waiting = ByteBuffer()
    var answer: RouterAnswer?
    private var isFromLoopback = false
    private var isWritable = true
    private var wantsRead = false
    private var isProceeding = false
    /// Requests taken so far.
    private var requests: UInt64 = 0
    /// Answers finished so far.
    private var answers: UInt64 = 0
    var written: UInt64 = 0
    private var beat: Scheduled<Void>?
    private var closing: Scheduled<Void>?
    private var quiescing: Scheduled<Void>?
    private var taking: Scheduled<Void>?
    private var closesAt = NIODeadline.distantFuture

    init(endpoint: Endpoint, configuration: FrontDoorConfiguration, pass: ConnectionPass = .ordinary) {
        self.endpoint = endpoint
        self.configuration = configuration
        self.pass = pass
        self.reader = RequestReader(limits: configuration.limits)
        self.clock = ConnectionClock(times: pass.times(configuration.times))
    }

    // MARK: The connection

    func handlerAdded(context: ChannelHandlerContext) {
        if context.channel.isActive { self.begin(context) }
    }

    func channelActive(context: ChannelHandlerContext) {
        self.begin(context)
        context.fireChannelActive()
    }

    private func begin(_ context: ChannelHandlerContext) {
        guard self.beat == nil else { return }
        self.isFromLoopback = context.channel.remoteAddress?.isLoopback ?? false
        self.scheduleBeat(context)
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.end()
        context.fireChannelInactive()
    }

    func handlerRemoved(context: ChannelHandlerContext) { self.end() }

    private func end() {
        self.machine.close()
        self.beat?.cancel()
        self.beat = nil
        self.closing?.cancel()
        self.closing = nil
        self.quiescing?.cancel()
        self.quiescing = nil
        self.taking?.cancel()
        self.taking = nil
        self.waiting = ByteBuffer()
        self.fail(self.answer)
        self.answer = nil
    }

    private func fail(_ answer: RouterAnswer?) {
        for promise in answer?.promises ?? [] { promise.fail(ChannelError.ioOnClosedChannel) }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // A socket that has failed is closed. The router hears of it as of any other end.
        self.perform(self.machine.close(), context)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        switch event {
        case let event as ChannelEvent where event == .inputClosed: self.perform(self.machine.inputClosed(), context)
        case is ChannelShouldQuiesceEvent:
            if self.taking == nil { self.watchTaking(context, since: nil) }
            let grace = self.configuration.times.stopIdle
            guard grace > .zero, self.machine.state == .reading, !self.hasPart, self.quiescing == nil else { return self.quiesce(context) }
            self.quiescing = context.eventLoop.assumeIsolated().scheduleTask(in: grace) { self.quiesce(context) }
        default: context.fireUserInboundEventTriggered(event)
        }
    }

    private func quiesce(_ context: ChannelHandlerContext) {
        self.perform(self.machine.quiesce(), context)
        guard self.machine.state != .closed else { return }
        // Whoever still takes earlier answers is not hurried by a request that has begun behind them.
        let isReading = self.machine.state == .reading && self.configuration.unsentBytes(context.channel) == 0
        self.close(in: isReading ? self.configuration.times.stopReading : self.configuration.times.stopWorking, context)
    }

    /// A stopping server waits for a client that takes its answers, and not for one that takes nothing of them.
    /// - Parameter before: what the client had taken at the last look, if it had not taken everything
    private func watchTaking(_ context: ChannelHandlerContext, since before: UInt64?) {
        guard self.machine.state != .closed else { return }
        let unsent = self.configuration.unsentBytes(context.channel)
        var taken: UInt64?
        if unsent > 0 {
            taken = self.configuration.takenBytes(context.channel) ?? (self.written &- UInt64(clamping: unsent))
            if taken == before { return self.perform(self.machine.close(), context) }
        } else if before != nil, self.machine.isQuiescing, self.machine.state == .reading {
            self.close(in: self.configuration.times.stopReading, context)
        }
        self.taking = context.eventLoop.assumeIsolated().scheduleTask(in: self.configuration.times.stopTaking) {
            self.watchTaking(context, since: taken)
        }
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        self.isWritable = context.channel.isWritable
        context.fireChannelWritabilityChanged()
        if self.isWritable { self.proceed(context) }
    }

    /// Does what the machine says.
    private func perform(_ step: ConnectionMachine.Step, _ context: ChannelHandlerContext) {
        switch step {
        case .wait: break
        case .proceed: self.proceed(context)
        case .end: self.endOutput(context)
        case .close: context.close(promise: nil)
        }
    }

    /// Closes the server's half behind the last answer. The client's half is closed when the client does so, and after a short while otherwise.
    private func endOutput(_ context: ChannelHandlerContext) {
        self.waiting = ByteBuffer()
        // Where the client has closed its half, SwiftNIO makes the end of this half the end of all, and drops what the socket has not taken by then. So the end
        // waits here until the socket has taken everything; a client that takes nothing is closed by the clock.
        guard self.machine.isInputClosed else { return self.closeOutput(context) }
        let taken = context.eventLoop.makePromise(of: Void.self)
        taken.futureResult.assumeIsolated().whenComplete { _ in self.closeOutput(context) }
        context.writeAndFlush(self.wrapOutboundOut(ByteBuffer()), promise: taken)
    }

    private func closeOutput(_ context: ChannelHandlerContext) {
        guard self.machine.state == .ending else { return }
        let lingering =
            self.machine.isQuiescing ? min(self.configuration.times.lingering, .milliseconds(100)) : self.configuration.times.lingering
        let promise = context.eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { result in
            // The channel has no halves, or the client has closed its own: there is nothing to wait for.
            if case .failure = result { return self.perform(self.machine.close(), context) }
            self.perform(self.machine.outputClosed(), context)
            if self.machine.state != .closed { self.close(in: lingering, context) }
        }
        context.close(mode: .output, promise: promise)
        self.resumeReading(context)
    }

    /// Lets the connection have a time of its own, whatever it had before.
    private func allow(_ time: TimeAmount, _ context: ChannelHandlerContext) {
        self.closing?.cancel()
        self.closing = nil
        self.closesAt = .distantFuture
        self.close(in: time, context)
    }

    /// Closes the connection after a time, whatever it does then. Of several such times the soonest counts.
    private func close(in time: TimeAmount, _ context: ChannelHandlerContext) {
        let deadline = context.eventLoop.now + time
        guard deadline < self.closesAt else { return }
        self.closing?.cancel()
        self.closesAt = deadline
        self.closing = context.eventLoop.assumeIsolated().scheduleTask(deadline: deadline) {
            self.perform(self.machine.close(), context)
        }
    }

    // MARK: Reading

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = self.unwrapInboundIn(data)
        switch self.machine.state {
        // What comes behind the last answer is dropped.
        case .ending, .closed: return
        case .reading, .working: break
        }
        if self.waiting.readableBytes == 0 {
            self.waiting = bytes
        } else {
            // The buffer keeps what was dealt with in front of the rest. Without this, a client that always has something waiting would make it grow by all
            // that it ever sends.
            if self.waiting.readerIndex > Self.maximumDealtWithBytes { self.waiting.discardReadBytes() }
            self.waiting.writeBuffer(&bytes)
        }
        guard self.waiting.readableBytes <= Self.maximumWaitingBytes else { return self.perform(self.machine.close(), context) }
        self.proceed(context)
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        // The router is told of each request by `handOn`, when all of it has come. Nothing is passed on here.
    }

    func read(context: ChannelHandlerContext) {
        if self.mayRead { context.read() } else { self.wantsRead = true }
    }

    /// Whether the socket may be read on. It stays registered for reading while a client waits for each answer before it asks again.
    private var mayRead: Bool {
        self.waiting.readableBytes == 0 || (self.machine.state == .reading && self.isWritable)
    }

    private func resumeReading(_ context: ChannelHandlerContext) {
        guard self.wantsRead, self.mayRead else { return }
        self.wantsRead = false
        context.read()
    }

    /// Takes requests until one is in work or what has come is dealt with. An answer that comes at once comes back here: this loop takes the next request itself,
    /// so that the stack does not grow.
    private func proceed(_ context: ChannelHandlerContext) {
        guard !self.isProceeding else { return }
        self.isProceeding = true
        defer { self.isProceeding = false }
        // Ends: each round takes a request, which takes bytes, or leaves.
        while self.machine.mayTake(isWritable: self.isWritable) {
            switch self.reader.next(&self.waiting) {
            case .more:
                let hasPart = self.hasPart
                if self.machine.isTruncated(hasPart: hasPart) {
                    self.refuse(.truncated, nil, context)
                } else {
                    self.perform(self.machine.needsMore(hasPart: hasPart), context)
                }
                if self.waiting.readableBytes == 0, self.waiting.capacity > 0 { self.waiting = ByteBuffer() }
                return self.resumeReading(context)
            case .continue: self.send(ByteBuffer(string: "HTTP/1.1 100 Continue\r\n\r\n"), context)
            case .refused(let refusal, let head): return self.refuse(refusal, head, context)
            case .request(var head, let body):
                self.requests &+= 1
                head.madeID = (self.number, self.requests)
                head.isFromLoopback = self.isFromLoopback
                guard self.pass.admits(head) else { return self.refuse(.full, head, context) }
                self.machine.took(closes: head.closes || self.pass.endsAfter(head))
                // The rest of a request that a stopping server waited for has come: it has the time of work now.
                if self.machine.isQuiescing { self.allow(self.configuration.times.stopWorking, context) }
                self.handOn(head, body, context)
            }
        }
        if self.waiting.readableBytes == 0, self.waiting.capacity > 0 { self.waiting = ByteBuffer() }
        self.resumeReading(context)
    }

    /// The size of the buffer of what waits, in bytes, with those that were dealt with.
    var waitingCapacity: Int { self.waiting.capacity }

    var hasPart: Bool { self.reader.isInsideRequest || self.waiting.readableBytes > 0 }

    private func handOn(_ head: RequestHead, _ body: ByteBuffer, _ context: ChannelHandlerContext) {
        if body.readableBytes <= self.endpoint.maximumBodyBytes, let match = self.endpoint.match(head) {
            let request = self.requests
            // Confined to this channel's loop, where the endpoint answers.
            self.endpoint.respond(to: match, head: head, body: body, on: context.eventLoop) { answer in
                self.write(answer, to: head, request, context)
            }
            return
        }
        self.answer = RouterAnswer(request: head, hasBody: head.methodText != "HEAD")
        context.fireChannelRead(self.wrapInboundOut(.head(head.httpRequest)))
        if body.readableBytes > 0 { context.fireChannelRead(self.wrapInboundOut(.body(body))) }
        context.fireChannelRead(self.wrapInboundOut(.end(nil)))
        context.fireChannelReadComplete()
    }

    // MARK: Answers of the hot path

    private func write(_ answer: HotPathAnswer, to head: RequestHead, _ request: UInt64, _ context: ChannelHandlerContext) {
        // An answer that is given twice, or after the connection's end, is dropped.
        guard self.machine.state == .working, self.requests == request, self.answers &+ 1 == request else { return }
        let isLast = self.machine.answers(hasMore: self.hasPart, isDraining: self.configuration.drain.isDraining)
        var bytes = context.channel.allocator.buffer(capacity: 208 + answer.lines.utf8.count + answer.body.count)
        bytes.writeStatusLine(answer.status)
        bytes.writeString(answer.lines)
        bytes.writeStaticString("Content-Length: ")
        bytes.writeString(String(answer.body.count))
        bytes.writeStaticString("\r\nDate: ")
        bytes.writeString(self.date.now())
        bytes.writeStaticString("\r\nX-Request-Id: ")
        bytes.writeRequestID(head.id)
        bytes.writeStaticString("\r\n")
        bytes.writeConnection(to: head, isLast: isLast)
        bytes.writeStaticString("\r\n")
        bytes.writeBytes(answer.body)
        self.send(bytes, context)
        self.finished(context)
    }

    private func send(_ bytes: ByteBuffer, _ context: ChannelHandlerContext) {
        self.written &+= UInt64(bytes.readableBytes)
        context.writeAndFlush(self.wrapOutboundOut(bytes), promise: nil)
    }

    func finished(_ context: ChannelHandlerContext) {
        self.answers &+= 1
        self.perform(self.machine.answered(), context)
    }

    // MARK: Refusals

    private func refuse(_ refusal: RequestRefusal, _ head: RequestHead?, _ context: ChannelHandlerContext) {
        guard self.machine.state == .reading else { return }
        self.configuration.metrics?.refused(refusal)
        let error = refusal.error(maximumBodyBytes: self.configuration.limits.bodyBytes)
        let request = (head ?? self.reader.head).map(RefusedRequest.init) ?? RefusedRequest(partial: self.waiting)
        let rendered = error.render(accept: request.accept, language: .negotiated(request.acceptLanguage))
        var bytes = context.channel.allocator.buffer(capacity: 512)
        bytes.writeStatusLine(.init(code: rendered.status, reasonPhrase: error.code.phrase))
        for field in rendered.headerFields { bytes.writeString("\(field.name.rawName): \(field.value)\r\n") }
        bytes.writeString("Content-Length: \(rendered.body.count)\r\nDate: \(self.date.now())\r\nX-Request-Id: ")
        bytes.writeRequestID(request.id.map { .given($0) } ?? .made(connection: self.number, number: self.requests &+ 1))
        bytes.writeStaticString("\r\nConnection: close\r\n\r\n")
        // The answer to a HEAD has no body.
        if !request.isHEAD { bytes.writeBytes(rendered.body) }
        self.send(bytes, context)
        self.perform(self.machine.refused(), context)
    }

    // MARK: Time

    private func scheduleBeat(_ context: ChannelHandlerContext) {
        let beat = self.pass.times(self.configuration.times).beat
        self.beat = context.eventLoop.assumeIsolated().scheduleTask(in: beat) { self.look(context) }
    }

    private func look(_ context: ChannelHandlerContext) {
        guard self.machine.state != .closed else { return }
        let unsent = self.configuration.unsentBytes(context.channel)
        let phase: ConnectionLook.Phase =
            switch self.machine.state {
            case .reading: self.hasPart || self.reader.hasEmptyLines ? .partial : .idle
            case .working, .ending, .closed: .working
            }
        let look = ConnectionLook(
            phase: phase,
            progress: self.requests &+ self.answers,
            unsent: unsent,
            sent: self.written &- UInt64(clamping: unsent)
        )
        if let verdict = self.clock.judge(look, at: context.eventLoop.now) {
            self.configuration.metrics?.closed(verdict)
            switch verdict {
            // A client that has sent empty lines alone has asked for nothing, and is closed without an answer.
            case .request where self.isWritable && self.hasPart: self.refuse(.timeout, nil, context)
            case .request, .idle, .answer: self.perform(self.machine.close(), context)
            }
            guard self.machine.state != .closed else { return }
        }
        self.scheduleBeat(context)
    }
}
