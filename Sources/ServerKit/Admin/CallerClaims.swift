import APIErrors
import CNIOLinux
import HTTPTypes
import Hummingbird
public import NIOCore

/// Where a request comes from, as far as it can be known: the connection's peer, and what the request says of proxies and of the page that sent it.
///
/// Without a token a route opens to a caller that is on this machine and acts for itself. A browser on this machine acts for somebody else when a page of
/// another origin sends the request, or when a foreign name was made to point here (DNS rebinding).
public struct CallerClaims: Sendable {
    /// The connection's other end; nil if it is not known.
    public var peer: SocketAddress?
    /// `Host`.
    public var host: String?
    /// `Origin`: the page that sent the request. A browser leaves it out of plain reads of the page's own origin.
    public var origin: String?
    /// `Sec-Fetch-Site`: how a browser relates the page to this server.
    public var fetchSite: String?
    /// Whether a proxy says that it passed the request on.
    public var isForwarded: Bool
    /// `Authorization`.
    public var authorization: String?

    /// Reads the claims out of a request's fields.
    /// - Parameter field: a field's value by its name in lower case; nil if it is not there
    public init(peer: SocketAddress?, field: (StaticString) -> String?) {
        self.peer = peer
        host = field("host")
        origin = field("origin")
        fetchSite = field("sec-fetch-site")
        isForwarded = field("x-forwarded-for") != nil || field("forwarded") != nil
        authorization = field("authorization")
    }

    init(_ request: Request, peer: SocketAddress?) {
        self.peer = peer
        host = request.head.authority
        origin = request.headers[.origin]
        fetchSite = request.headers[.secFetchSite]
        isForwarded = request.headers[.forwardedFor] != nil || request.headers[.forwarded] != nil
        authorization = request.headers[.authorization]
    }

    /// Whether the request comes from this machine, under one of the machine's own names, and through no proxy.
    var isFromThisMachine: Bool {
        guard let peer, peer.isLoopback, !isForwarded, let host else { return false }
        return CallerClaims.isLocal(host: host)
    }

    /// Whether a page that is not this server's own has sent the request. A page that another port of the same machine serves is foreign, too, although a
    /// browser calls it `same-site`. A word that is not known counts as foreign.
    var isFromForeignPage: Bool {
        if let fetchSite, fetchSite != "same-origin", fetchSite != "none" { return true }
        guard let origin else { return false }
        // A page whose origin is hidden sends the word null. A proxy may speak TLS to the browser; the name must be the one that the browser knows.
        guard let host = host?.lowercased() else { return true }
        let lowercased = origin.lowercased()
        return lowercased != "http://" + host && lowercased != "https://" + host
    }

    /// The secret of `Authorization: Bearer`.
    /// - Throws: `UNAUTHORIZED` if there is none
    static func bearer(_ authorization: String?) throws(APIError) -> Substring {
        guard let authorization else { throw APIError(.unauthorized) }
        let scheme = authorization.prefix { $0 != " " }
        guard scheme.lowercased() == "bearer", scheme.endIndex != authorization.endIndex else { throw APIError(.unauthorized) }
        return authorization[authorization.index(after: scheme.endIndex)...]
    }

    /// `localhost`, `127.….….…` or `[::1]`, exactly, with or without a port.
    static func isLocal(host: String) -> Bool {
        let text = host.utf8
        let name: Substring.UTF8View
        if text.first == UInt8(ascii: "[") {
            guard let end = text.firstIndex(of: UInt8(ascii: "]")) else { return false }
            name = text[...end]
        } else {
            name = text.prefix { $0 != UInt8(ascii: ":") }
        }
        var port = text[name.endIndex...]
        if !port.isEmpty {
            guard port.removeFirst() == UInt8(ascii: ":"), (1...5).contains(port.count), port.allSatisfy(CallerClaims.isDigit),
                let number = Int(Substring(port)), (1...65535).contains(number)
            else { return false }
        }
        if Substring(name) == "[::1]" { return true }
        if Substring(name).lowercased() == "localhost" { return true }
        let parts = name.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
        guard parts.count == 4, Substring(parts[0]) == "127" else { return false }
        return parts.allSatisfy { part in
            // One way to write each number: no leading zero, which some readers take for octal.
            (1...3).contains(part.count) && part.allSatisfy(CallerClaims.isDigit) && (part.count == 1 || part.first != UInt8(ascii: "0"))
                && (Int(Substring(part)) ?? 256) < 256
        }
    }

    private static func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }
}

extension SocketAddress {
    /// Whether the peer is on this machine: 127.0.0.0/8, ::1, the IPv4-mapped form of the first, or a unix socket.
    public var isLoopback: Bool {
        switch self {
        case .unixDomainSocket: return true
        case .v4(let address):
            // In network order: the first byte is the first number.
            return withUnsafeBytes(of: address.address.sin_addr) { $0.first == 127 }
        case .v6(let address):
            return withUnsafeBytes(of: address.address.sin6_addr) { bytes in
                guard bytes.count == 16, bytes[0..<10].allSatisfy({ $0 == 0 }) else { return false }
                if bytes[10] == 0xFF, bytes[11] == 0xFF { return bytes[12] == 127 }
                return bytes[10..<15].allSatisfy { $0 == 0 } && bytes[15] == 1
            }
        }
    }
}

extension HTTPField.Name {
    static let secFetchSite = HTTPField.Name.claim("Sec-Fetch-Site")
    static let secFetchMode = HTTPField.Name.claim("Sec-Fetch-Mode")
    static let secFetchDest = HTTPField.Name.claim("Sec-Fetch-Dest")
    static let forwardedFor = HTTPField.Name.claim("X-Forwarded-For")
    static let forwarded = HTTPField.Name.claim("Forwarded")

    /// A name that is a token for sure, because it stands in the source text above.
    private static func claim(_ name: String) -> HTTPField.Name {
        guard let name = HTTPField.Name(name) else { preconditionFailure("\(name) is no field name") }
        return name
    }
}
