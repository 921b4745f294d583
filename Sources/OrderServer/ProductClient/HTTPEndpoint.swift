import TransportSecurity

/// The address of an HTTP server, read from `http://host[:port][/path]`, or `https://host[:port][/path][?sslmode=…&sslrootcert=…&sslcert=…&sslkey=…]`.
struct HTTPEndpoint: Sendable, Equatable {
    /// A host name, or an IP address without brackets.
    let host: String
    let port: Int
    /// The value of the header `Host`.
    let authority: String
    /// A prefix of every request's path: empty, or with a slash at its beginning and none at its end.
    let path: String
    /// How TLS is spoken with it; nil for no TLS.
    let tls: TLSClientConfiguration?

    /// Nil if the text is no URL of this form.
    init?(_ url: String) {
        let isSecure = url.hasPrefix("https://")
        guard isSecure || url.hasPrefix("http://") else { return nil }
        var rest = url.dropFirst(isSecure ? 8 : 7)
        if isSecure {
            let parts = rest.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
            guard let tls = try? TLSClientConfiguration(query: parts.count == 2 ? parts[1] : "") else { return nil }
            rest = parts.first ?? ""
            self.tls = tls
        } else {
            self.tls = nil
        }
        let slash = rest.firstIndex(of: "/") ?? rest.endIndex
        let authority = rest[..<slash]
        var path = rest[slash...]
        while path.hasSuffix("/") { path = path.dropLast() }
        let host: Substring
        let tail: Substring
        if authority.hasPrefix("["), let close = authority.firstIndex(of: "]") {
            host = authority[..<close].dropFirst()
            tail = authority[close...].dropFirst()
        } else {
            host = authority.prefix { $0 != ":" }
            tail = authority[host.endIndex...]
        }
        guard !host.isEmpty, !authority.contains("@"), url.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else { return nil }
        guard tail.isEmpty || tail.hasPrefix(":"), let port = tail.isEmpty ? (isSecure ? 443 : 80) : Int(tail.dropFirst()),
            (1...65535).contains(port)
        else {
            return nil
        }
        self.host = String(host)
        self.port = port
        self.authority = String(authority)
        self.path = String(path)
    }
}
