import APIErrors

/// The tokens that open a port or some of its routes, each with the name of who has it: `ADMIN_TOKEN`, `SERVICE_TOKENS`.
public struct AdminTokens: Sendable, Equatable {
    struct Token: Sendable, Equatable {
        var name: String
        var secret: [UInt8]
    }

    private let source: Secret<[Token]>

    /// The tokens in force.
    var tokens: [Token] { source.value }

    /// No token: a guard then lets in who is on this machine.
    public static let none = AdminTokens(source: .fixed([]))

    init(source: Secret<[Token]>) { self.source = source }

    /// Whether both have the same tokens, wherever the tokens come from.
    public static func == (first: AdminTokens, second: AdminTokens) -> Bool { first.tokens == second.tokens }

    /// Reads one secret, whose name is `defaultName`, or `name:secret` pairs separated by commas. Nil if a secret is empty, a name has other characters than
    /// `A-Z a-z 0-9 . _ -`, or there are more than 64.
    public init?(_ text: String, defaultName: String = "admin") {
        guard let tokens = AdminTokens.read(text, defaultName: defaultName) else { return nil }
        self.init(source: .fixed(tokens))
    }

    static func read(_ text: String, defaultName: String) -> [Token]? {
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
        return tokens
    }

    /// Whether there is no token.
    public var isEmpty: Bool { tokens.isEmpty }

    /// The name that a secret belongs to; nil for a secret that opens nothing.
    ///
    /// Every token is compared to its end, also when another one has matched, so the time depends only on the length of the secret that was sent.
    func name(of secret: some Collection<UInt8>) -> String? {
        let given = Array(secret)
        var found: String?
        for token in tokens where AdminTokens.isEqual(given, token.secret) { found = found ?? token.name }
        return found
    }

    private static func isEqual(_ given: [UInt8], _ secret: [UInt8]) -> Bool {
        var difference = UInt64(truncatingIfNeeded: given.count ^ secret.count)
        for index in 0..<given.count { difference |= UInt64(given[index] ^ secret[index % secret.count]) }
        return difference == 0
    }
}

extension SettingsReader {
    /// `ADMIN_TOKEN`, or `ADMIN_TOKEN_FILE`.
    mutating func adminTokens() -> AdminTokens {
        tokens(
            "ADMIN_TOKEN",
            "secret, or name:secret pairs separated by commas, of the admin port; without it loopback only",
            defaultName: "admin"
        )
    }

    /// `SERVICE_TOKENS`, or `SERVICE_TOKENS_FILE`.
    /// - Parameter services: whose tokens they are, for the setting's description
    public mutating func serviceTokens(of services: String) -> AdminTokens {
        tokens(
            "SERVICE_TOKENS",
            "secret, or name:secret pairs separated by commas, of \(services); without it loopback only",
            defaultName: "service"
        )
    }

    private mutating func tokens(_ name: String, _ meaning: String, defaultName: String) -> AdminTokens {
        let source: Secret<[AdminTokens.Token]>? = secret(
            name,
            meaning,
            expected: "a secret, or name:secret pairs separated by commas, of printable characters without spaces"
        ) { text in
            // A file has a line for each pair as well.
            let lines = text.split(whereSeparator: \.isNewline).map { $0.trimmed }.filter { !$0.isEmpty }
            return AdminTokens.read(lines.joined(separator: ","), defaultName: defaultName)
        }
        return source.map(AdminTokens.init(source:)) ?? .none
    }
}
