import BlockingThreads

/// What went wrong at the broker. Whether a message may have been stored anyway is told by ``PublishOutcome``, not by an error.
public struct BrokerError: Error, Sendable, Hashable {
    /// The kind of failure.
    public enum Code: Sendable, Hashable {
        /// The address or a setting cannot be used.
        case invalidConfiguration
        /// A message cannot be encoded: a name over 255 bytes, or headers over ``OutgoingMessage/maximumHeaderBytes``. Nothing was sent.
        case invalidMessage
        /// No TCP connection was made, or no AMQP handshake in time.
        case connectFailed
        /// The user or the password is wrong, or the user has no right on the virtual host.
        case authenticationFailed
        /// A queue or exchange exists with other arguments (406 PRECONDITION_FAILED).
        case topologyMismatch(name: String)
        /// The broker closed the channel or the connection with this code.
        case refused(replyCode: Int)
        /// The connection broke.
        case connectionLost
        /// The broker did not answer within a bound.
        case timedOut
        /// There is no connection at the moment. Nothing was sent.
        case notConnected
        /// The bound on waiting messages is reached. Nothing was sent.
        case overloaded
        /// The publisher or consumer was closed. Nothing was sent.
        case closed
    }

    /// The kind of failure.
    public var code: Code
    /// The words of the broker or of the library. They never hold the password.
    public var message: String
    /// For `notConnected`: the time until the next attempt to connect.
    public var retryAfter: Duration?

    /// Makes an error.
    public init(code: Code, message: String, retryAfter: Duration? = nil) {
        self.code = code
        self.message = message
        self.retryAfter = retryAfter
    }

    /// Whether every further attempt will fail in the same way, until an operator changes something.
    public var isPermanent: Bool {
        switch code {
        case .invalidConfiguration, .invalidMessage, .authenticationFailed, .topologyMismatch, .closed: true
        case .connectFailed, .refused, .connectionLost, .timedOut, .notConnected, .overloaded: false
        }
    }
}

extension BrokerError {
    /// A `connectFailed` for a system that has no thread or descriptor left for the connection.
    init(_ unavailable: ThreadUnavailable) { self.init(code: .connectFailed, message: unavailable.description) }
}

extension BrokerError: CustomStringConvertible {
    /// The code and the message in one line.
    public var description: String { "RabbitMQ \(code): \(message)" }
}
