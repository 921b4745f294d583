import Testing

@testable import PostgresClient

/// Addresses are libpq's: what it takes is taken, and what is in them is honoured or refused.
@Suite struct AddressTests {
    private func settings(_ url: String) throws -> [String: String] {
        let all = try PostgresConfiguration(url: url).connectionSettings
        // libpq takes the last of two; there are none.
        #expect(Set(all.map(\.keyword)).count == all.count)
        return Dictionary(all.map { ($0.keyword, $0.value) }) { first, _ in first }
    }

    @Test(
        arguments: [
            ("postgresql://user@/db?host=/cloudsql/project:region:instance", "/cloudsql/project:region:instance"),
            ("host=/cloudsql/x dbname=db user=user", "/cloudsql/x"),
            ("  host = db.internal   dbname = 'db'  user=user password='it''s'  ", "db.internal"),
            ("postgres://user:p%40ss@[::1]:5433/db", "::1"), ("postgresql://user@a:1,b:2/db?target_session_attrs=read-write", "a,b"),
            ("postgresql:///db?user=user&host=h", "h"),
        ]
    )
    func everyFormOfTheLibrary(url: String, host: String) throws {
        // A quote inside quotes is escaped by a backslash there, not doubled.
        let url = url.split(separator: "''").count == 2 ? String(url.split(separator: "''").joined(separator: "\\'")) : url
        let settings = try settings(url)
        #expect(settings["host"] == host)
        #expect(settings["dbname"] == "db" && settings["user"] == "user")
    }

    @Test func whatIsInTheAddressIsHonoured() throws {
        let configuration = try PostgresConfiguration(url: "postgresql://u@h/d?connect_timeout=7&application_name=till&sslmode=require")
        #expect(configuration.connectTimeout == .seconds(7))
        var named = configuration
        named.applicationName = "product-server"
        named.options = "-c enable_seqscan=off"
        let settings = Dictionary(named.connectionSettings.map { ($0.keyword, $0.value) }) { first, _ in first }
        #expect(settings["application_name"] == "till" && settings["sslmode"] == "require" && settings["connect_timeout"] == nil)
        #expect(settings["options"]?.hasPrefix("-c enable_seqscan=off -c default_transaction_isolation=read\\ committed") == true)
        let kept = try self.settings("postgresql://h/d?keepalives_idle=99&tcp_user_timeout=1234&options=-c%20work_mem%3D8MB")
        #expect(kept["keepalives_idle"] == "99" && kept["keepalives_interval"] == "3" && kept["tcp_user_timeout"] == "1234")
        #expect(kept["options"]?.hasPrefix("-c work_mem=8MB -c ") == true)
        #expect(try self.settings("postgresql://h/d")["application_name"] == "stockgate")
    }

    /// An operator's option wins over one of the program's, which stands in front of it.
    @Test func theOperatorsOptionsWin() throws {
        let base = try SharedServer.configuration()
        var configuration = try PostgresConfiguration(
            url: "host=127.0.0.1 port=\(try SharedServer.port()) user=postgres dbname=postgres options='-c enable_sort=on'"
        )
        configuration.options = "-c enable_sort=off -c enable_seqscan=off"
        let session = PostgresSession(configuration: configuration)
        #expect(try session.query("SHOW enable_sort").one().decode(0, as: String.self) == "on")
        #expect(try session.query("SHOW enable_seqscan").one().decode(0, as: String.self) == "off")
        #expect(try PostgresSession(configuration: base).query("SHOW enable_seqscan").one().decode(0, as: String.self) == "on")
    }

    @Test(
        arguments: [
            ("postgresql://u:hidden@h/d?client_encoding=LATIN1", "client_encoding"),
            ("postgresql://u:hidden@h/d?replication=database", "replication"),
            ("host=h password=hidden fallback_application_name=x", "fallback_application_name"),
            ("postgresql://u:hidden@h/d?connect_timeout=0", "connect_timeout"),
            ("postgresql://u:hidden@h/d?connect_timeout=soon", "connect_timeout"),
            ("postgresql://u:hidden@h/d?options=-c%20statement_timeout%3D1", "statement_timeout"),
            ("postgresql://u:hidden@h/d?options=-clock_timeout%3D1", "lock_timeout"),
            (
                "postgresql://u:hidden@h/d?options=-c%20work_mem%3D8MB%20--idle-in-transaction-session-timeout%3D1",
                "idle_in_transaction_session_timeout"
            ),
            ("postgresql://u:hidden@h/d?options=-c%20default_transaction_isolation%3Dserializable", "default_transaction_isolation"),
            ("postgresql://u:hidden@h/d?hidden=1", "cannot be read"), ("host=h password=hidden word hidden", "cannot be read"),
            ("postgresql://u:hid%qqden@h/d", "cannot be read"), ("postgresql://u:p@hidden@h/d", "%40"),
            ("postgresql://u:p@h/hidden@h/d", "%40"), ("postgresql://u:hidden/x@h/d", "port"), ("host=h port=hidden", "port"),
        ]
    )
    func whatCannotBeHonouredIsRefused(url: String, named: String) {
        let error = #expect(throws: PostgresError.self) { try PostgresConfiguration(url: url) }
        #expect(error?.code == .invalidConfiguration)
        #expect(error?.message.contains(named) == true)
        #expect(error?.description.contains("hid") == false)
    }

    @Test func whatIsSetAsItIsAnyway() throws {
        #expect(try settings("postgresql://h/d?client_encoding=utf8")["client_encoding"] == "UTF8")
    }
}
