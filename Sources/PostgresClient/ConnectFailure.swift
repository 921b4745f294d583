// libpq has no accessor for the SQLSTATE of a refused connection: only its verbose error text has it. This file reads that text.
// Bound: one pass over the text.

/// Why no connection was opened, as libpq says it.
struct ConnectFailure: Equatable {
    /// The server's SQLSTATE. Nil if the address that was tried last led to no server, or to one that gave none.
    var sqlState: String?
    /// libpq's words in one line, without the places in the server's source code that a verbose text names.
    var message: String

    /// What the operator of a pooler should do, in one sentence.
    static let pooler =
        "a connection pooler such as PgBouncer stands between this server and PostgreSQL: "
        + "set DATABASE_POOLER=transaction, or let the address be PostgreSQL's own"

    /// PgBouncer says with one state, 08P01, what an operator must change and what passes by itself. These are its words for the latter: its server is away, or
    /// all its places are taken.
    private static let passing = [
        "cannot connect to server", "server login", "server_login_retry", "query_wait_timeout", "no more connections allowed",
        "shutting down",
        "server conn crashed", "the database system is",
    ]

    /// - Parameter text: libpq's error message, written with verbose errors
    init(_ text: String) {
        var words: [String] = []
        for line in text.split(separator: "\n") where !line.hasPrefix("LOCATION:") {
            // libpq tries the addresses one after another. The answer of the last one counts.
            if line.hasPrefix("connection to server") { sqlState = nil }
            guard let (state, rest) = Self.cut(line) else {
                words.append(String(line))
                continue
            }
            sqlState = state
            words.append(rest)
        }
        message = words.joined(separator: " ")
        if sqlState == "08P01", Self.passing.contains(where: message.contains) { sqlState = "08006" }
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
    /// Whether the server may become available without anybody changing something: it has not started, is recovering, is being replaced, is full, or its name
    /// is not known yet. A starting program waits for these. All other causes need operator action.
    public var isNotThereYet: Bool {
        switch code {
        case .connectFailed: sqlState.map(Self.mayPass) ?? !Self.isRefusal(message)
        case .connectionLost, .timedOut, .notReplicated, .poolExhausted: true
        // A server that is read-only now may be about to take over.
        case .server(let state): state == "25006" || Self.mayPass(state)
        case .invalidConfiguration, .shutDown, .cancelled, .decoding, .misuse: false
        }
    }

    /// The SQLSTATE classes and codes for resources, shutdown and start, system errors, rollbacks and locks (PostgreSQL documentation, appendix A).
    private static func mayPass(_ state: String) -> Bool {
        switch state {
        case "57014", "57P01", "57P02", "57P03", "55P03", "55006": true
        case "08P01": false
        default: ["08", "40", "53", "58"].contains(state.prefix(2))
        }
    }

    /// Whether libpq itself refused the connection. Its words are English in a program that sets no locale.
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
    /// Whether the trouble may end by itself.
    public var isNotThereYet: Bool
    /// One sentence, without a secret.
    public var words: String

    /// Judges an error of ``Migrator`` or of a statement; nil for any other error.
    public init?(_ error: any Error) {
        switch error {
        case let error as PostgresError:
            isNotThereYet = error.isNotThereYet
            words = error.message
        case let error as MigrationError:
            isNotThereYet = error.cause?.isNotThereYet ?? false
            // The trouble came before any migration began, so none is named. PostgreSQL does not say which lock it waited for.
            let isLocked = error.version == 0 && (error.cause?.isLockTimeout ?? false)
            let lock = isLocked ? "another session holds a lock on \(error.name), or is migrating: see pg_locks: " : ""
            words = error.version == 0 ? lock + (error.cause?.message ?? error.description) : error.description
        default: return nil
        }
    }
}
