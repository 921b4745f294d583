/// A message that a ``Consumer`` received. Its receiver has to acknowledge or reject it.
public struct Delivery: Sendable {
    /// The content.
    public let body: [UInt8]
    /// The sender's id of the message.
    public let messageID: String?
    /// The sender's id of what the message belongs to.
    public let correlationID: String?
    /// The kind of message.
    public let type: String?
    /// The MIME type of the body.
    public let contentType: String?
    /// The sender's time, in seconds since 1970.
    public let timestamp: UInt64?
    /// The headers, without the one that a ``Publisher`` adds for itself.
    public let headers: [String: HeaderValue]
    /// The exchange that the message was published to.
    public let exchange: String
    /// The routing key that the message was published with.
    public let routingKey: String
    /// Whether the message was delivered before, perhaps to another consumer.
    public let isRedelivered: Bool
    /// Where its acknowledgement goes.
    let tag: DeliveryTag

    /// How often the message came back without acknowledgement, as a quorum queue counts: 0 the first time.
    public var deliveryCount: Int { Int(clamping: headers["x-delivery-count"]?.integer ?? 0) }

    /// Whether the message came back at least twice. Such a message may be what ended the processes that had it. A consumer that handles suspects one at a time
    /// loses no other message to them.
    public var isSuspect: Bool { deliveryCount >= 2 }

    /// The offset of the message in a stream.
    public var streamOffset: UInt64? { headers["x-stream-offset"]?.integer.flatMap { UInt64(exactly: $0) } }
}

/// A delivery tag together with the connection that it belongs to. A tag alone is ambiguous, because the broker counts from 1 on every channel.
struct DeliveryTag: Sendable, Hashable {
    var generation: UInt64
    var number: UInt64
}
