/// The outcome of publishing one message.
public enum PublishOutcome: Sendable, Hashable {
    /// The broker has stored the message durably. A mandatory message is in at least one queue.
    case confirmed
    /// The message is mandatory and reaches no queue (312 NO_ROUTE). It is not stored.
    case returned(code: Int, text: String)
    /// The broker refused the message (`basic.nack`), for example because the queue is full. It is not stored.
    case rejected
    /// The message was written, then the connection was lost or no confirm came in time. It may be stored or not.
    case unknown
    /// The message was never written. It is certainly not stored.
    case unsent
}
