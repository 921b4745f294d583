// How the router's answers are written. Invariant and bounds: as in FrontDoor.swift.

import HotPath
import HTTPTypes
import NIOCore
import NIOHTTPTypes

extension FrontDoor {
    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard self.machine.state == .working, var answer = self.answer else {
            promise?.fail(ChannelError.ioOnClosedChannel)
            return
        }
        // Only this copy is kept meanwhile, so that its buffer grows without being copied.
        self.answer = nil
        if let promise { answer.promises.append(promise) }
        switch self.unwrapOutboundIn(data) {
        case .head(let head): self.take(head, &answer)
        case .body(var part):
            guard answer.hasBody else { break }
            if answer.framing == .chunked { answer.gathered.writeChunk(&part) } else { answer.gathered.writeBuffer(&part) }
        case .end:
            if answer.framing == .chunked, answer.hasBody { answer.gathered.writeStaticString("0\r\n\r\n") }
            self.passOn(&answer, context)
            // The router flushes behind its last part, and the connection may end here.
            context.flush()
            return self.finished(context)
        }
        if answer.gathered.readableBytes >= Self.maximumGatheredBytes { self.passOn(&answer, context) }
        self.answer = answer
    }

    private func take(_ head: HTTPResponse, _ answer: inout RouterAnswer) {
        guard answer.framing == nil else { return }
        if head.status.kind == .informational {
            answer.gathered.writeStatusLine(head.status)
            answer.gathered.writeStaticString("\r\n")
            return
        }
        let hasMore = self.hasPart
        var isLast = self.machine.answers(hasMore: hasMore, isDraining: self.configuration.drain.isDraining)
        isLast = isLast || self.pass.endsAfter(answer.request, status: head.status.code)
        answer.framing = answer.gathered.writeAnswerHead(head, to: answer.request, isLast: &isLast)
        if isLast { self.machine.endAfterAnswer() }
    }

    private func passOn(_ answer: inout RouterAnswer, _ context: ChannelHandlerContext) {
        let promises = answer.promises
        answer.promises = []
        guard answer.gathered.readableBytes > 0 else {
            for promise in promises { promise.succeed() }
            return
        }
        var promise: EventLoopPromise<Void>?
        if let first = promises.first {
            promise = first
            for other in promises.dropFirst() { first.futureResult.cascade(to: other) }
        }
        self.written &+= UInt64(answer.gathered.readableBytes)
        context.write(self.wrapOutboundOut(answer.gathered), promise: promise)
        answer.gathered = ByteBuffer()
    }

    func flush(context: ChannelHandlerContext) {
        if var answer = self.answer {
            self.answer = nil
            self.passOn(&answer, context)
            self.answer = answer
        }
        context.flush()
    }

    /// The router's side ends the connection only when something is wrong with it: an answer that it cannot finish, or a stop that has run out of time.
    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        if mode == .output, self.machine.state == .ending || self.machine.state == .closed {
            promise?.succeed()
            return
        }
        self.machine.close()
        context.close(mode: .all, promise: promise)
    }
}
