// libpq has no accessor for the SQLSTATE of a connection that was refused: it stands in the text alone, and only in a verbose one. The text is read here.
// Bound: one pass over the text.

/// Why no connection was opened, as libpq tells it.
struct ConnectFailure: Equatable {
    /// The server's SQLSTATE, if the last address that was tried led to a server that gave one.
    var sqlState: String?
    /// The words, in one line, without the places in the server's source that a verbose text names.
    var message: String

    /// What to do about a pooler, in one sentence.
    static let pooler =
        "a connection pooler such as PgBouncer stands between this server and PostgreSQL, which does not work yet: "
        + "the address must be PostgreSQL's own"

    /// - Parameter text: libpq's message of a connection whose errors are verbose
    init(_ text: String) {
        var words: [String] = []
        for line in text.split(separator: "\n") where !line.hasPrefix("LOCATION:") {
            // Of several addresses the last one's answer counts: libpq has tried the others in vain.
            if line.hasPrefix("connection to server") { sqlState = nil }
            guard let (state, rest) = Self.cut(line) else {
                words.append(String(line))
                continue
            }
            sqlState = state
            words.append(rest)
        }
        message = words.joined(separator: " ")
        if sqlState == "08P01", message.contains("startup parameter") { message = "\(Self.pooler) (\(message))" }
    }

    /// `SEVERITY:  SQLSTATE: words` (PostgreSQL `src/interfaces/libpq/fe-protocol3.c`, `pqBuildErrorMessage3`).
    private static func cut(_ line: Substring) -> (sqlState: String, rest: String)? {
        guard let gap = line.firstRange(of: ":  ") else { return nil }
        let behind = line[gap.upperBound...]
        let state = behind.prefix { $0.isASCII && ($0.isNumber || $0.isUppercase) }
        guard state.utf8.count == 5, behind[state.endIndex...].hasPrefix(": ") else { return nil }
        return (String(state), String(line[..<gap.upperBound] + behind[state.endIndex...].dropFirst(2)))
    }
}

extension PostgresError {
    /// Whether the server may be there later although nobody changes anything: it has not started, is recovering, is being replaced, is full, or its name is not
    /// known yet. What a starting program waits for; everything else must be mended by somebody first.
    public var isNotThereYet: Bool {
        switch code {
        case .connectFailed: sqlState.map(Self.mayPass) ?? !Self.isRefusal(message)
        case .connectionLost, .timedOut, .poolExhausted: true
        // A read-only server may be one that is about to take over.
        case .server(let state): state == "25006" || Self.mayPass(state)
        case .invalidConfiguration, .shutDown, .cancelled, .decoding, .misuse: false
        }
    }

    /// PostgreSQL documentation, appendix A: resources, shutdown and start, system errors, rollbacks, locks.
    private static func mayPass(_ state: String) -> Bool {
        switch state {
        case "57014", "57P01", "57P02", "57P03", "55P03", "55006": true
        case "08P01": false
        default: ["08", "40", "53", "58"].contains(state.prefix(2))
        }
    }

    /// What libpq itself refuses, in its own words: a program that sets no locale gets them in English.
    private static func isRefusal(_ message: String) -> Bool {
        if message.contains("unexpected eof") { return false }
        return [
            "does not support SSL", "SSL error", "certificate", "GSSAPI", "no password supplied", "channel binding", "authentication",
            "sslmode",
            "invalid port", "invalid integer", "service file", "definition of service",
        ].contains { message.contains($0) }
    }
}

/// What keeps a program from using its database when it starts.
public struct PostgresStartTrouble: Sendable, Hashable {
    /// Whether it may pass by itself.
    public var isNotThereYet: Bool
    /// One sentence, without a secret.
    public var words: String

    /// Judges an error of ``Migrator`` or of a statement; nil if it is neither's.
    public init?(_ error: any Error) {
        switch error {
        case let error as PostgresError:
            isNotThereYet = error.isNotThereYet
            words = error.message
        case let error as MigrationError:
            isNotThereYet = error.cause?.isNotThereYet ?? false
            // Without a connection no migration is to blame.
            words = error.version == 0 ? error.cause?.message ?? error.description : error.description
        default: return nil
        }
    }
}
