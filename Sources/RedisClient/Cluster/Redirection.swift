/// What an error reply of a cluster's node says of where a command belongs.
struct Redirection: Sendable, Hashable {
    enum Kind: Sendable, Hashable {
        /// The slot is the other node's from now on.
        case moved
        /// The slot is on its way, and this one command may be at the other node already.
        case ask
    }

    var kind: Kind
    var slot: HashSlot
    var node: RedisEndpoint

    /// Nil if the error says nothing of the kind, or cannot be read.
    /// - Parameter replied: the node that replied; its host stands where the error names none.
    init?(_ error: RedisServerError, replied: RedisEndpoint) {
        switch error.kind {
        case .moved: kind = .moved
        case .ask: kind = .ask
        default: return nil
        }
        // MOVED 3999 127.0.0.1:6381. An IPv6 address has no brackets; the port stands behind the last colon.
        let words = error.message.split(separator: " ")
        guard words.count >= 3, let slot = UInt16(words[1]).flatMap(HashSlot.init(rawValue:)), let colon = words[2].lastIndex(of: ":"),
            let port = Int(words[2][words[2].index(after: colon)...]), (1...65535).contains(port)
        else { return nil }
        let host = words[2][..<colon]
        guard host != "?", host.utf8.count <= 255 else { return nil }
        self.slot = slot
        node = RedisEndpoint(host: host.isEmpty ? replied.host : String(host), port: port)
    }
}
