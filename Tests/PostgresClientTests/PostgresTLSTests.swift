import PrivateServers
import Testing

@testable import PostgresClient

/// libpq's TLS settings stand in the address and are handed on to it.
@Suite(.timeLimit(.minutes(5)))
struct PostgresTLSTests {
    private func isEncrypted(_ url: String) async throws -> Bool {
        let connection = try PostgresConnection(configuration: try PostgresConfiguration(url: url))
        let rows = try await connection.query("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        await connection.close()
        return try rows.one().decode(0, as: Bool.self)
    }

    /// The refusal of an address, which no wait would mend.
    private func refusal(_ url: String) async throws -> String {
        var words = ""
        let error = await #expect(throws: PostgresError.self) { try await isEncrypted(url) }
        words = error?.message ?? ""
        #expect(error?.code == .connectFailed && error?.isNotThereYet == false, "\(words)")
        return words
    }

    @Test func theAddressSaysHowTheServerIsChecked() async throws {
        let (certificates, others) = (try PrivateCertificates(), try PrivateCertificates())
        let server = try PrivatePostgres.start(fsync: false, tls: try certificates.sign())
        defer { server.stop() }
        func address(_ host: String, _ root: PrivateCertificates, _ mode: String) -> String {
            "postgresql://postgres@\(host):\(server.port)/postgres?hostaddr=127.0.0.1&sslmode=\(mode)&sslrootcert=\(root.authority)"
        }
        #expect(try await isEncrypted(address("localhost", certificates, "verify-full")))
        #expect(try await isEncrypted(address("elsewhere.example", certificates, "verify-ca")))
        #expect(try await refusal(address("elsewhere.example", certificates, "verify-full")).contains("does not match host name"))
        #expect(try await refusal(address("localhost", others, "verify-full")).contains("certificate verify failed"))
        #expect(try await !isEncrypted("postgresql://postgres@127.0.0.1:\(server.port)/postgres?sslmode=disable"))

        try server.show(try certificates.sign("old", days: -1))
        try server.restart()
        #expect(try await refusal(address("localhost", certificates, "verify-full")).contains("certificate verify failed"))
    }

    @Test func aServerWithoutTLSIsNamed() async throws {
        let certificates = try PrivateCertificates()
        let url = try SharedServer.url() + "?sslmode=verify-full&sslrootcert=\(certificates.authority)"
        #expect(try await refusal(url).contains("does not support SSL"))
    }

    @Test func whatIsNotCheckedIsWarnedOf() throws {
        for (query, isWarned) in [
            ("", false), ("?sslmode=verify-full", false), ("?sslmode=prefer", false), ("?sslmode=verify-ca", true),
            ("?sslmode=require", true),
        ] {
            let configuration = try PostgresConfiguration(url: "postgresql://u:hidden@h/d\(query)")
            #expect((configuration.tlsWarning != nil) == isWarned)
            #expect(configuration.tlsWarning?.contains("hidden") != true)
        }
    }
}
