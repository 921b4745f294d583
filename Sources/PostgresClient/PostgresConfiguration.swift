import BlockingThreads
import CLibPQ

/// Where the server is and how long anything may take. Durations of zero switch a server-side bound off.
///
/// A description, a dump and a reflection show host, port, database and user; never the password.
public struct PostgresConfiguration: Sendable {
    struct Setting: Sendable {
        var keyword: String
        var value: String
    }

    let settings: [Setting]

    /// Bound on opening a connection. Name resolution is done by the C library and not under this bound: give an address where that matters.
    public var connectTimeout: Duration = .seconds(3)
    /// The server's own bound on a statement (`statement_timeout`). Keep it below ``callTimeout``, so that the server answers and the outcome is known.
    public var statementTimeout: Duration = .seconds(4)
    /// The server's bound on waiting for one lock (`lock_timeout`).
    public var lockTimeout: Duration = .seconds(2)
    /// Client-side bound on one call, opening the connection included. When it passes, the connection is closed.
    public var callTimeout: Duration = .seconds(5)
    /// The server's bound on an idle open transaction (`idle_in_transaction_session_timeout`).
    public var idleInTransactionTimeout: Duration = .seconds(10)
    /// Bound on unacknowledged data of the TCP connection (`tcp_user_timeout`).
    public var tcpUserTimeout: Duration = .seconds(10)
    /// Options of every session, as `-c name=value`. Those in the address come behind them and win.
    public var options = ""
    /// Shown in `pg_stat_activity`, unless the address has a name of its own.
    public var applicationName: String = "stockgate"
    /// Whether the server plans without reading or sorting whole tables where an index serves. For statements that read a few rows in an index' order: their
    /// plans are kept, and may have been made while the tables were small.
    public var plansThroughIndexes = false
    /// Bound on the prepared statements kept open on one connection; the one unused for longest goes first.
    public var preparedStatements: Int = 128
    /// The wait after the second failed attempt to connect in a row; it doubles with each one more, up to ``maximumBackoff``.
    public var minimumBackoff: Duration = .milliseconds(20)
    /// Bound on the wait between attempts to connect.
    public var maximumBackoff: Duration = .seconds(1)

    /// Reads `postgresql://user:password@host:port/database?…` or `key=value …`, as libpq does.
    ///
    /// `connect_timeout`, `application_name`, `keepalives…` and `tcp_user_timeout` are taken from the address where it has them; what cannot be honoured is refused.
    /// - Throws: `invalidConfiguration`. The message does not repeat the string, which may hold a password.
    public init(url: String) throws(PostgresError) {
        var complaint: UnsafeMutablePointer<CChar>?
        guard let options = PQconninfoParse(url, &complaint) else {
            PQfreemem(complaint)
            throw Self.refusal("it cannot be read: postgresql://user:password@host:port/database, or libpq's keyword=value")
        }
        defer { PQconninfoFree(options) }
        var settings: [Setting] = []
        var option = options
        while let keyword = option.pointee.keyword {
            if let value = option.pointee.val {
                settings.append(Setting(keyword: String(cString: keyword), value: String(cString: value)))
            }
            option += 1
        }
        for setting in settings { try Self.check(setting) }
        if let text = settings.first(where: { $0.keyword == "connect_timeout" })?.value {
            guard let seconds = Int(text), (1...3_600).contains(seconds) else {
                throw Self.refusal("connect_timeout is not 1 to 3600 seconds")
            }
            connectTimeout = .seconds(seconds)
            // Of no use to libpq itself here: it does not wait for connections that are opened step by step.
            settings.removeAll { $0.keyword == "connect_timeout" }
        }
        self.settings = settings
    }

    /// Names of libpq's own, never a value: that may be a part of a password.
    private static func check(_ setting: Setting) throws(PostgresError) {
        switch setting.keyword {
        case "client_encoding":
            guard ["utf8", "utf-8", "unicode"].contains(setting.value.lowercased()) else {
                throw refusal("client_encoding can be UTF8 alone")
            }
        case "replication", "fallback_application_name": throw refusal("\(setting.keyword) has no meaning here")
        case "options":
            let own = [
                "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "default_transaction_isolation",
                "transaction_isolation",
            ]
            for name in optionNames(setting.value) where own.contains(name) {
                throw refusal("its options set \(name), which the program sets itself")
            }
        default: break
        }
    }

    /// The names in `-c name=value`, `-cname=value` and `--name=value`.
    private static func optionNames(_ options: String) -> [String] {
        var names: [String] = []
        var isNext = false
        for word in options.split(whereSeparator: \.isWhitespace) {
            var text = word
            if !isNext {
                if word == "-c" {
                    isNext = true
                    continue
                }
                guard word.hasPrefix("-c") || word.hasPrefix("--") else { continue }
                text = word.dropFirst(2)
            }
            isNext = false
            names.append(String(text.prefix { $0 != "=" }.lowercased().map { $0 == "-" ? "_" : $0 }))
        }
        return names
    }

    private static func refusal(_ words: String) -> PostgresError { PostgresError(code: .invalidConfiguration, message: words) }

    /// The isolation level of every transaction.
    static let isolation = "read committed"

    /// What is handed to libpq: the string's own settings, then ours.
    var connectionSettings: [Setting] {
        var result = settings.filter { $0.keyword != "options" && $0.keyword != "client_encoding" }
        var options = [self.options, settings.first { $0.keyword == "options" }?.value ?? ""].filter { !$0.isEmpty }.joined(separator: " ")
        // A database or a role may have another default; the ledger's functions look again after each lock, which only this level lets them.
        options += " -c default_transaction_isolation=\(Self.isolation.split(separator: " ").joined(separator: "\\ "))"
        for (name, bound) in [
            ("statement_timeout", statementTimeout), ("lock_timeout", lockTimeout),
            ("idle_in_transaction_session_timeout", idleInTransactionTimeout),
        ] {
            options += " -c \(name)=\(bound.wholeMilliseconds)"
        }
        if plansThroughIndexes {
            for name in ["seqscan", "sort", "hashjoin", "mergejoin"] { options += " -c enable_\(name)=off" }
        }
        result.append(Setting(keyword: "options", value: options))
        result.append(Setting(keyword: "client_encoding", value: "UTF8"))
        for (keyword, value) in [
            ("application_name", applicationName), ("keepalives", "1"), ("keepalives_idle", "10"), ("keepalives_interval", "3"),
            ("keepalives_count", "3"), ("tcp_user_timeout", "\(tcpUserTimeout.wholeMilliseconds)"),
        ] where !settings.contains(where: { $0.keyword == keyword }) {
            result.append(Setting(keyword: keyword, value: value))
        }
        return result
    }

    private func shown(_ keyword: String) -> String {
        settings.first { $0.keyword == keyword }?.value ?? "(default)"
    }
}

extension PostgresConfiguration: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    /// Host, port, database and user.
    public var description: String {
        "PostgreSQL \(shown("user"))@\(shown("host")):\(shown("port"))/\(shown("dbname"))"
    }

    /// The same as ``description``.
    public var debugDescription: String { description }

    /// Shows the ``description`` alone, so that a dump holds no password.
    public var customMirror: Mirror { Mirror(self, children: ["server": description]) }
}
