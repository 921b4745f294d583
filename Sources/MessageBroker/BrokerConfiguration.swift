import CDispatch
import CRabbitMQ
import Glibc
public import TransportSecurity

/// Where the broker is, and how long calls may take.
///
/// Descriptions and dumps of this value show user, host, port and virtual host, never the password.
public struct BrokerConfiguration: Sendable {
    let host: String
    let port: Int
    let user: String
    let password: String
    let virtualHost: String
    /// How TLS is spoken with the broker; nil for no TLS.
    public let tls: TLSClientConfiguration?

    /// The name that the broker shows in its list of connections.
    public var connectionName = "stockgate"
    /// Bounds the TCP connection, and the AMQP handshake once more. Name resolution, which the C library does, has no bound: give an IP address where that
    /// matters.
    public var connectTimeout: Duration = .seconds(3)
    /// Bounds each declaration, and each other call that sets up a connection.
    public var callTimeout: Duration = .seconds(5)
    /// The heartbeat interval that the client asks for, in whole seconds, at least one. A silent broker is noticed within twice that time.
    public var heartbeat: Duration = .seconds(10)
    /// Bounds a publish call. A message that is written but unconfirmed then is ``PublishOutcome/unknown``, and a new connection is opened.
    public var confirmTimeout: Duration = .seconds(5)
    /// Bounds the messages that are written and not yet confirmed. Further messages wait in the publisher.
    public var maximumInFlight = 4096
    /// Bounds the messages that wait or are in flight. Beyond it a publish call is refused as `overloaded`.
    public var maximumQueued = 65536
    /// Bounds a received body, in bytes. A larger message is not kept: it goes to the dead-letter exchange, if its queue has one.
    public var maximumBodyBytes = 16 << 20
    /// The pause after the first failure in a row. It doubles with each further one, up to ``maximumBackoff``, and is shortened by up to half at random.
    public var minimumBackoff: Duration = .milliseconds(100)
    /// Bounds the pause between attempts to connect.
    public var maximumBackoff: Duration = .seconds(5)

    /// Reads `amqp://user:password@host:port/vhost`, with percent-encoded parts. The virtual host is `/` if none is given, and the port 5672.
    ///
    /// The same with `amqps://` for TLS: without a port 5671, and `?sslmode=…&sslrootcert=…&sslcert=…&sslkey=…` may follow (`TLSClientConfiguration`).
    /// - Throws: `invalidConfiguration`. The message does not repeat the string, which may hold a password.
    public init(url: String) throws(BrokerError) {
        // An address with parameters gets a message of its own, because the C library would only say that the address cannot be read.
        let rest = url.firstRange(of: "://").map { url[$0.upperBound...] } ?? ""
        let behindLogin = rest.lastIndex(of: "@").map { rest[rest.index(after: $0)...] } ?? rest
        var address = url[...]
        var query = ""[...]
        if let mark = behindLogin.firstIndex(of: "?") {
            address = url[..<mark]
            query = url[mark...].dropFirst()
        }
        let isEncrypted = url.prefix(8).lowercased() == "amqps://"
        if !isEncrypted, address.endIndex < url.endIndex {
            throw BrokerError(
                code: .invalidConfiguration,
                message: "an address has no parameters here: amqp://user:password@host:port/vhost"
            )
        }
        // The parser writes into its argument, and its result points into it.
        var characters = Array(String(address).utf8CString)
        let parsed = characters.withUnsafeMutableBufferPointer { buffer -> (String, Int, String, String, String)? in
            var info = amqp_connection_info()
            guard amqp_parse_url(buffer.baseAddress, &info) == AMQP_STATUS_OK.rawValue else { return nil }
            guard let host = info.host, let user = info.user, let password = info.password, let vhost = info.vhost else { return nil }
            return (
                String(cString: host), Int(info.port), String(cString: user), String(cString: password), String(cString: vhost)
            )
        }
        guard let (host, port, user, password, virtualHost) = parsed, !host.isEmpty, (1...65535).contains(port) else {
            throw BrokerError(
                code: .invalidConfiguration,
                message: "the broker's address cannot be read: amqp://user:password@host:port/vhost"
            )
        }
        do throws(TLSClientConfiguration.Refusal) {
            self.tls = isEncrypted ? try TLSClientConfiguration(query: query) : nil
        } catch {
            throw BrokerError(code: .invalidConfiguration, message: error.description)
        }
        self.host = host
        self.port = port
        self.user = user
        self.password = password
        self.virtualHost = virtualHost.isEmpty ? "/" : virtualHost
    }

    /// The heartbeat interval in whole seconds, as the protocol has it.
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
