/// Keeps secrets out of texts that people read.
public enum Redaction {
    /// What stands in a secret's place.
    public static let mask = "***"

    /// A URL with its password masked: `redis://:***@host`. A text without `://user:password@` is returned as it is.
    public static func maskedURL(_ text: String) -> String {
        var result = ""
        var rest = text[...]
        while let scheme = rest.firstRange(of: "://") {
            result += rest[..<scheme.upperBound]
            rest = rest[scheme.upperBound...]
            let authority = rest.prefix { $0 != "/" && $0 != "?" && $0 != " " && $0 != "\"" && $0 != "," }
            guard let at = authority.lastIndex(of: "@") else { continue }
            let user = authority[..<at]
            if let colon = user.firstIndex(of: ":") {
                result += user[...colon] + self.mask
            } else {
                result += user
            }
            rest = rest[at...]
        }
        return result + rest
    }

    private static let secretNames = ["token", "secret", "password", "passwd", "authorization", "cookie"]

    /// Whether a name says that its value is a secret.
    public static func isSecret(name: String) -> Bool {
        let name = name.lowercased()
        return self.secretNames.contains { name.contains($0) }
    }
}
