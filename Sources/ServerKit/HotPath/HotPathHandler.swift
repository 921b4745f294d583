// Answers one route in front of the router.
//
// Invariant: answers leave in the order of their requests. A hot request is taken only while none is with the router; while a hot one is
//   worked on, what follows on the connection waits here.
// Bounds: a hot body is at most `maximumBodyBytes` and says its length; others are the router's. While a hot request is worked on nothing more is
//   read from the socket, so what waits is what one read brought (`maximumWaitingBytes` closes the connection).
// Stop: the channel's end drops what waits.

import DequeModule
import HTTPTypes
import NIOCore
import NIOHTTPTypes

final class HotPathHandler<Endpoint: HotPathEndpoint>: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    private enum State {
        // -> collecting, passing
        case idle
        // A hot request's body comes. -> working, idle
        case collecting(Endpoint.Match, HTTPRequest, ByteBuffer)
        // -> idle
        case working
        // The router has this request's parts until its end. -> idle
        case passing
    }

    /// A hot body is small; a larger one is the router's to bound.
    static var maximumBodyBytes: Int { 4096 }
    static var maximumWaitingBytes: Int { 256 * 1024 }

    private let endpoint: Endpoint
    private var state = State.idle
    /// Requests that the router has not answered yet.
    private var withRouter = 0
    private var waiting: Deque<HTTPRequestPart> = []
    private var waitingBytes = 0
    private var wantsRead = false
    private var isGoingOn = false
    private var isClosed = false
    private let date = HTTPDate()

    init(endpoint: Endpoint) {
        self.endpoint = endpoint
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let part = self.unwrapInboundIn(data)
        if case .working = self.state {
            if case .body(let bytes) = part { self.waitingBytes += bytes.readableBytes }
            guard self.waitingBytes <= Self.maximumWaitingBytes else {
                self.isClosed = true
                context.close(promise: nil)
                return
            }
            self.waiting.append(part)
            return
        }
        self.receive(part, context)
    }

    private func receive(_ part: HTTPRequestPart, _ context: ChannelHandlerContext) {
        switch (self.state, part) {
        case (.idle, .head(let head)):
            if self.withRouter == 0, let length = head.headerFields[.contentLength].flatMap({ Int($0) }), length <= Self.maximumBodyBytes,
                // The last request of its connection: the router's side knows how to close.
                head.headerFields[.connection] == nil || head.headerFields[.connection] == "keep-alive",
                let match = self.endpoint.match(head)
            {
                self.state = .collecting(match, head, ByteBuffer())
            } else {
                self.withRouter += 1
                self.state = .passing
                context.fireChannelRead(self.wrapInboundOut(part))
            }
        case (.collecting(let match, let head, var body), .body(var bytes)):
            if body.readableBytes == 0 { body = bytes } else { body.writeBuffer(&bytes) }
            self.state = .collecting(match, head, body)
        case (.collecting(let match, let head, let body), .end):
            self.state = .working
            // Confined to this channel's loop, where the endpoint answers.
            self.endpoint.respond(to: match, head: head, body: body, on: context.eventLoop) { answer in
                self.write(answer, to: head, context)
            }
        case (.passing, .end):
            self.state = .idle
            context.fireChannelRead(self.wrapInboundOut(part))
        case (.passing, _), (.idle, _), (.collecting, .head), (.working, _):
            // Parts out of order cannot come from the HTTP decoder; if they did, they are the router's to refuse.
            context.fireChannelRead(self.wrapInboundOut(part))
        }
    }

    private func write(_ answer: HotPathAnswer, to request: HTTPRequest, _ context: ChannelHandlerContext) {
        guard case .working = self.state, !self.isClosed else { return }
        self.state = .idle
        var head = HTTPResponse(status: answer.status, headerFields: answer.headers)
        head.headerFields[.contentLength] = String(answer.body.count)
        head.headerFields[.date] = self.date.now()
        if let id = request.headerFields[.requestID], ServerRequestContext.isRequestID(id) { head.headerFields[.requestID] = id }
        context.write(self.wrapOutboundOut(.head(head)), promise: nil)
        context.write(self.wrapOutboundOut(.body(context.channel.allocator.buffer(bytes: answer.body))), promise: nil)
        context.writeAndFlush(self.wrapOutboundOut(.end(nil)), promise: nil)
        self.goOn(context)
    }

    /// Takes up what waited, until the next hot request is worked on.
    private func goOn(_ context: ChannelHandlerContext) {
        // An answer that comes at once would come back here: the loop below takes the next request itself, so the stack does not grow.
        guard !self.isGoingOn else { return }
        self.isGoingOn = true
        defer { self.isGoingOn = false }
        var passed = false
        while !self.waiting.isEmpty {
            if case .working = self.state { break }
            let part = self.waiting.removeFirst()
            if case .body(let bytes) = part { self.waitingBytes -= bytes.readableBytes }
            self.receive(part, context)
            passed = true
        }
        if passed { context.fireChannelReadComplete() }
        if case .working = self.state { return }
        if self.wantsRead {
            self.wantsRead = false
            context.read()
        }
    }

    func read(context: ChannelHandlerContext) {
        if case .working = self.state {
            self.wantsRead = true
        } else {
            context.read()
        }
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        if case .end = self.unwrapOutboundIn(data) { self.withRouter -= 1 }
        context.write(data, promise: promise)
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.isClosed = true
        self.waiting.removeAll()
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
        clock_gettime(CLOCK_REALTIME, &clock)
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
