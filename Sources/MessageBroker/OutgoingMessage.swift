/// A message to publish.
public struct OutgoingMessage: Sendable, Hashable {
    /// Bounds the headers and properties on the wire, in bytes, because they must fit one frame.
    public static let maximumHeaderBytes = 64 << 10

    /// The exchange to publish to. The empty name is the default exchange, which routes to the queue that the routing key names.
    public var exchange: String
    /// The routing key.
    public var routingKey: String
    /// The content.
    public var body: [UInt8]
    /// An id of the message, by which a receiver can tell that it has received the message before.
    public var messageID: String?
    /// An id of what the message belongs to.
    public var correlationID: String?
    /// The kind of message.
    public var type: String?
    /// The MIME type of the body.
    public var contentType: String?
    /// The time, in seconds since 1970.
    public var timestamp: UInt64?
    /// Further headers, such as `traceparent`.
    public var headers: [String: HeaderValue]
    /// Whether the message survives a restart of the broker.
    public var isPersistent: Bool
    /// Whether the message comes back as ``PublishOutcome/returned(code:text:)`` if it reaches no queue.
    public var isMandatory: Bool

    /// Makes a message.
    public init(
        exchange: String,
        routingKey: String,
        body: [UInt8],
        messageID: String? = nil,
        correlationID: String? = nil,
        type: String? = nil,
        contentType: String? = "application/json",
        timestamp: UInt64? = nil,
        headers: [String: HeaderValue] = [:],
        isPersistent: Bool = true,
        isMandatory: Bool = true
    ) {
        self.exchange = exchange
        self.routingKey = routingKey
        self.body = body
        self.messageID = messageID
        self.correlationID = correlationID
        self.type = type
        self.contentType = contentType
        self.timestamp = timestamp
        self.headers = headers
        self.isPersistent = isPersistent
        self.isMandatory = isMandatory
    }

    /// A copy of a delivery for a dead-letter exchange, with the reason in a header. Publish it, and acknowledge the delivery once the copy is confirmed.
    /// - Parameters:
    ///   - reason: the text, of which 500 characters are kept
    ///   - header: the header that gets the reason
    public static func deadLetter(_ delivery: Delivery, to exchange: String, reason: String, header: String) -> OutgoingMessage {
        // The delivery and the reason come from other senders, and may exceed what can be published. The copy keeps what fits.
        var headers = delivery.headers.filter { $0.key.utf8.count <= 255 }
        if headers.encodedBytes > maximumHeaderBytes / 2 { headers = [:] }
        headers[header] = .string(String(reason.prefix(500)))
        return OutgoingMessage(
            exchange: exchange,
            routingKey: delivery.routingKey.shortened,
            body: delivery.body,
            messageID: delivery.messageID?.shortened,
            correlationID: delivery.correlationID?.shortened,
            type: delivery.type?.shortened,
            contentType: delivery.contentType?.shortened,
            timestamp: delivery.timestamp,
            headers: headers
        )
    }

    /// Checks the bounds of the wire format.
    ///
    /// - Throws: `invalidMessage`.
    func validate() throws(BrokerError) {
        for name in [exchange, routingKey, messageID, correlationID, type, contentType] {
            if let name, name.utf8.count > 255 {
                throw BrokerError(code: .invalidMessage, message: "a name of \(name.utf8.count) bytes: at most 255")
            }
        }
        if headers.isEmpty { return }
        guard headers.encodedBytes <= Self.maximumHeaderBytes, headers.keys.allSatisfy({ $0.utf8.count <= 255 }) else {
            throw BrokerError(
                code: .invalidMessage,
                message: "headers over \(Self.maximumHeaderBytes) bytes, or a header's name over 255 bytes"
            )
        }
        guard HeaderValue.table(headers).depth <= TableEncoding.maximumDepth + 1 else {
            throw BrokerError(code: .invalidMessage, message: "headers nested deeper than \(TableEncoding.maximumDepth)")
        }
    }
}

extension String {
    /// The beginning of the text, as much as fits into a name on the wire. Text that was repaired while it was read may be longer than it was on the wire.
    fileprivate var shortened: String {
        var text = self
        while text.utf8.count > 255 { text.removeLast() }
        return text
    }
}
