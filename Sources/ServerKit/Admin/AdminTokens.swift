/// The tokens that open a port or some of its routes, each with the name of who has it: `ADMIN_TOKEN`, `SERVICE_TOKENS`.
public struct AdminTokens: Sendable, Equatable {
    struct Token: Sendable, Equatable {
        var name: String
        var secret: [UInt8]
    }

    let tokens: [Token]

    /// No token: a guard then lets in who is on this machine.
    public static let none = AdminTokens(tokens: [])

    private init(tokens: [Token]) { self.tokens = tokens }

    /// Reads one secret, whose name is `defaultName`, or `name:secret` pairs separated by commas. Nil if a secret is empty, a name is
    /// no word of `A-Z a-z 0-9 . _ -`, or there are more than 64.
    public init?(_ text: String, defaultName: String = "admin") {
        var tokens: [Token] = []
        for entry in text.split(separator: ",", omittingEmptySubsequences: false) {
            let entry = entry.trimmed
            let parts = entry.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            let name = parts.count == 2 ? String(parts[0]) : defaultName
            let secret = Array((parts.last ?? "").utf8)
            guard !secret.isEmpty, secret.allSatisfy({ (0x21...0x7E).contains($0) }), ServerRequestContext.isRequestID(name),
                tokens.count < 64
            else { return nil }
            tokens.append(Token(name: name, secret: secret))
        }
        self.tokens = tokens
    }

    /// Whether there is none.
    public var isEmpty: Bool { self.tokens.isEmpty }

    /// The name that a secret belongs to.
    ///
    /// Every token is compared to its end, whatever the others gave, so that the time tells nothing but the length of the
    /// secret that was sent.
    func name(of secret: some Collection<UInt8>) -> String? {
        let given = Array(secret)
        var found: String?
        for token in self.tokens where AdminTokens.isEqual(given, token.secret) { found = found ?? token.name }
        return found
    }

    private static func isEqual(_ given: [UInt8], _ secret: [UInt8]) -> Bool {
        var difference = UInt64(truncatingIfNeeded: given.count ^ secret.count)
        for index in 0..<given.count { difference |= UInt64(given[index] ^ secret[index % secret.count]) }
        return difference == 0
    }
}

extension SettingsReader {
    /// `ADMIN_TOKEN`.
    mutating func adminTokens() -> AdminTokens {
        guard
            let text = self.secret(
                "ADMIN_TOKEN",
                "secret, or name:secret pairs separated by commas, of the admin port; without it loopback only"
            )
        else { return .none }
        guard let tokens = AdminTokens(text) else {
            self.refuse("ADMIN_TOKEN must be a secret, or name:secret pairs separated by commas, of printable characters without spaces")
            return .none
        }
        return tokens
    }

    /// `SERVICE_TOKENS`.
    public mutating func serviceTokens() -> AdminTokens {
        guard
            let text = self.secret(
                "SERVICE_TOKENS",
                "secret, or name:secret pairs separated by commas, of the services that may change stock and catalogue; without it loopback only"
            )
        else { return .none }
        guard let tokens = AdminTokens(text, defaultName: "service") else {
            self.refuse("SERVICE_TOKENS must be a secret, or name:secret pairs separated by commas, of printable characters without spaces")
            return .none
        }
        return tokens
    }
}
