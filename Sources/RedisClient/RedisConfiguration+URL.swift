import TransportSecurity

extension RedisConfiguration {
    /// Why a text is no address of a Redis server. It does not quote the text, which may hold a password.
    public struct InvalidURL: Error, Sendable, Hashable, CustomStringConvertible {
        /// What is wrong.
        public let description: String
    }

    /// Reads `redis://[[user]:password@]host[:port][/database]`, `redis+sentinel://[[user]:password@]host[:port],…/name[/database]`,
    /// `redis+cluster://[[user]:password@]host[:port],…`, the same with `rediss` for TLS, or `unix://[[user]:password@]/path[?db=database]`.
    ///
    /// Behind a `rediss://` address `?sslmode=…&sslrootcert=…&sslcert=…&sslkey=…` may follow: see `TLSClientConfiguration`.
    /// User and password may be percent-encoded. An IPv6 address stands in brackets.
    /// - Parameter url: the address.
    /// - Throws: `InvalidURL`. The files of TLS are not looked at.
    public init(url: String) throws(InvalidURL) {
        guard let schemeEnd = url.firstRange(of: "://") else { throw InvalidURL(description: "no scheme: \(Self.schemes)") }
        let scheme = url[..<schemeEnd.lowerBound].lowercased()
        var rest = url[schemeEnd.upperBound...]
        var user: String?
        var password: String?
        // The password ends at the last @ in front of the first slash. The path of a unix socket, behind that slash, may hold an @ of its own.
        let authority = rest.prefix { $0 != "/" }
        if let at = authority.lastIndex(of: "@") {
            let credentials = authority[..<at]
            rest = rest[rest.index(after: at)...]
            let colon = credentials.firstIndex(of: ":")
            guard let name = Self.percentDecoded(credentials[..<(colon ?? credentials.endIndex)]) else {
                throw InvalidURL(description: "bad percent-encoding in the user")
            }
            user = name.isEmpty || name == "default" ? nil : name
            if let colon {
                guard let decoded = Self.percentDecoded(credentials[credentials.index(after: colon)...]) else {
                    throw InvalidURL(description: "bad percent-encoding in the password")
                }
                password = decoded.isEmpty ? nil : decoded
            }
            guard user == nil || password != nil else { throw InvalidURL(description: "a user without a password") }
        }
        // The name is not repeated: it may be a part of a password.
        if ["redis", "redis+sentinel", "redis+cluster"].contains(scheme), rest.contains(where: { $0 == "?" || $0 == "#" }) {
            throw InvalidURL(description: "nothing may follow the database: an address has no parameters here")
        }
        var tls: TLSClientConfiguration?
        if ["rediss", "rediss+sentinel", "rediss+cluster"].contains(scheme) {
            guard !rest.contains("#") else { throw InvalidURL(description: "only parameters may follow the database") }
            let parts = rest.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
            do throws(TLSClientConfiguration.Refusal) {
                tls = try TLSClientConfiguration(query: parts.count == 2 ? parts[1] : "")
            } catch {
                throw InvalidURL(description: error.description)
            }
            rest = parts.first ?? ""
        }
        switch scheme {
        case "redis", "rediss":
            let parts = rest.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
            let (host, port) = try Self.hostAndPort(parts.first ?? "")
            self.init(address: .tcp(host: host, port: port))
            if parts.count == 2, !parts[1].isEmpty { self.database = try Self.databaseNumber(parts[1]) }
        case "redis+sentinel", "rediss+sentinel":
            let parts = rest.split(separator: "/", omittingEmptySubsequences: false)
            let sentinels = try Self.sentinels(parts.first ?? "", name: parts.count > 1 ? parts[1] : "")
            guard parts.count <= 3 else { throw InvalidURL(description: "only the database may follow the master's name") }
            self.init(address: .sentinels(sentinels))
            if parts.count == 3, !parts[2].isEmpty { self.database = try Self.databaseNumber(parts[2]) }
        case "redis+cluster", "rediss+cluster":
            let parts = rest.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count < 2 || ["", "0"].contains(parts[1]) else {
                throw InvalidURL(description: "a cluster has no other database than 0")
            }
            let endpoints = try Self.endpoints(parts.first ?? "", port: 6379, atMost: RedisSeeds.maximumCount, "node")
            self.init(address: .cluster(RedisSeeds(endpoints: endpoints)))
        case "unix":
            let parts = rest.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
            guard let path = parts.first, path.hasPrefix("/") else { throw InvalidURL(description: "a unix socket needs an absolute path") }
            self.init(address: .unix(path: String(path)))
            if parts.count == 2 {
                guard parts[1].hasPrefix("db="), !parts[1].contains("&") else {
                    throw InvalidURL(description: "the only option of a unix socket is db=")
                }
                self.database = try Self.databaseNumber(parts[1].dropFirst(3))
            }
        default: throw InvalidURL(description: "unknown scheme: \(Self.schemes) are known")
        }
        self.tls = tls
        username = user
        self.password = password
    }

    private static let schemes = "redis://, rediss://, redis+sentinel://, rediss+sentinel:// or unix://"

    private static func sentinels(_ text: Substring, name: Substring) throws(InvalidURL) -> RedisSentinels {
        let endpoints = try Self.endpoints(text, port: 26379, atMost: RedisSentinels.maximumCount, "sentinel")
        guard let master = Self.percentDecoded(name), !master.isEmpty, !master.contains(where: \.isWhitespace) else {
            throw InvalidURL(description: "the name under which the sentinels know the master must follow them: …/name")
        }
        return RedisSentinels(endpoints: endpoints, master: master)
    }

    private static func endpoints(
        _ text: Substring,
        port: Int,
        atMost maximum: Int,
        _ word: String
    ) throws(InvalidURL) -> [RedisEndpoint] {
        var endpoints: [RedisEndpoint] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            let (host, port) = try Self.hostAndPort(part, default: port)
            let endpoint = RedisEndpoint(host: host, port: port)
            guard !endpoints.contains(endpoint) else { throw InvalidURL(description: "a \(word) is named twice") }
            guard endpoints.count < maximum else { throw InvalidURL(description: "more than \(maximum) \(word)s") }
            endpoints.append(endpoint)
        }
        return endpoints
    }

    private static func hostAndPort(_ text: Substring, default standard: Int = 6379) throws(InvalidURL) -> (String, Int) {
        var host = text
        var port: Substring?
        if text.hasPrefix("[") {
            guard let end = text.firstIndex(of: "]") else { throw InvalidURL(description: "no ] after the IPv6 address") }
            host = text[text.index(after: text.startIndex)..<end]
            let tail = text[text.index(after: end)...]
            guard tail.isEmpty || tail.hasPrefix(":") else { throw InvalidURL(description: "only a port may follow ]") }
            if !tail.isEmpty { port = tail.dropFirst() }
        } else if let colon = text.lastIndex(of: ":") {
            host = text[..<colon]
            port = text[text.index(after: colon)...]
        }
        guard !host.isEmpty else { throw InvalidURL(description: "no host") }
        guard let port else { return (String(host), standard) }
        guard let number = Int(port), (1...65535).contains(number) else { throw InvalidURL(description: "the port is not 1 to 65535") }
        return (String(host), number)
    }

    private static func databaseNumber(_ text: Substring) throws(InvalidURL) -> Int {
        guard let number = Int(text), number >= 0 else { throw InvalidURL(description: "the database is not a number from 0") }
        return number
    }

    private static func percentDecoded(_ text: Substring) -> String? {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = rest.popFirst(), let low = rest.popFirst(),
                let value = UInt8(String(decoding: [high, low], as: UTF8.self), radix: 16)
            else { return nil }
            bytes.append(value)
        }
        return String(validating: bytes, as: UTF8.self)
    }
}
