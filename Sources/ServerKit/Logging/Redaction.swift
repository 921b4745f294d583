// Invariant: the secret of an address that a library of this project takes is never in what comes out, wherever in the address it stands and however it is
//   written. So addresses are cut here where libpq (`conninfo_parse`, `conninfo_uri_parse`), rabbitmq-c (`amqp_parse_url`) and `RedisConfiguration` cut them, and where
//   two of them would cut differently, more is masked.
// Bounds: one pass over the text.

import StrictJSON

/// Keeps secrets out of texts that people read.
public enum Redaction {
    /// What stands in a secret's place.
    public static let mask = "***"

    /// Whether a name says that its value is a secret.
    public static func isSecret(name: String) -> Bool {
        let name = name.lowercased()
        return ["token", "secret", "password", "passwd", "authorization", "cookie"].contains { name.contains($0) }
    }

    /// A text with what is secret in the addresses in it masked: `redis://:***@host`, `postgresql://user:***@host/db?password=***`, `host=… password=***`.
    ///
    /// An address ends at a space, a value of `password=…` where libpq ends it.
    public static func masked(_ text: String) -> String {
        var rest = Array(text.utf8)[...]
        var result: [UInt8] = []
        // Ends: each round takes at least one byte.
        while let byte = rest.first {
            guard Redaction.isWord(byte) else {
                result.append(byte)
                rest = rest.dropFirst()
                continue
            }
            let word = rest.prefix(while: Redaction.isWord)
            rest = rest[word.endIndex...]
            result += word
            if rest.starts(with: "://".utf8) {
                let address = rest.prefix { !Redaction.isSpace($0) }
                result += Redaction.maskedBehindScheme(address)
                rest = rest[address.endIndex...]
            } else if Redaction.isSecretParameter(word) {
                let spaces = rest.prefix(while: Redaction.isSpace)
                guard rest[spaces.endIndex...].first == UInt8(ascii: "=") else { continue }
                result += Array("=\(Redaction.mask)".utf8)
                rest = Redaction.behindValue(rest[spaces.endIndex...].dropFirst())
            }
        }
        return String(decoding: result, as: UTF8.self)
    }

    /// An address as a setting has it, a URL or libpq's `keyword=value …`, with what is secret in it masked.
    public static func maskedAddress(_ text: String) -> String {
        let bytes = Array(text.utf8)[...]
        let scheme = bytes.drop(while: Redaction.isSpace).prefix(while: Redaction.isWord)
        guard !scheme.isEmpty, bytes[scheme.endIndex...].starts(with: "://".utf8) else { return Redaction.masked(text) }
        // All of it is the address: whatever stands after a space belongs to it.
        return String(decoding: bytes[..<scheme.endIndex] + Redaction.maskedBehindScheme(bytes[scheme.endIndex...]), as: UTF8.self)
    }

    // MARK: URLs

    /// `://[user[:password]@]rest[?name=value&…]`, from the colon on.
    private static func maskedBehindScheme(_ text: ArraySlice<UInt8>) -> [UInt8] {
        // A password may hold a question mark. So the query begins after the slash that ends the authority; without one, behind the last @.
        let body = text.dropFirst(3)
        let authorityEnd = body.firstIndex(of: UInt8(ascii: "/")) ?? body.lastIndex(of: UInt8(ascii: "@")) ?? body.startIndex
        guard let query = body[authorityEnd...].firstIndex(of: UInt8(ascii: "?")) else { return Redaction.maskedAuthorities(text) }
        var result = Redaction.maskedAuthorities(text[..<query])
        var rest = text[query...]
        // Ends: each round takes a separator and what follows up to the next.
        while let separator = rest.popFirst() {
            result.append(separator)
            let parameter = rest.prefix { $0 != UInt8(ascii: "&") && $0 != UInt8(ascii: "?") }
            let name = parameter.prefix { $0 != UInt8(ascii: "=") }
            if name.endIndex < parameter.endIndex, Redaction.isSecretParameter(Redaction.percentDecoded(name)) {
                result += name + Array("=\(Redaction.mask)".utf8)
                rest = rest.drop { $0 != UInt8(ascii: "&") }
            } else {
                result += Redaction.maskedAuthorities(parameter)
                rest = rest[parameter.endIndex...]
            }
        }
        return result
    }

    /// Masks the password in front of the last @ of each authority: what stands between `://` and the next slash.
    private static func maskedAuthorities(_ text: ArraySlice<UInt8>) -> [UInt8] {
        var result: [UInt8] = []
        var rest = text
        // Ends: each round takes a scheme's end and what stands in front of it.
        while let scheme = rest.firstRange(of: "://".utf8) {
            result += rest[..<scheme.upperBound]
            rest = rest[scheme.upperBound...]
            var authority = rest.prefix { $0 != UInt8(ascii: "/") }
            // The slash may be that of the next address of a list.
            if authority.last == UInt8(ascii: ":"), rest[authority.endIndex...].starts(with: "//".utf8) { authority = authority.dropLast() }
            rest = rest[authority.endIndex...]
            if let at = authority.lastIndex(of: UInt8(ascii: "@")), let colon = authority[..<at].firstIndex(of: UInt8(ascii: ":")) {
                result += authority[...colon] + Array(Redaction.mask.utf8) + authority[at...]
            } else {
                result += authority
            }
        }
        return result + rest
    }

    /// What `%XX` stands for; a `%` without two digits stays as it is.
    private static func percentDecoded(_ text: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        var result: [UInt8] = []
        var rest = text
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "%"), let high = rest.first.flatMap(JSONParser.nibble),
                let low = rest.dropFirst().first.flatMap(JSONParser.nibble)
            {
                result.append(high << 4 | low)
                rest = rest.dropFirst(2)
            } else {
                result.append(byte)
            }
        }
        return result[...]
    }

    // MARK: Keywords and values

    /// libpq's secrets, which are `password`, `sslpassword`, `oauth_client_secret` and the SCRAM keys, and what others call theirs.
    private static func isSecretParameter(_ word: ArraySlice<UInt8>) -> Bool {
        let name = String(decoding: word, as: UTF8.self).lowercased()
        return name == "pass" || Redaction.isSecret(name: name) || ["passphrase", "pwd", "scram_", "sslkey"].contains { name.contains($0) }
    }

    /// What follows a value: in quotes it ends at the next quote that no backslash escapes, else at a space that none escapes. Spaces may stand in front.
    private static func behindValue(_ text: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        var rest = text.drop(while: Redaction.isSpace)
        let isQuoted = rest.first == UInt8(ascii: "'")
        if isQuoted { rest = rest.dropFirst() }
        while let byte = rest.first {
            if isQuoted ? byte == UInt8(ascii: "'") : Redaction.isSpace(byte) { break }
            rest = rest.dropFirst(byte == UInt8(ascii: "\\") ? 2 : 1)
        }
        return isQuoted ? rest.dropFirst() : rest
    }

    /// `isspace` of the C locale.
    private static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || (0x09...0x0D).contains(byte) }

    /// What names of schemes and of keywords are made of.
    private static func isWord(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
            UInt8(ascii: "_"), UInt8(ascii: "+"), UInt8(ascii: "-"), UInt8(ascii: "."):
            true
        default: false
        }
    }
}
