// Answers one route in front of everything else on a connection: of the bytes that come, requests of the hot route are read and answered here, all others go on
// to the HTTP decoder and the router as they came.
//
// Invariant: answers leave in the order of their requests, and no byte is read twice or by nobody. A request is looked at only where the last one is known to
//   end; it is answered here only while the router owes no answer. While a hot one is worked on, what follows on the connection waits here.
//   Once a request comes whose end only the decoder knows (chunked, upgraded, malformed, the last of its connection), the rest of the connection is the decoder's.
// Bounds: a hot body is at most `maximumBodyBytes`, a head `HotRequestHead.maximumBytes`; others are the router's. While a hot request is worked on and anything
//   waits behind it, nothing more is read from the socket, so what waits is what one read brought (`maximumWaitingBytes` closes the connection). A connection
//   that brings nothing for `idleTimeout` is closed.
// Stop: the channel's end drops what waits.

import HTTPTypes
import NIOCore
import NIOHTTPTypes

/// What the two handlers of one connection share; both are on its event loop.
final class HotPathConnection {
    /// Requests that the router has and has not answered.
    var withRouter = 0
}

/// Stands behind the handlers that speak HTTP and tells the hot path when the router has answered.
final class HotPathObserver: ChannelOutboundHandler, RemovableChannelHandler {
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    private let connection: HotPathConnection

    init(connection: HotPathConnection) {
        self.connection = connection
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        let isEnd = if case .end = self.unwrapOutboundIn(data) { true } else { false }
        context.write(data, promise: promise)
        if isEnd { self.connection.withRouter -= 1 }
    }
}

/// Stands in front of the HTTP decoder.
final class HotPathHandler<Endpoint: HotPathEndpoint>: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private enum State {
        // The next byte begins a request. -> working, passing, lost
        case atRequest
        // So many bytes of a request that the router has are still to come. -> atRequest
        case passing(Int)
        // A hot request is worked on. -> atRequest
        case working
        // Where requests begin is the decoder's to know. Final.
        case lost
    }

    /// A hot body is small; a larger one is the router's to bound.
    static var maximumBodyBytes: Int { 4096 }
    static var maximumWaitingBytes: Int { 256 * 1024 }

    private let endpoint: Endpoint
    private let connection: HotPathConnection
    private let idleTimeout: TimeAmount
    private var state = State.atRequest
    /// Bytes that have come and are not dealt with: part of a request, or what follows one that is worked on.
    private var waiting = ByteBuffer()
    private var wantsRead = false
    private var hasPassed = false
    private var isGoingOn = false
    private var isClosed = false
    /// What is held back until the answer is out.
    private var heldEvents: [Any] = []
    private var heldClose: (mode: CloseMode, promise: EventLoopPromise<Void>?)?
    /// Since when nothing hot has come; nil if the last that came was the router's, whose handlers look after idle connections themselves.
    private var lastHot: NIODeadline?
    private var idleTask: Scheduled<Void>?
    private var isQuiescing = false
    private let date = HTTPDate()

    init(endpoint: Endpoint, connection: HotPathConnection, idleTimeout: TimeAmount) {
        self.endpoint = endpoint
        self.connection = connection
        self.idleTimeout = idleTimeout
    }

    // MARK: Inbound

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        var bytes = self.unwrapInboundIn(data)
        switch self.state {
        case .lost:
            self.pass(bytes, context)
        case .working:
            guard self.waiting.readableBytes + bytes.readableBytes <= Self.maximumWaitingBytes else {
                self.isClosed = true
                context.close(promise: nil)
                return
            }
            self.waiting.writeBuffer(&bytes)
        case .atRequest, .passing:
            if self.waiting.readableBytes == 0 { self.waiting = bytes } else { self.waiting.writeBuffer(&bytes) }
            self.goOn(context)
        }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        guard self.hasPassed else { return }
        self.hasPassed = false
        context.fireChannelReadComplete()
    }

    private func pass(_ bytes: ByteBuffer, _ context: ChannelHandlerContext) {
        self.hasPassed = true
        self.lastHot = nil
        context.fireChannelRead(self.wrapInboundOut(bytes))
    }

    /// Deals with what waits, until the next hot request is worked on. An answer that comes at once comes back here: this loop takes the next request
    /// itself, so that the stack does not grow.
    private func goOn(_ context: ChannelHandlerContext) {
        guard !self.isGoingOn else { return }
        self.isGoingOn = true
        defer { self.isGoingOn = false }
        // Ends: each round takes at least one byte or leaves.
        while self.waiting.readableBytes > 0, !self.isClosed {
            switch self.state {
            case .working: return
            case .lost: self.passAll(context)
            case .passing(let rest):
                // The part is there: it is at most what is readable.
                guard let part = self.waiting.readSlice(length: min(rest, self.waiting.readableBytes)) else { return }
                self.state = rest == part.readableBytes ? .atRequest : .passing(rest - part.readableBytes)
                self.pass(part, context)
            case .atRequest:
                switch HotRequestHead.read(self.waiting) {
                case .partial: return
                case .unclear:
                    self.state = .lost
                case .head(let head, let length, let contentLength):
                    guard contentLength <= Self.maximumBodyBytes, self.connection.withRouter == 0, let match = self.endpoint.match(head)
                    else {
                        self.connection.withRouter += 1
                        self.state = .passing(length + contentLength)
                        continue
                    }
                    guard self.waiting.readableBytes >= length + contentLength else { return }
                    self.waiting.moveReaderIndex(forwardBy: length)
                    guard let body = self.waiting.readSlice(length: contentLength) else { return }
                    self.work(on: match, head, body, context)
                }
            }
        }
        if self.waiting.readableBytes == 0, self.waiting.capacity > 0 { self.waiting = ByteBuffer() }
    }

    private func passAll(_ context: ChannelHandlerContext) {
        let all = self.waiting
        self.waiting = ByteBuffer()
        self.pass(all, context)
    }

    private func work(on match: Endpoint.Match, _ head: HotRequestHead, _ body: ByteBuffer, _ context: ChannelHandlerContext) {
        self.state = .working
        // Confined to this channel's loop, where the endpoint answers.
        self.endpoint.respond(to: match, head: head, body: body, on: context.eventLoop) { answer in
            self.write(answer, to: head, context)
        }
    }

    // MARK: The answer

    private func write(_ answer: HotPathAnswer, to head: HotRequestHead, _ context: ChannelHandlerContext) {
        guard case .working = self.state, !self.isClosed else { return }
        self.state = .atRequest
        self.lastHot = .now()
        let isLast = self.isQuiescing || self.heldClose != nil
        var bytes = context.channel.allocator.buffer(capacity: 160 + answer.lines.utf8.count + answer.body.count)
        if answer.status == .ok {
            bytes.writeStaticString("HTTP/1.1 200 OK\r\n")
        } else {
            bytes.writeString("HTTP/1.1 \(answer.status.code) \(answer.status.reasonPhrase)\r\n")
        }
        bytes.writeString(answer.lines)
        bytes.writeStaticString("Content-Length: ")
        bytes.writeString(String(answer.body.count))
        bytes.writeStaticString("\r\nDate: ")
        bytes.writeString(self.date.now())
        if let id = head.field("x-request-id"), ServerRequestContext.isRequestID(id) {
            bytes.writeStaticString("\r\nX-Request-Id: ")
            bytes.writeString(id)
        }
        if isLast { bytes.writeStaticString("\r\nConnection: close") }
        bytes.writeStaticString("\r\n\r\n")
        bytes.writeBytes(answer.body)
        context.writeAndFlush(self.wrapOutboundOut(bytes), promise: nil)
        self.release(context)
        guard !self.isClosed else { return }
        self.goOn(context)
        if case .working = self.state { return }
        if self.wantsRead {
            self.wantsRead = false
            context.read()
        }
    }

    /// Lets go of what was held back while a request was worked on.
    private func release(_ context: ChannelHandlerContext) {
        if !self.heldEvents.isEmpty {
            let events = self.heldEvents
            self.heldEvents = []
            for event in events { context.fireUserInboundEventTriggered(event) }
        }
        if let (mode, promise) = self.heldClose {
            self.heldClose = nil
            self.isClosed = true
            context.close(mode: mode, promise: promise)
        }
    }

    // MARK: Flow and end

    func read(context: ChannelHandlerContext) {
        // A client that waits for its answer before it asks again never gets here with anything waiting: its socket stays registered.
        if case .working = self.state, self.waiting.readableBytes > 0 {
            self.wantsRead = true
        } else {
            context.read()
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is ChannelShouldQuiesceEvent { self.isQuiescing = true }
        // A stopping server, and a client that sends no more, still owe and get the answer.
        if case .working = self.state {
            self.heldEvents.append(event)
        } else {
            context.fireUserInboundEventTriggered(event)
        }
    }

    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        if case .working = self.state, mode != .input {
            self.heldClose = (mode, promise)
            return
        }
        // The handlers behind this one see no hot requests and take the connection for idle: from here on that is looked after here.
        if let lastHot, !self.isQuiescing, mode == .all, .now() - lastHot < self.idleTimeout {
            promise?.succeed()
            if self.idleTask == nil { self.watchIdle(since: lastHot, context) }
            return
        }
        context.close(mode: mode, promise: promise)
    }

    private func watchIdle(since lastHot: NIODeadline, _ context: ChannelHandlerContext) {
        self.idleTask = context.eventLoop.assumeIsolated().scheduleTask(deadline: lastHot + self.idleTimeout) {
            self.idleTask = nil
            if self.isClosed { return }
            if case .working = self.state { return self.watchIdle(since: .now(), context) }
            // Without a hot request since, the last was the router's: its handlers watch again from its answer on.
            guard let lastHot = self.lastHot else { return }
            if .now() - lastHot < self.idleTimeout {
                self.watchIdle(since: lastHot, context)
            } else {
                context.close(promise: nil)
            }
        }
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.isClosed = true
        self.idleTask?.cancel()
        self.idleTask = nil
        self.waiting = ByteBuffer()
        self.heldClose?.promise?.succeed()
        self.heldClose = nil
        context.fireChannelInactive()
    }
}

#if canImport(Glibc)
    import Glibc
#elseif canImport(Darwin)
    import Darwin
#endif

/// The `Date` header's value, made once a second. Used on one event loop alone.
final class HTTPDate {
    private var second: time_t = 0
    private var text = ""

    /// The time now in the format of RFC 9110, section 5.6.7.
    func now() -> String {
        var clock = timespec()
        clock_gettime(CLOCK_REALTIME_COARSE, &clock)
        if clock.tv_sec != self.second {
            self.second = clock.tv_sec
            var parts = tm()
            gmtime_r(&clock.tv_sec, &parts)
            let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"]
            let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
            func two(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
            self.text =
                "\(days[Int(parts.tm_wday) % 7]), \(two(parts.tm_mday)) \(months[Int(parts.tm_mon) % 12]) \(1900 + parts.tm_year) "
                + "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec)) GMT"
        }
        return self.text
    }
}
