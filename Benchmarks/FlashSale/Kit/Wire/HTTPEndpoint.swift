import Glibc
public import NIOCore
import NIOSSL

/// How a server's certificate is judged.
public struct TLSOptions: Equatable, Sendable {
    /// A PEM file whose certificates are trusted instead of the system's.
    public var certificateAuthority: String?
    /// Whether any certificate is taken: for a test server alone.
    public var isUnverified = false

    /// The system's roots, names checked.
    public init() {}

    /// Reads the file of certificates once, so that a wrong one is named before anything is sent.
    /// - Throws: `PlanError` that names the file.
    public func check() throws(PlanError) {
        guard let file = certificateAuthority else { return }
        guard access(file, R_OK) == 0 else { throw PlanError("--cacert: \(file) cannot be read: \(String(cString: strerror(errno)))") }
        guard let certificates = try? NIOSSLCertificate.fromPEMFile(file), !certificates.isEmpty else {
            throw PlanError("--cacert: \(file) holds no certificate in PEM form")
        }
    }

    /// What went wrong with TLS, in words: what the library says of it names its own source files.
    static func words(_ error: any Error) -> String {
        let text = String(describing: error)
        var reasons: [String] = []
        for match in text.matches(of: /OPENSSL_internal:([A-Z0-9_]+)/) {
            let reason = match.1.lowercased().replacing("_", with: " ")
            if !reasons.contains(reason) { reasons.append(reason) }
        }
        return reasons.isEmpty ? text : reasons.joined(separator: ", ")
    }
}

/// What a connection needs to speak TLS.
public struct TLSClient: Sendable {
    let context: NIOSSLContext
    /// The name that the certificate must have; nil for an IP address, which is then compared itself.
    let serverName: String?

    init(host: String, isIPAddress: Bool, options: TLSOptions) throws {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.applicationProtocols = ["http/1.1"]
        if options.isUnverified { configuration.certificateVerification = .none }
        if let file = options.certificateAuthority { configuration.trustRoots = .file(file) }
        context = try NIOSSLContext(configuration: configuration)
        serverName = isIPAddress ? nil : host
    }

    /// A handler for one new connection.
    func handler() throws -> NIOSSLClientHandler {
        try NIOSSLClientHandler(context: context, serverHostname: serverName)
    }
}

/// A server's address with the path in front of every request to it.
public struct HTTPEndpoint: Sendable {
    /// The address as it was given.
    public let url: String
    /// Host and port as the `Host` header has them.
    public let authority: String
    /// Where to connect, resolved once.
    public let address: SocketAddress
    /// What precedes every path, without a closing slash.
    public let prefix: String
    /// Nil for plain HTTP.
    public let tls: TLSClient?

    /// Reads `http://host:port` or `https://host:port`, each with an optional path; an IPv6 address stands in brackets.
    /// - Throws: `PlanError` for another scheme, for a name that does not resolve, and for a certificate file that cannot be read.
    public init(_ url: String, tls options: TLSOptions = TLSOptions()) throws(PlanError) {
        let isTLS = url.hasPrefix("https://")
        guard isTLS || url.hasPrefix("http://") else { throw PlanError("'\(url)' is no http:// or https:// address") }
        let rest = url.dropFirst(isTLS ? "https://".count : "http://".count)
        let slash = rest.firstIndex { $0 == "/" || $0 == "?" || $0 == "#" } ?? rest.endIndex
        let authority = rest[..<slash]
        guard let (host, port) = Self.split(authority, defaultPort: isTLS ? 443 : 80), rest[slash...].allSatisfy({ $0 != "?" && $0 != "#" })
        else { throw PlanError("'\(url)' has no host and port, or more than a path behind them") }
        do {
            address = try SocketAddress.makeAddressResolvingHost(host, port: port)
        } catch {
            throw PlanError("'\(url)' does not resolve: \(error)")
        }
        do {
            if isTLS { try options.check() }
            let isIPAddress = (try? SocketAddress(ipAddress: host, port: port)) != nil
            tls = isTLS ? try TLSClient(host: host, isIPAddress: isIPAddress, options: options) : nil
        } catch {
            throw PlanError("TLS for '\(url)': \(TLSOptions.words(error))")
        }
        self.url = url
        self.authority = String(authority)
        var prefix = String(rest[slash...])
        while prefix.hasSuffix("/") { prefix.removeLast() }
        self.prefix = prefix
    }

    private static func split(_ authority: Substring, defaultPort: Int) -> (host: String, port: Int)? {
        var host = authority
        var number: Substring?
        if authority.hasPrefix("[") {
            guard let close = authority.firstIndex(of: "]") else { return nil }
            host = authority[authority.index(after: authority.startIndex)..<close]
            let behind = authority[authority.index(after: close)...]
            guard behind.isEmpty || behind.hasPrefix(":") else { return nil }
            number = behind.isEmpty ? nil : behind.dropFirst()
        } else if let colon = authority.firstIndex(of: ":") {
            host = authority[..<colon]
            number = authority[authority.index(after: colon)...]
        }
        // A user and a password would be sent nowhere: they are refused rather than ignored.
        guard !host.isEmpty, host.allSatisfy({ $0.isASCII && $0 > " " && $0 != "@" }) else { return nil }
        guard let port = number.map({ Int($0) }) ?? defaultPort, (1...65535).contains(port) else { return nil }
        return (String(host), port)
    }
}
