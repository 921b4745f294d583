import BlockingThreads

/// What went wrong at the broker. Whether a message may be there all the same is said by ``PublishOutcome``, not by an error.
public struct BrokerError: Error, Sendable, Hashable {
    /// The kind of failure.
    public enum Code: Sendable, Hashable {
        /// The address or a setting cannot be used.
        case invalidConfiguration
        /// A message cannot be encoded: a name over 255 bytes, or headers over ``OutgoingMessage/maximumHeaderBytes``. Nothing was sent.
        case invalidMessage
        /// No TCP connection, or no AMQP handshake in time.
        case connectFailed
        /// The user, the password or the right on the virtual host is wrong.
        case authenticationFailed
        /// A queue or exchange exists with other arguments (406 PRECONDITION_FAILED).
        case topologyMismatch(name: String)
        /// The broker closed the channel or the connection with this code.
        case refused(replyCode: Int)
        /// The connection broke.
        case connectionLost
        /// The broker did not answer within a bound.
        case timedOut
        /// There is no connection now. Nothing was sent.
        case notConnected
        /// The bound on waiting messages is reached. Nothing was sent.
        case overloaded
        /// It was closed. Nothing was sent.
        case closed
    }

    /// The kind of failure.
    public var code: Code
    /// The broker's or the library's own words. Never holds the password.
    public var message: String
    /// For `notConnected`: how long until the next attempt to connect.
    public var retryAfter: Duration?

    /// Makes an error.
    public init(code: Code, message: String, retryAfter: Duration? = nil) {
        self.code = code
        self.message = message
        self.retryAfter = retryAfter
    }

    /// Somebody must change something before it can work: the next attempt will fail in the same way.
    public var isPermanent: Bool {
        switch code {
        case .invalidConfiguration, .invalidMessage, .authenticationFailed, .topologyMismatch, .closed: true
        case .connectFailed, .refused, .connectionLost, .timedOut, .notConnected, .overloaded: false
        }
    }
}

extension BrokerError {
    /// `connectFailed`: the system has no thread or descriptor left for the connection.
    init(_ unavailable: ThreadUnavailable) { self.init(code: .connectFailed, message: unavailable.description) }
}

extension BrokerError: CustomStringConvertible {
    /// The code and the message in one line.
    public var description: String { "RabbitMQ \(code): \(message)" }
}
