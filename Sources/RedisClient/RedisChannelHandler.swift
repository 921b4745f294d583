import NIOCore
import NIOTransportSecurity

/// The shell around `ConnectionStateMachine`: owns hiredis' reader, the outgoing buffer and the one timer of a connection. Loop-bound.
///
/// Completions are called when the machine's step is over, so that a completion may send, cancel or close.
final class RedisChannelHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer
    typealias Completion = (Result<RedisValue, RedisError>) -> Void

    let eventLoop: any EventLoop
    private let counters: LoopCounters
    private let maximumOutgoingBytes: Int
    private let reader: ReplyReader?
    private var machine: ConnectionStateMachine<Completion>
    private var context: ChannelHandlerContext?
    /// Commands of this loop turn, not yet handed to the socket.
    private var outgoing = ByteBuffer()
    private var timer: Scheduled<Void>?
    /// The first reason that was given for closing.
    private(set) var closeReason: RedisError?
    /// What TLS had against the connection: a server may refuse a client's certificate after the handshake.
    private(set) var tlsFailure: TLSFailure?

    /// Called once, when the server has said that it is a replica: before the connection closes for that reason.
    private let onReadOnly: (() -> Void)?
    /// Whether a reply has said that the server is a replica.
    private var isReadOnly = false

    init(eventLoop: any EventLoop, configuration: RedisConfiguration, counters: LoopCounters, onReadOnly: (() -> Void)? = nil) {
        self.onReadOnly = onReadOnly
        self.eventLoop = eventLoop
        self.counters = counters
        maximumOutgoingBytes = configuration.maximumOutgoingBytes
        machine = ConnectionStateMachine(
            maximumPending: configuration.maximumPendingCommands,
            silenceLimit: TimeAmount(configuration.silenceLimit)
        )
        reader = ReplyReader(maximumBytes: configuration.maximumReplyBytes, maximumElements: configuration.maximumArrayElements)
    }

    var isOpen: Bool { machine.isOpen }

    /// The connection is open. The channel's connect promise succeeds before `channelActive` is fired, so whoever waited for that promise calls this.
    func connected() { machine.connected() }

    // MARK: Commands

    /// - Returns: nil if it was refused; `completion` has been called then.
    func send(
        deadline: NIODeadline,
        completion: @escaping Completion,
        encode: (inout ByteBuffer) -> Void
    ) -> RedisCommandID? {
        let hasRoom = outgoing.readableBytes < maximumOutgoingBytes && (context?.channel.isWritable ?? true)
        switch machine.enqueue(completion, deadline: deadline, now: eventLoop.now, hasRoom: hasRoom) {
        case .accept(let id, let scheduleFlush, let arm):
            encode(&outgoing)
            if scheduleFlush { eventLoop.assumeIsolated().execute { self.flush() } }
            if let arm { armTimer(arm) }
            return id
        case .reject(let completion, let error):
            if error.code == .queueFull { counters.queueFull.increment() }
            if case .timedOut = error.code { counters.timeouts.increment() }
            completion(.failure(error))
            return nil
        }
    }

    func cancel(_ id: RedisCommandID) {
        switch machine.cancel(id) {
        case .complete(let completion, let sent, let close):
            completion(.failure(RedisError(.cancelled(sent: sent))))
            if close { closeChannel() }
        case .tooLate: break
        }
    }

    private func flush() {
        guard machine.isOpen, let context = self.context, outgoing.readableBytes > 0 else { return }
        machine.flushed()
        counters.flushes.increment()
        counters.bytesSent.add(outgoing.readableBytes)
        counters.pending.store(machine.pendingCount)
        context.writeAndFlush(wrapOutboundOut(outgoing), promise: nil)
        // `clear` reuses the storage if the socket has taken all of it. Otherwise the channel keeps that storage, and a new one is made.
        outgoing.clear()
    }

    // MARK: Time

    private func armTimer(_ time: NIODeadline) {
        timer?.cancel()
        timer = eventLoop.assumeIsolated().scheduleTask(deadline: time) { self.timerFired() }
    }

    private func timerFired() {
        timer = nil
        switch machine.hitDeadline(now: eventLoop.now) {
        case .expire(let expired, let arm, let close):
            if let arm { armTimer(arm) }
            failTimedOut(expired)
            if close { closeChannel() }
        case .silent(let expired, let lost):
            closeReason = closeReason ?? RedisError(.connectionLost(sent: true), detail: "silent with commands outstanding")
            counters.silences.increment()
            failTimedOut(expired)
            failLost(lost, detail: "silent")
            closeChannel()
        case .ignore: break
        }
    }

    private func failTimedOut(_ failed: ConnectionStateMachine<Completion>.Failed) {
        self.counters.timeouts.add(failed.sent.count + failed.unsent.count)
        for completion in failed.sent { completion(.failure(RedisError(.timedOut(sent: true)))) }
        for completion in failed.unsent { completion(.failure(RedisError(.timedOut(sent: false)))) }
    }

    private func failLost(_ failed: ConnectionStateMachine<Completion>.Failed, detail: String?) {
        for completion in failed.sent { completion(.failure(RedisError(.connectionLost(sent: true), detail: detail))) }
        for completion in failed.unsent { completion(.failure(RedisError(.connectionLost(sent: false), detail: detail))) }
    }

    // MARK: Closing

    /// No further commands; closes once nobody waits for a reply, at the latest after the silence limit.
    func drain() {
        switch machine.drain() {
        case .close: closeChannel()
        case .wait, .ignore: break
        }
    }

    /// Closes now. What is pending fails with this reason's detail, as lost.
    func close(_ reason: RedisError) {
        closeReason = closeReason ?? reason
        let failed = machine.close(reason)
        closeChannel()
        failLost(failed, detail: reason.detail)
    }

    private func closeChannel() {
        timer?.cancel()
        timer = nil
        outgoing = ByteBuffer()
        counters.pending.store(0)
        context?.close(promise: nil)
    }

    // MARK: Channel

    func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        if context.channel.isActive { machine.connected() }
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        close(RedisError(.connectionLost(sent: true), detail: "handler removed"))
        self.context = nil
    }

    func channelActive(context: ChannelHandlerContext) {
        machine.connected()
        context.fireChannelActive()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let buffer = unwrapInboundIn(data)
        counters.bytesReceived.add(buffer.readableBytes)
        guard let reader = self.reader else {
            return close(RedisError(.protocolViolation, detail: "no memory for the reply reader"))
        }
        machine.receivedBytes(now: eventLoop.now)
        buffer.withUnsafeReadableBytes { bytes in
            var offset = 0
            while offset < bytes.count {
                let end = min(offset + ReplyReader.pieceSize, bytes.count)
                reader.feed(UnsafeRawBufferPointer(rebasing: bytes[offset..<end]))
                offset = end
                guard takeReplies(reader) else { return }
            }
        }
    }

    /// - Returns: false once the connection is closed.
    private func takeReplies(_ reader: ReplyReader) -> Bool {
        while true {
            switch reader.next() {
            case .needMore: return true
            case .failed(let text):
                counters.protocolViolations.increment()
                failProtocol(text)
                return false
            case .reply(let value):
                switch machine.receivedReply() {
                case .complete(let completion, let close):
                    if case .error(let error) = value {
                        if error.isReadOnly { isReadOnly = true }
                        completion(.failure(RedisError(.server(error))))
                    } else {
                        completion(.success(value))
                    }
                    if close { closeChannel() }
                case .drop: counters.lateReplies.increment()
                case .unexpected:
                    counters.protocolViolations.increment()
                    if case .error(let error) = value {
                        failProtocol("error reply without a command: \(error.kind)")
                    } else {
                        failProtocol("a reply without a command")
                    }
                    return false
                case .ignore: return false
                }
            }
        }
    }

    private func failProtocol(_ text: String) {
        let error = RedisError(.protocolViolation, detail: text)
        self.closeReason = self.closeReason ?? error
        let failed = self.machine.close(error)
        self.closeChannel()
        for completion in failed.sent { completion(.failure(error)) }
        for completion in failed.unsent { completion(.failure(RedisError(.connectionLost(sent: false), detail: text))) }
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        counters.pending.store(machine.pendingCount)
        // All replies of this read have been handled, so each command that they refused has its own error, which says that it did not run. Only then is the
        // connection closed; commands that have no reply yet end with an unknown outcome.
        if isReadOnly, machine.isOpen {
            onReadOnly?()
            close(RedisError(.connectionLost(sent: true), detail: "the server is a replica now"))
        }
        context.fireChannelReadComplete()
    }

    func channelInactive(context: ChannelHandlerContext) {
        close(RedisError(.connectionLost(sent: true), detail: "closed by the peer"))
        context.fireChannelInactive()
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if let failure = error as? TLSFailure { tlsFailure = failure }
        close(RedisError(.connectionLost(sent: true), detail: String(describing: error)))
    }
}
