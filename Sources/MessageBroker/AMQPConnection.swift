// One connection with one channel. rabbitmq-c opens it and makes the calls that set it up; these block the thread, within their bounds. From then on the
// library only encodes and decodes: its encoders fill one buffer, which goes out in one write, and its parser reads what was received. Nothing blocks then
// except `poll`.
//
// Invariant: the handle stays on the thread that made it and is freed in `deinit`. No pointer into the library's memory leaves `receive`. The library writes to
//   the socket only while the output buffer is empty, so that its frames never cut one of the buffer's frames in two.
// Stop: every error ends the connection.

import BlockingThreads
import CDispatch
import CRabbitMQ
import Glibc

/// A connection to the broker. Only one thread may use it.
final class AMQPConnection {
    /// What the broker sends.
    enum Event {
        case acknowledged(UInt64, multiple: Bool)
        case refused(UInt64, multiple: Bool)
        case returned(sequence: UInt64?, code: Int, text: String)
        case delivered(number: UInt64, Delivery)
        /// A delivery whose body exceeds the bound and was not kept.
        case oversized(number: UInt64)
        case consumerCancelled
        case blocked(reason: String)
        case unblocked
    }

    enum ContentMethod {
        case deliver(number: UInt64, isRedelivered: Bool, exchange: String, routingKey: String)
        case `return`(code: Int, text: String)
    }

    struct Properties {
        var messageID: String?
        var correlationID: String?
        var type: String?
        var contentType: String?
        var timestamp: UInt64?
        var headers: [String: HeaderValue] = [:]
        var sequence: UInt64?
    }

    /// The header by which a returned message is recognised, because a return has no delivery tag. Receivers do not see it.
    static let sequenceHeader = "x-publish-sequence"
    static let channel: UInt16 = 1
    private static let frameMaximum = 131072

    let handle: amqp_connection_state_t
    private let socket: Int32
    let output = OutputBuffer()
    let pool = EncodingPool()
    private let input: UnsafeMutableRawPointer
    private let inputCapacity = 256 << 10
    var assembler: ContentAssembler<ContentMethod, Properties>
    private var heartbeats: HeartbeatClock
    private var isInputPending = true
    /// Nil without TLS.
    private let tls: AMQPTLS?
    /// TLS has bytes, or its end, that `poll` does not see any more.
    private var isRecordPending = false
    /// TLS has to read before it can write on.
    private var isWriteHeldBack = false
    /// The frame size that client and broker agreed on, in bytes.
    private let frameMaximum: Int
    /// The number of this connection, which its deliveries carry.
    var generation: UInt64 = 0

    /// The number of bytes that wait to be written.
    var unwritten: Int { output.count }

    /// Connects to one address, logs in and opens the channel. Blocks within the connect timeout.
    init(_ configuration: BrokerConfiguration, at address: BrokerAddress) throws(BrokerError) {
        let place = configuration.description(of: address)
        guard let handle = amqp_new_connection() else { throw BrokerError(code: .connectFailed, message: "no memory for a connection") }
        var isOpen = false
        var tls: AMQPTLS?
        // OpenSSL says goodbye while its session is freed, and the callback then writes what it notes: the notes have to be there still.
        defer { withExtendedLifetime(tls) { if !isOpen { amqp_destroy_connection(handle) } } }
        guard let end = configuration.tls == nil ? amqp_tcp_socket_new(handle) : amqp_ssl_socket_new(handle) else {
            throw BrokerError(code: .connectFailed, message: "no memory for a socket")
        }
        if let settings = configuration.tls {
            do throws(BrokerError) {
                tls = try AMQPTLS(end, of: handle, settings, name: address.host)
            } catch {
                throw BrokerError(code: error.code, message: "\(place): \(error.message)")
            }
        }
        tls?.begin()
        var bound = timeval(configuration.connectTimeout)
        let status = amqp_socket_open_noblock(end, address.host, Int32(address.port), &bound)
        guard status == AMQP_STATUS_OK.rawValue else {
            let words = tls?.failure(isLate: status == AMQP_STATUS_TIMEOUT.rawValue) ?? Self.text(of: status)
            throw BrokerError(code: .connectFailed, message: "\(place): \(words)")
        }
        amqp_set_handshake_timeout(handle, &bound)
        var callBound = timeval(configuration.callTimeout)
        amqp_set_rpc_timeout(handle, &callBound)

        let capabilities: [String: HeaderValue] = [
            "authentication_failure_close": true, "basic.nack": true, "connection.blocked": true, "consumer_cancel_notify": true,
            "publisher_confirms": true,
        ]
        var properties = pool.table(["capabilities": .table(capabilities), "connection_name": .string(configuration.connectionName)])
        let login = crabbitmq_login_plain(
            handle,
            configuration.virtualHost,
            Int32(Self.frameMaximum),
            configuration.heartbeatSeconds,
            &properties,
            configuration.user,
            configuration.password
        )
        if let failure = Self.failure(login) {
            // 403: wrong user or password; 530: no right on the virtual host. Every node of a cluster refuses that in the same words, so that the text names them all.
            switch failure.code {
            case .refused(403), .refused(530):
                throw BrokerError(code: .authenticationFailed, message: "\(configuration): \(failure.message)")
            case .connectionLost:
                let words = tls?.failureAfterHandshake ?? failure.message
                throw BrokerError(code: .connectFailed, message: "\(place): \(words)")
            default:
                let words = tls?.refusalOfCertificate ?? failure.message
                throw BrokerError(code: .connectFailed, message: "\(place): \(words)")
            }
        }
        _ = amqp_channel_open(handle, Self.channel)
        if let failure = Self.failure(amqp_get_rpc_reply(handle)) { throw failure }

        self.handle = handle
        self.tls = tls
        socket = amqp_get_sockfd(handle)
        frameMaximum = min(Self.frameMaximum, max(4096, Int(amqp_get_frame_max(handle))))
        input = .allocate(byteCount: inputCapacity, alignment: 16)
        assembler = ContentAssembler(maximumBodyBytes: configuration.maximumBodyBytes)
        heartbeats = HeartbeatClock(interval: .seconds(Int(amqp_get_heartbeat(handle))), now: .now)
        isOpen = true
    }

    deinit {
        amqp_destroy_connection(handle)
        input.deallocate()
    }

    // MARK: Writing

    /// Ends the phase of blocking calls. The library sent the heartbeats until here; from now on this class sends them.
    func beginServing() {
        heartbeats.sent(at: .now)
        heartbeats.received(at: .now)
    }

    /// Appends a message. Returns false, with nothing appended, if the message cannot be encoded.
    func append(_ message: OutgoingMessage, sequence: UInt64) -> Bool {
        pool.recycle()
        var properties = amqp_basic_properties_t()
        var flags = AMQP_BASIC_DELIVERY_MODE_FLAG
        properties.delivery_mode = message.isPersistent ? 2 : 1
        if let text = message.contentType {
            flags |= AMQP_BASIC_CONTENT_TYPE_FLAG
            properties.content_type = pool.bytes(text)
        }
        if let text = message.messageID {
            flags |= AMQP_BASIC_MESSAGE_ID_FLAG
            properties.message_id = pool.bytes(text)
        }
        if let text = message.correlationID {
            flags |= AMQP_BASIC_CORRELATION_ID_FLAG
            properties.correlation_id = pool.bytes(text)
        }
        if let text = message.type {
            flags |= AMQP_BASIC_TYPE_FLAG
            properties.type = pool.bytes(text)
        }
        if let seconds = message.timestamp {
            flags |= AMQP_BASIC_TIMESTAMP_FLAG
            properties.timestamp = seconds
        }
        if message.isMandatory || !message.headers.isEmpty {
            flags |= AMQP_BASIC_HEADERS_FLAG
            let own: (String, HeaderValue)? = message.isMandatory ? (Self.sequenceHeader, .integer(Int64(bitPattern: sequence))) : nil
            properties.headers = pool.table(message.headers, adding: own)
        }
        properties._flags = amqp_flags_t(flags)
        let method = amqp_basic_publish_t(
            ticket: 0,
            exchange: pool.bytes(message.exchange),
            routing_key: pool.bytes(message.routingKey),
            mandatory: message.isMandatory ? 1 : 0,
            immediate: 0
        )
        let mark = output.mark
        guard
            output.append(method: AMQP_BASIC_PUBLISH_METHOD, channel: Self.channel, method),
            output.append(properties: &properties, channel: Self.channel, body: message.body, frameMaximum: frameMaximum)
        else {
            output.takeBack(to: mark)
            return false
        }
        return true
    }

    func append(_ frame: SettlementTracker.Frame) throws(BrokerError) {
        let isEncoded =
            switch frame {
            case .acknowledge(let tag, let multiple):
                output.append(
                    method: AMQP_BASIC_ACK_METHOD,
                    channel: Self.channel,
                    amqp_basic_ack_t(delivery_tag: tag, multiple: multiple ? 1 : 0)
                )
            case .reject(let tag, let requeue):
                output.append(
                    method: AMQP_BASIC_REJECT_METHOD,
                    channel: Self.channel,
                    amqp_basic_reject_t(delivery_tag: tag, requeue: requeue ? 1 : 0)
                )
            }
        guard isEncoded else { throw BrokerError(code: .connectionLost, message: "an acknowledgement could not be encoded") }
    }

    /// Writes as many bytes as the socket takes now.
    func flush() throws(BrokerError) {
        if let tls { return try flush(tls) }
        while output.count > 0 {
            let bytes = output.unwritten
            // MSG_NOSIGNAL: a broken connection must be an error here, not a signal that ends the process.
            let sent = send(socket, bytes.baseAddress, bytes.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
            if sent > 0 {
                output.wrote(sent)
                heartbeats.sent(at: .now)
            } else if sent < 0, errno == EINTR {
                continue
            } else if sent < 0, errno == EAGAIN || errno == EWOULDBLOCK {
                return
            } else {
                throw BrokerError(code: .connectionLost, message: "writing failed (errno \(errno))")
            }
        }
    }

    private func flush(_ tls: AMQPTLS) throws(BrokerError) {
        isWriteHeldBack = false
        // Ends: each round writes bytes or leaves.
        while output.count > 0 {
            switch tls.write(UnsafeRawBufferPointer(output.unwritten)) {
            case .done(let count):
                output.wrote(count)
                heartbeats.sent(at: .now)
            case .wantsWrite: return
            case .wantsRead:
                isWriteHeldBack = true
                return
            case .ended: throw BrokerError(code: .connectionLost, message: "the broker closed the connection")
            case .failed(let words): throw BrokerError(code: .connectionLost, message: "writing failed (\(words))")
            }
        }
    }

    // MARK: Waiting and reading

    /// Writes a heartbeat if one is due, then sleeps until the socket can be read or written, the wake descriptor is signalled, or `end` comes.
    /// - Returns: whether there may be something to read
    func wait(until end: ContinuousClock.Instant, or wake: WakeDescriptor) throws(BrokerError) -> Bool {
        let now = ContinuousClock.now
        var limit = end
        switch heartbeats.due(at: now) {
        case .wait(let until): limit = min(limit, until)
        case .dead: throw BrokerError(code: .timedOut, message: "the broker has been silent for two heartbeat intervals")
        case .send:
            // Other bytes that wait will serve as the heartbeat, once the socket takes them.
            if output.count == 0 { output.appendHeartbeat() }
            try flush()
            limit = min(limit, now + .seconds(1))
        }
        var entries = (
            pollfd(fd: socket, events: Int16(POLLIN) | (output.count > 0 && !isWriteHeldBack ? Int16(POLLOUT) : 0), revents: 0),
            pollfd(fd: wake.descriptor, events: Int16(POLLIN), revents: 0)
        )
        let milliseconds = isInputPending || isRecordPending ? 0 : Int32(clamping: (limit - now).wholeMilliseconds)
        let ready = withUnsafeMutablePointer(to: &entries) {
            $0.withMemoryRebound(to: pollfd.self, capacity: 2) { poll($0, 2, milliseconds) }
        }
        guard ready >= 0 || errno == EINTR else { throw BrokerError(code: .connectionLost, message: "poll failed (errno \(errno))") }
        if ready > 0, entries.1.revents != 0 { wake.reset() }
        return isInputPending || isRecordPending || (ready > 0 && entries.0.revents & ~Int16(POLLOUT) != 0)
    }

    /// Reads once, at most one buffer, and passes every event to `handleEvent`.
    func receive(_ handleEvent: (Event) throws(BrokerError) -> Void) throws(BrokerError) {
        if isInputPending {
            try drainLibrary(handleEvent)
            isInputPending = false
        }
        let count = if let tls { try read(tls) } else { try read() }
        guard count > 0 else { return }
        heartbeats.received(at: .now)
        var consumed = 0
        while consumed < count {
            var frame = amqp_frame_t()
            let used = amqp_handle_input(handle, amqp_bytes_t(len: count - consumed, bytes: input + consumed), &frame)
            guard used > 0 else {
                throw BrokerError(code: .connectionLost, message: "the broker's bytes cannot be read: \(Self.text(of: used))")
            }
            consumed += Int(used)
            // Type 0 means that the frame is incomplete and more bytes are needed.
            if frame.frame_type != 0 { try received(frame, handleEvent) }
        }
    }

    /// Reads the plain socket. 0: there is nothing now.
    private func read() throws(BrokerError) -> Int {
        let count = recv(socket, input, inputCapacity, Int32(MSG_DONTWAIT))
        if count == 0 { throw BrokerError(code: .connectionLost, message: "the broker closed the connection") }
        if count < 0 {
            if errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR { return 0 }
            throw BrokerError(code: .connectionLost, message: "reading failed (errno \(errno))")
        }
        return count
    }

    /// Reads whole records until there is nothing or the buffer is full: what TLS keeps decrypted, `poll` would not tell of.
    private func read(_ tls: AMQPTLS) throws(BrokerError) -> Int {
        var count = 0
        isRecordPending = false
        // Ends: each round reads bytes or leaves.
        while count < inputCapacity {
            switch tls.read(into: input + count, inputCapacity - count) {
            case .done(let more): count += more
            case .wantsRead, .wantsWrite: return count
            // What came before the end counts; the next read meets the end again.
            case .ended where count > 0, .failed where count > 0:
                isRecordPending = true
                return count
            case .ended: throw BrokerError(code: .connectionLost, message: "the broker closed the connection")
            case .failed(let words): throw BrokerError(code: .connectionLost, message: "reading failed (\(words))")
            }
        }
        isRecordPending = true
        return count
    }

    /// Handles the frames that the library read or decoded while it waited for the answer to a call.
    private func drainLibrary(_ handleEvent: (Event) throws(BrokerError) -> Void) throws(BrokerError) {
        while amqp_frames_enqueued(handle) != 0 || amqp_data_in_buffer(handle) != 0 {
            var frame = amqp_frame_t()
            var none = timeval()
            let status = amqp_simple_wait_frame_noblock(handle, &frame, &none)
            if status == AMQP_STATUS_TIMEOUT.rawValue { return }
            guard status == AMQP_STATUS_OK.rawValue else { throw BrokerError(code: .connectionLost, message: Self.text(of: status)) }
            try received(frame, handleEvent)
        }
    }
}
