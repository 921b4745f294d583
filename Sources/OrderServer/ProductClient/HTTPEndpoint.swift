/// The address of an HTTP server, read from `http://host[:port][/path]`.
struct HTTPEndpoint: Sendable, Equatable {
    /// A host name, or an IP address without brackets.
    let host: String
    let port: Int
    /// The value of the header `Host`.
    let authority: String
    /// A prefix of every request's path: empty, or with a slash at its beginning and none at its end.
    let path: String

    /// Nil if the text is no URL of this form.
    init?(_ url: String) {
        guard url.hasPrefix("http://") else { return nil }
        let rest = url.dropFirst(7)
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
        guard tail.isEmpty || tail.hasPrefix(":"), let port = tail.isEmpty ? 80 : Int(tail.dropFirst()), (1...65535).contains(port) else {
            return nil
        }
        self.host = String(host)
        self.port = port
        self.authority = String(authority)
        self.path = String(path)
    }
}
