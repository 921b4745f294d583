import BlockingThreads
import CLibPQ

/// Where the server is, and how long calls may take. A duration of zero switches off a bound that the server enforces.
///
/// Descriptions and dumps of this value show host, port, database and user, never the password.
public struct PostgresConfiguration: Sendable {
    struct Setting: Sendable {
        var keyword: String
        var value: String
    }

    private(set) var settings: [Setting]
    /// The hosts of the address. All copies of this value share them.
    public private(set) var hosts: PostgresHosts

    /// Bounds the opening of a connection at one host, except name resolution, which the C library does. Give an IP address where that matters. Of the time that
    /// the caller has left, no host gets more than its share: the time is divided by the number of hosts that are still to be tried.
    public var connectTimeout: Duration = .seconds(3)
    /// The server's bound on a statement (`statement_timeout`). Keep it below ``callTimeout``: then the server answers first, and the outcome is known.
    public var statementTimeout: Duration = .seconds(4)
    /// The server's bound on waiting for one lock (`lock_timeout`).
    public var lockTimeout: Duration = .seconds(2)
    /// The client's bound on one call, including the opening of the connection. When it passes, the connection is closed.
    public var callTimeout: Duration = .seconds(5)
    /// The server's bound on an idle open transaction (`idle_in_transaction_session_timeout`).
    public var idleInTransactionTimeout: Duration = .seconds(10)
    /// Bounds how long sent data of the TCP connection may stay unacknowledged (`tcp_user_timeout`).
    public var tcpUserTimeout: Duration = .seconds(10)
    /// Options of every session, as `-c name=value`. Options in the address come after these and win.
    public var options = ""
    /// The name that `pg_stat_activity` shows, unless the address has one.
    public var applicationName: String = "stockgate"
    /// Whether the server must plan with indexes, without reading or sorting whole tables. For statements that read a few rows in an index' order: their plans
    /// are kept, and may have been made while the tables were small.
    public var plansThroughIndexes = false
    /// What stands between this program and the server; see ``Pooler``.
    public private(set) var pooler = Pooler.none
    /// Whether waits for a synchronous standby, which a session leaves behind at the server when it gives up, are ended; see `AbandonedWaits`.
    var endsAbandonedWaits = true
    /// Bounds the prepared statements on one connection. At the bound, the one that was unused for longest is dropped.
    public var preparedStatements: Int = 128
    /// The pause after the second failed attempt to connect in a row. It doubles with each further one, up to ``maximumBackoff``.
    public var minimumBackoff: Duration = .milliseconds(20)
    /// Bounds the pause between attempts to connect.
    public var maximumBackoff: Duration = .seconds(1)

    /// Reads `postgresql://user:password@host:port/database?…` or `key=value …`, as libpq does.
    ///
    /// Several hosts (`host1:5432,host2:5432`) are tried one after the other: first the one that worked last, at the end the one that failed last. Unless the
    /// address says otherwise, only a server that may write is taken then (`target_session_attrs=read-write`).
    ///
    /// `connect_timeout`, `application_name`, `keepalives…` and `tcp_user_timeout` are taken from the address if it has them. An address with a setting that
    /// cannot be honoured is refused.
    /// - Throws: `invalidConfiguration`. The message does not repeat the address, which may hold a password.
    public init(url: String) throws(PostgresError) {
        // libpq takes what follows the first @ of such an address for host, port and database, and names these in its messages.
        let isAddress = ["postgres://", "postgresql://"].contains { url.hasPrefix($0) }
        if isAddress, url.prefix(while: { $0 != "?" }).count(where: { $0 == "@" }) > 1 {
            throw Self.refusal("it has more than one @: in the user's name and the password write %40 for it")
        }
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
            // libpq ignores this setting for connections that are opened step by step, as here. The bound is enforced by the session.
            settings.removeAll { $0.keyword == "connect_timeout" }
        }
        hosts = PostgresHosts(try PostgresHosts.read(settings))
        if hosts.count > 1, !settings.contains(where: { $0.keyword == "target_session_attrs" }) {
            settings.append(Setting(keyword: "target_session_attrs", value: "read-write"))
        }
        self.settings = settings
    }

    /// What stands between a program and its server and gives one session of the server to many clients.
    public enum Pooler: String, Sendable, Hashable, CaseIterable {
        /// Nothing does, or something that gives each connection a session of its own for as long as it lives.
        case none
        /// Each transaction runs in any session of the server, as with PgBouncer's `pool_mode = transaction`. Nothing of a session is used then: no named
        /// statement, no lock that outlives its transaction, no LISTEN. Bounds and settings are set in each transaction, in the round trip that begins it.
        case transaction
    }

    /// Says what stands in front of the server.
    /// - Throws: `invalidConfiguration` if the address has settings that a pooler cannot keep
    public mutating func use(_ pooler: Pooler) throws(PostgresError) {
        if pooler == .transaction, settings.contains(where: { $0.keyword == "options" }) {
            throw Self.refusal("its options would be lost in a pooler: set them for the role or the database")
        }
        self.pooler = pooler
    }

    /// What an operator must know where the address asks for TLS, but leaves out a check that TLS offers; nil if nothing is left out, or no TLS is asked for.
    public var tlsWarning: String? {
        switch settings.first(where: { $0.keyword == "sslmode" })?.value {
        case "require":
            "sslmode=require: unless there is a root certificate, the server's is not checked, so that whoever stands between can read and change everything"
        case "verify-ca": "sslmode=verify-ca: any server whose certificate the root certificate has signed is taken for this one"
        default: nil
        }
    }

    /// The message names libpq's own keywords, never a value, which may be a part of a password.
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

    /// The option names in `-c name=value`, `-cname=value` and `--name=value`.
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

    /// The settings for libpq: those of the address, then those of this program.
    var connectionSettings: [Setting] {
        var result = settings.filter { $0.keyword != "options" && $0.keyword != "client_encoding" }
        // A pooler knows no options: each transaction has them instead.
        if pooler == .transaction { return result + remainingSettings }
        var options = [self.options, settings.first { $0.keyword == "options" }?.value ?? ""].filter { !$0.isEmpty }.joined(separator: " ")
        // The database or the role may have another default level. The ledger's functions look again after each lock, which works at this level only.
        options += " -c default_transaction_isolation=\(Self.isolation.split(separator: " ").joined(separator: "\\ "))"
        for setting in sessionSettings { options += " -c \(setting.keyword)=\(setting.value)" }
        result.append(Setting(keyword: "options", value: options))
        return result + remainingSettings
    }

    /// The bounds and the planner's settings of every session; behind a pooler, of every transaction.
    private var sessionSettings: [Setting] {
        var result = [
            ("statement_timeout", statementTimeout), ("lock_timeout", lockTimeout),
            ("idle_in_transaction_session_timeout", idleInTransactionTimeout),
        ].map { Setting(keyword: $0.0, value: "\($0.1.wholeMilliseconds)") }
        if plansThroughIndexes {
            result += ["seqscan", "sort", "hashjoin", "mergejoin"].map { Setting(keyword: "enable_\($0)", value: "off") }
        }
        return result
    }

    /// What begins a transaction behind a pooler, one statement each.
    ///
    /// Other clients may have changed the settings of the same session of the server. So search path and durability are what the role and the database say,
    /// whatever a client has left behind, and everything else that counts is set. All of it ends with the transaction.
    var transactionOpening: [String] {
        let own = options.split(separator: " ").filter { $0 != "-c" }.map { $0.split(separator: "=", maxSplits: 1) }.filter {
            $0.count == 2
        }
        let settings = own.map { Setting(keyword: String($0[0]), value: String($0[1])) } + sessionSettings
        func quoted(_ text: String) -> String { "'" + text.replacing("'", with: "''") + "'" }
        let calls = settings.map { "set_config(\(quoted($0.keyword)), \(quoted($0.value)), true)" }
        let restored = ["search_path", "synchronous_commit"].filter { name in !settings.contains { $0.keyword == name } }
        return ["BEGIN ISOLATION LEVEL \(Self.isolation.uppercased())"] + restored.map { "SET LOCAL \($0) TO DEFAULT" }
            + ["SELECT \(calls.joined(separator: ", "))"]
    }

    private var remainingSettings: [Setting] {
        var result = [Setting(keyword: "client_encoding", value: "UTF8")]
        for (keyword, value) in [
            ("application_name", applicationName), ("keepalives", "1"), ("keepalives_idle", "10"), ("keepalives_interval", "3"),
            ("keepalives_count", "3"), ("tcp_user_timeout", "\(tcpUserTimeout.wholeMilliseconds)"),
        ] where !settings.contains(where: { $0.keyword == keyword }) {
            result.append(Setting(keyword: keyword, value: value))
        }
        return result
    }

    /// The settings for libpq that lead to one host alone.
    func connectionSettings(host index: Int) -> [Setting] {
        guard hosts.count > 1 else { return connectionSettings }
        let host = hosts.hosts[index]
        var result = connectionSettings.filter { !["host", "hostaddr", "port"].contains($0.keyword) }
        for (keyword, value) in [("host", host.host), ("hostaddr", host.address), ("port", host.port)] {
            if let value { result.append(Setting(keyword: keyword, value: value)) }
        }
        return result
    }

    /// This configuration with one of its hosts alone, whatever kind of server that is. The copy shares nothing with this value.
    func leading(to host: Int) -> PostgresConfiguration {
        var result = self
        let one = hosts.hosts[host]
        result.hosts = PostgresHosts([one])
        result.settings.removeAll { ["host", "hostaddr", "port", "target_session_attrs"].contains($0.keyword) }
        for (keyword, value) in [("host", one.host), ("hostaddr", one.address), ("port", one.port)] {
            if let value { result.settings.append(Setting(keyword: keyword, value: value)) }
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
