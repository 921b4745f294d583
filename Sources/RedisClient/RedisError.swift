/// Why a command has no reply. What matters to a caller is `isOutcomeUnknown`: whether Redis may have run the command all the same.
public struct RedisError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What happened.
    public enum Code: Sendable, Hashable {
        /// There is no ready connection on this event loop. Nothing was sent.
        case notConnected
        /// The connection ended before the reply. `sent` is false only if not a byte of the command was handed to the socket.
        case connectionLost(sent: Bool)
        /// The deadline passed before the reply.
        case timedOut(sent: Bool)
        /// The caller cancelled the command before the reply.
        case cancelled(sent: Bool)
        /// Redis answered with an error.
        case server(RedisServerError)
        /// The peer does not speak RESP2, or a reply exceeds the bounds in the settings. The connection is closed.
        case protocolViolation
        /// Too many commands or bytes wait for replies on this connection. Nothing was sent.
        case queueFull
        /// The client or connection was closed by its owner. Nothing was sent.
        case closed
    }

    /// What happened.
    public let code: Code
    /// More about the cause for a log, never an argument of a command. Not compared.
    public let detail: String?

    /// - Parameters:
    ///   - code: what happened.
    ///   - detail: more about the cause, for a log.
    public init(_ code: Code, detail: String? = nil) {
        self.code = code
        self.detail = detail
    }

    /// Whether Redis may have run the command, or may still run it. A server's error is an answer: see
    /// `RedisServerError.Kind.isRefusedBeforeExecution` for what it says about a script's writes.
    public var isOutcomeUnknown: Bool {
        switch code {
        case .connectionLost(let sent), .timedOut(let sent), .cancelled(let sent): sent
        case .protocolViolation: true
        case .notConnected, .server, .queueFull, .closed: false
        }
    }

    /// The server's error reply, if it was one.
    public var serverError: RedisServerError? {
        if case .server(let error) = code { error } else { nil }
    }

    /// Compares the codes alone.
    public static func == (left: Self, right: Self) -> Bool { left.code == right.code }

    /// Hashes the code alone.
    public func hash(into hasher: inout Hasher) { hasher.combine(code) }

    /// For a log: never an argument of a command, nor the message of a server's error.
    public var description: String {
        let code =
            switch self.code {
            case .notConnected: "not connected"
            case .connectionLost(let sent): sent ? "connection lost after sending" : "connection lost before sending"
            case .timedOut(let sent): sent ? "timed out after sending" : "timed out before sending"
            case .cancelled(let sent): sent ? "cancelled after sending" : "cancelled before sending"
            case .server(let error): "server: \(error.kind)"
            case .protocolViolation: "protocol violation"
            case .queueFull: "queue full"
            case .closed: "closed"
            }
        guard let detail = self.detail else { return "redis: \(code)" }
        return "redis: \(code) (\(detail))"
    }
}
