/// A message that a ``Consumer`` received and has to acknowledge or to reject.
public struct Delivery: Sendable {
    /// The content.
    public let body: [UInt8]
    /// Names the message.
    public let messageID: String?
    /// Names what it belongs to.
    public let correlationID: String?
    /// What kind of message it is.
    public let type: String?
    /// The MIME type of the body.
    public let contentType: String?
    /// Seconds since 1970.
    public let timestamp: UInt64?
    /// The headers, without the one that a ``Publisher`` adds for itself.
    public let headers: [String: HeaderValue]
    /// The exchange it was published to.
    public let exchange: String
    /// The routing key it was published with.
    public let routingKey: String
    /// It was delivered before, perhaps to somebody else.
    public let isRedelivered: Bool
    /// Where its acknowledgement goes.
    let tag: DeliveryTag

    /// How often it came back without acknowledgement, as a quorum queue counts: 0 the first time.
    public var deliveryCount: Int { Int(clamping: headers["x-delivery-count"]?.integer ?? 0) }

    /// It came back twice at least: it may be what ended the processes that had it. Whoever handles such messages one at a time loses nothing else to them.
    public var isSuspect: Bool { deliveryCount >= 2 }

    /// Its offset in a stream.
    public var streamOffset: UInt64? { headers["x-stream-offset"]?.integer.flatMap { UInt64(exactly: $0) } }
}

/// A delivery tag together with the connection it belongs to: the broker counts from 1 on every channel.
struct DeliveryTag: Sendable, Hashable {
    var generation: UInt64
    var number: UInt64
}
