/// What became of one published message.
public enum PublishOutcome: Sendable, Hashable {
    /// The broker has it durably, in at least one queue if it is mandatory.
    case confirmed
    /// It is mandatory and reaches no queue (312 NO_ROUTE). It is not stored.
    case returned(code: Int, text: String)
    /// The broker refused it (`basic.nack`), for example because the queue is full. It is not stored.
    case rejected
    /// It was written, then the connection was lost or no confirm came in time. It may be stored or not.
    case unknown
    /// It was never written. It is certainly not stored.
    case unsent
}
