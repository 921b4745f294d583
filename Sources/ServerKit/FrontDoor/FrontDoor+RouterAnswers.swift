// How the router's answers are written. Invariant and bounds: as in FrontDoor.swift.

import HotPath
import HTTPTypes
import NIOCore
import NIOHTTPTypes

extension FrontDoor {
    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        guard machine.state == .working, var answer = self.answer else {
            promise?.fail(ChannelError.ioOnClosedChannel)
            return
        }
        // Only this copy is kept meanwhile, so that its buffer grows without being copied.
        self.answer = nil
        if let promise { answer.promises.append(promise) }
        switch unwrapOutboundIn(data) {
        case .head(let head): take(head, &answer)
        case .body(var part):
            guard answer.hasBody else { break }
            if answer.framing == .chunked { answer.gathered.writeChunk(&part) } else { answer.gathered.writeBuffer(&part) }
        case .end:
            if answer.framing == .chunked, answer.hasBody { answer.gathered.writeStaticString("0\r\n\r\n") }
            passOn(&answer, context)
            // The router flushes after its last part, and the connection may end here.
            context.flush()
            return finished(context)
        }
        if answer.gathered.readableBytes >= Self.maximumGatheredBytes { passOn(&answer, context) }
        self.answer = answer
    }

    private func take(_ head: HTTPResponse, _ answer: inout RouterAnswer) {
        guard answer.framing == nil else { return }
        if head.status.kind == .informational {
            answer.gathered.writeStatusLine(head.status)
            answer.gathered.writeStaticString("\r\n")
            return
        }
        let hasMore = hasPart
        var isLast = machine.answers(hasMore: hasMore, isDraining: configuration.drain.isDraining)
        isLast = isLast || pass.endsAfter(answer.request, status: head.status.code)
        answer.framing = answer.gathered.writeAnswerHead(head, to: answer.request, isLast: &isLast)
        if isLast { machine.endAfterAnswer() }
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
        written &+= UInt64(answer.gathered.readableBytes)
        context.write(wrapOutboundOut(answer.gathered), promise: promise)
        answer.gathered = ByteBuffer()
    }

    func flush(context: ChannelHandlerContext) {
        if var answer = self.answer {
            self.answer = nil
            passOn(&answer, context)
            self.answer = answer
        }
        context.flush()
    }

    /// The router's side ends the connection only when something is wrong with it: an answer that it cannot finish, or a stop that has run out of time.
    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        if mode == .output, machine.state == .ending || machine.state == .closed {
            promise?.succeed()
            return
        }
        machine.close()
        close(context, promise)
    }
}
