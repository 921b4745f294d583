import CDispatch
import CRabbitMQ
import Glibc
public import TransportSecurity

/// Where one node of the broker listens.
public struct BrokerAddress: Sendable, Hashable, CustomStringConvertible {
    /// A name or an IP address.
    public var host: String
    /// The TCP port.
    public var port: Int

    /// `host:port`, with an IPv6 address in brackets.
    public var description: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

/// Where the broker is, and how long calls may take.
///
/// Descriptions and dumps of this value show user, hosts, ports and virtual host, never the password.
public struct BrokerConfiguration: Sendable {
    /// The nodes of the broker, of which any one will do: from one to ``maximumAddresses``, each once.
    public let addresses: [BrokerAddress]
    let user: String
    let password: String
    let virtualHost: String
    /// How TLS is spoken with the broker; nil for no TLS.
    public let tls: TLSClientConfiguration?

    /// The name that the broker shows in its list of connections.
    public var connectionName = "stockgate"
    /// Bounds the TCP connection to one address, and the AMQP handshake once more. Name resolution, which the C library does, has no bound: give an IP address where that
    /// matters.
    public var connectTimeout: Duration = .seconds(3)
    /// Bounds each declaration, and each other call that sets up a connection.
    public var callTimeout: Duration = .seconds(5)
    /// The heartbeat interval that the client asks for, in whole seconds, at least one. A silent broker is noticed within twice that time.
    public var heartbeat: Duration = .seconds(10)
    /// Bounds a publish call. A message that is written but unconfirmed then is ``PublishOutcome/unknown``, and a new connection is opened.
    public var confirmTimeout: Duration = .seconds(5)
    /// How long the broker may refuse what is published to one exchange and routing key before the publisher tries a new connection, and the shortest time between two such
    /// replacements. What is published meanwhile is ``PublishOutcome/rejected``.
    public var rejectionPatience: Duration = .seconds(2)
    /// Bounds the messages that are written and not yet confirmed. Further messages wait in the publisher.
    public var maximumInFlight = 4096
    /// Bounds the messages that wait or are in flight. Beyond it a publish call is refused as `overloaded`.
    public var maximumQueued = 65536
    /// Bounds a received body, in bytes. A larger message is not kept: it goes to the dead-letter exchange, if its queue has one.
    public var maximumBodyBytes = 16 << 20
    /// The pause after the first round of failures in a row, in which each address was tried once. It doubles with each further one, up to ``maximumBackoff``, and is shortened by up to half at random.
    public var minimumBackoff: Duration = .milliseconds(100)
    /// Bounds the pause between attempts to connect.
    public var maximumBackoff: Duration = .seconds(5)

    /// How many addresses a broker may have.
    public static let maximumAddresses = 16

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
            throw Self.refusal("an address has no parameters here: amqp://user:password@host:port,host:port/vhost")
        }
        let texts = try Self.split(address)
        var parts: [Parts] = []
        for text in texts {
            guard let read = Parts(text), !read.host.isEmpty, (1...65535).contains(read.port) else {
                throw Self.refusal("the broker's address cannot be read: amqp://user:password@host:port,host:port/vhost")
            }
            parts.append(read)
        }
        // There is one part at least: the splitting of a text gives one, even of an empty text.
        guard let first = parts.first else { throw Self.refusal("there is no address") }
        let addresses = parts.map { BrokerAddress(host: $0.host, port: $0.port) }
        guard Set(addresses).count == addresses.count else { throw Self.refusal("the broker's address names one host and port twice") }
        do throws(TLSClientConfiguration.Refusal) {
            tls = isEncrypted ? try TLSClientConfiguration(query: query) : nil
        } catch {
            throw Self.refusal(error.description)
        }
        self.addresses = addresses
        user = first.user
        password = first.password
        virtualHost = first.virtualHost.isEmpty ? "/" : first.virtualHost
    }

    private static func refusal(_ words: String) -> BrokerError { BrokerError(code: .invalidConfiguration, message: words) }

    /// One address for each host, with everything else the same: what the C library reads.
    private static func split(_ address: Substring) throws(BrokerError) -> [String] {
        guard let scheme = address.firstRange(of: "://") else { return [String(address)] }
        // The hosts end at the first slash; a login ends at the last `@` before it. A comma elsewhere, in a password or a virtual host, parts nothing.
        let authority = address[scheme.upperBound...].prefix { $0 != "/" }
        let hosts = authority.lastIndex(of: "@").map { authority[authority.index(after: $0)...] } ?? authority
        let names = hosts.split(separator: ",", omittingEmptySubsequences: false)
        guard names.count > 1 else { return [String(address)] }
        guard names.count <= maximumAddresses else { throw refusal("the broker has at most \(maximumAddresses) addresses") }
        guard !names.contains(where: { $0.isEmpty || $0.hasPrefix(":") }) else { throw refusal("a host of the broker's address is empty") }
        return names.map { "\(address[..<hosts.startIndex])\($0)\(address[hosts.endIndex...])" }
    }

    /// What the C library reads of an address with one host.
    private struct Parts {
        var host: String
        var port: Int
        var user: String
        var password: String
        var virtualHost: String

        init?(_ address: String) {
            // The parser writes into its argument, and its result points into it.
            var characters = Array(address.utf8CString)
            let parsed = characters.withUnsafeMutableBufferPointer { buffer -> Parts? in
                var info = amqp_connection_info()
                guard amqp_parse_url(buffer.baseAddress, &info) == AMQP_STATUS_OK.rawValue else { return nil }
                guard let host = info.host, let user = info.user, let password = info.password, let vhost = info.vhost else { return nil }
                return Parts(
                    host: String(cString: host),
                    port: Int(info.port),
                    user: String(cString: user),
                    password: String(cString: password),
                    virtualHost: String(cString: vhost)
                )
            }
            guard let parsed else { return nil }
            self = parsed
        }

        private init(host: String, port: Int, user: String, password: String, virtualHost: String) {
            self.host = host
            self.port = port
            self.user = user
            self.password = password
            self.virtualHost = virtualHost
        }
    }

    /// The heartbeat interval in whole seconds, as the protocol has it.
    var heartbeatSeconds: Int32 { Int32(clamping: max(1, heartbeat.components.seconds)) }
}

extension BrokerConfiguration: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// User, hosts, ports and virtual host.
    public var description: String { shown(addresses.map(\.description).joined(separator: ",")) }

    /// The same with one address alone: where a trouble is that node's own.
    func description(of address: BrokerAddress) -> String { shown(address.description) }

    private func shown(_ place: String) -> String { "RabbitMQ \(user)@\(place)/\(virtualHost == "/" ? "" : virtualHost)" }

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
