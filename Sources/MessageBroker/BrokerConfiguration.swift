import CDispatch
import CRabbitMQ
import Glibc

/// Where the broker is and how long anything may take.
///
/// A description, a dump and a reflection show user, host, port and virtual host; never the password.
public struct BrokerConfiguration: Sendable {
    let host: String
    let port: Int
    let user: String
    let password: String
    let virtualHost: String

    /// Shown in the broker's list of connections.
    public var connectionName = "stockgate"
    /// Bound on the TCP connection, and again on the AMQP handshake. Name resolution is done by the C library and not under this bound: give an address
    /// where that matters.
    public var connectTimeout: Duration = .seconds(3)
    /// Bound on each declaration and on the other calls that set up a connection.
    public var callTimeout: Duration = .seconds(5)
    /// The interval asked of the broker, in whole seconds, at least one. A silent broker is noticed within twice that.
    public var heartbeat: Duration = .seconds(10)
    /// Bound on a publish call. What is written and unconfirmed then is ``PublishOutcome/unknown``, and the connection is opened anew.
    public var confirmTimeout: Duration = .seconds(5)
    /// Bound on messages that are written and not yet confirmed. Further ones wait in the publisher.
    public var maximumInFlight = 4096
    /// Bound on messages that wait or are in flight. Beyond it a publish call is refused as `overloaded`.
    public var maximumQueued = 65536
    /// Bound on a received body in bytes. A larger message is not kept: it goes to the dead-letter exchange, if its queue has one.
    public var maximumBodyBytes = 16 << 20
    /// The wait after the first failure in a row; it doubles with each one more, up to ``maximumBackoff``, and is shortened by up to half at random.
    public var minimumBackoff: Duration = .milliseconds(100)
    /// Bound on the wait between attempts to connect.
    public var maximumBackoff: Duration = .seconds(5)

    /// Reads `amqp://user:password@host:port/vhost`, its parts percent-encoded. Without a virtual host it is `/`, without a port 5672.
    ///
    /// - Throws: `invalidConfiguration`. The message does not repeat the string, which may hold a password.
    public init(url: String) throws(BrokerError) {
        // The C library says no more than that it cannot be read.
        let rest = url.firstRange(of: "://").map { url[$0.upperBound...] } ?? ""
        let behindLogin = rest.lastIndex(of: "@").map { rest[rest.index(after: $0)...] } ?? rest
        if behindLogin.contains("?") {
            throw BrokerError(
                code: .invalidConfiguration,
                message: "an address has no parameters here: amqp://user:password@host:port/vhost"
            )
        }
        // The parser writes into its argument, and its answer points into it.
        var characters = Array(url.utf8CString)
        let parsed = characters.withUnsafeMutableBufferPointer { buffer -> (String, Int, String, String, String, Bool)? in
            var info = amqp_connection_info()
            guard amqp_parse_url(buffer.baseAddress, &info) == AMQP_STATUS_OK.rawValue else { return nil }
            guard let host = info.host, let user = info.user, let password = info.password, let vhost = info.vhost else { return nil }
            return (
                String(cString: host), Int(info.port), String(cString: user), String(cString: password), String(cString: vhost),
                info.ssl != 0
            )
        }
        guard let (host, port, user, password, virtualHost, isEncrypted) = parsed, !host.isEmpty, (1...65535).contains(port) else {
            throw BrokerError(
                code: .invalidConfiguration,
                message: "the broker's address cannot be read: amqp://user:password@host:port/vhost"
            )
        }
        guard !isEncrypted else {
            throw BrokerError(code: .invalidConfiguration, message: "amqps is not supported: the broker is reached over a private network")
        }
        self.host = host
        self.port = port
        self.user = user
        self.password = password
        self.virtualHost = virtualHost.isEmpty ? "/" : virtualHost
    }

    /// Whole seconds, as the protocol wants them.
    var heartbeatSeconds: Int32 { Int32(clamping: max(1, heartbeat.components.seconds)) }
}

extension BrokerConfiguration: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// User, host, port and virtual host.
    public var description: String { "RabbitMQ \(user)@\(host):\(port)/\(virtualHost == "/" ? "" : virtualHost)" }

    /// The same as ``description``.
    public var debugDescription: String { description }

    /// Shows the ``description`` alone, so that a dump holds no password.
    public var customMirror: Mirror { Mirror(self, children: ["broker": description]) }
}

extension timeval {
    init(_ duration: Duration) {
        let (seconds, attoseconds) = max(duration, .zero).components
        self.init(tv_sec: Int(seconds), tv_usec: Int(attoseconds / 1_000_000_000_000))
    }
}
