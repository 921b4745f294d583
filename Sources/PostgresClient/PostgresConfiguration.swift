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
    /// Shown in `pg_stat_activity`.
    public var applicationName: String = "stockgate"
    /// Bound on the prepared statements kept open on one connection; the one unused for longest goes first.
    public var preparedStatements: Int = 128
    /// The wait after the second failed attempt to connect in a row; it doubles with each one more, up to ``maximumBackoff``.
    public var minimumBackoff: Duration = .milliseconds(20)
    /// Bound on the wait between attempts to connect.
    public var maximumBackoff: Duration = .seconds(1)

    /// Reads `postgresql://user:password@host:port/database?…` or `key=value …`, as libpq does.
    ///
    /// - Throws: `invalidConfiguration`. The message does not repeat the string, which may hold a password.
    public init(url: String) throws(PostgresError) {
        var complaint: UnsafeMutablePointer<CChar>?
        guard let options = PQconninfoParse(url, &complaint) else {
            PQfreemem(complaint)
            throw PostgresError(code: .invalidConfiguration, message: "the connection string cannot be read")
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
        self.settings = settings
    }

    /// The isolation level of every transaction.
    static let isolation = "read committed"

    /// What is handed to libpq: the string's own settings, then ours.
    var connectionSettings: [Setting] {
        let own = [
            "application_name", "client_encoding", "options", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
            "tcp_user_timeout",
        ]
        var result = settings.filter { !own.contains($0.keyword) }
        var options = settings.first { $0.keyword == "options" }?.value ?? ""
        // A database or a role may have another default; the ledger's functions look again after each lock, which only this level lets them.
        options += " -c default_transaction_isolation=\(Self.isolation.split(separator: " ").joined(separator: "\\ "))"
        for (name, bound) in [
            ("statement_timeout", statementTimeout), ("lock_timeout", lockTimeout),
            ("idle_in_transaction_session_timeout", idleInTransactionTimeout),
        ] {
            options += " -c \(name)=\(bound.wholeMilliseconds)"
        }
        result.append(Setting(keyword: "options", value: options))
        result.append(Setting(keyword: "application_name", value: applicationName))
        result.append(Setting(keyword: "client_encoding", value: "UTF8"))
        result.append(Setting(keyword: "keepalives", value: "1"))
        result.append(Setting(keyword: "keepalives_idle", value: "10"))
        result.append(Setting(keyword: "keepalives_interval", value: "3"))
        result.append(Setting(keyword: "keepalives_count", value: "3"))
        result.append(Setting(keyword: "tcp_user_timeout", value: "\(tcpUserTimeout.wholeMilliseconds)"))
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

extension Duration {
    /// Rounded up, so that a small bound never becomes "no bound"; within what a 32-bit setting holds.
    var wholeMilliseconds: Int {
        if self <= .zero { return 0 }
        let (seconds, attoseconds) = components
        if seconds >= 2_000_000 { return 2_000_000_000 }
        return Int(seconds) * 1000 + Int((attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000)
    }
}
