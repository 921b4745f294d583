import HTTPTypes
import NIOCore
import NIOHTTPTypes

/// Keeps oversize bodies away from the router without reading all of them.
///
/// Invariant: of one request no more than `maximumBytes` and one part reach the router. A body whose `Content-Length` is too
/// large is cut off at once, a chunked one when it grows too large; either way the router sees the end of the request and
/// answers 413 by itself. The connection is then closed as RFC 9112, 9.6 advises: answer, half close, and drop what still
/// comes for at most `lingering`, or the answer could be lost to a reset.
final class RequestBodyBound: ChannelDuplexHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPRequestPart
    typealias InboundOut = HTTPRequestPart
    typealias OutboundIn = HTTPResponsePart
    typealias OutboundOut = HTTPResponsePart

    private enum State {
        /// -> dropping, by a request that is too large.
        case passing(received: Int)
        /// Inbound parts are dropped. -> closing, when the answer is written.
        case dropping
        /// The answer is out, the connection is about to close. Final.
        case closing
    }

    private let maximumBytes: Int
    private let lingering: TimeAmount
    private var state = State.passing(received: 0)
    /// Requests that the router has and has not answered. The oversize one is the last of them.
    private var unanswered = 0

    init(maximumBytes: Int, lingering: TimeAmount = .seconds(1)) {
        self.maximumBytes = maximumBytes
        self.lingering = lingering
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard case .passing(let received) = self.state else { return }
        switch self.unwrapInboundIn(data) {
        case .head(let head):
            self.unanswered += 1
            self.state = .passing(received: 0)
            context.fireChannelRead(data)
            if let length = head.headerFields[.contentLength].flatMap({ Int($0) }), length > self.maximumBytes {
                self.state = .dropping
                context.fireChannelRead(self.wrapInboundOut(.end(nil)))
            }
        case .body(let buffer):
            let total = received + buffer.readableBytes
            self.state = .passing(received: total)
            context.fireChannelRead(data)
            if total > self.maximumBytes {
                self.state = .dropping
                context.fireChannelRead(self.wrapInboundOut(.end(nil)))
            }
        case .end:
            context.fireChannelRead(data)
        }
    }

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard case .dropping = self.state, self.unanswered == 1 else {
            if case .end = self.unwrapOutboundIn(data) { self.unanswered -= 1 }
            context.write(data, promise: promise)
            return
        }
        switch self.unwrapOutboundIn(data) {
        case .head(var head):
            head.headerFields[.connection] = "close"
            context.write(self.wrapOutboundOut(.head(head)), promise: promise)
        case .body:
            context.write(data, promise: promise)
        case .end:
            self.unanswered = 0
            self.state = .closing
            context.writeAndFlush(data, promise: promise)
            context.close(mode: .output, promise: nil)
            let channel = context.channel
            let timer = context.eventLoop.scheduleTask(in: self.lingering) { channel.close(promise: nil) }
            channel.closeFuture.whenComplete { _ in timer.cancel() }
        }
    }
}
