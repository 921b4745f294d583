import PostgresClient
import ServerKit
import Testing

@testable import OrderServer

/// The addresses of this server's settings: what the libraries take, and refusals that name the variable and nothing else.
@Suite("Addresses") struct AddressSettingsTests {
    private func settings(_ environment: [String: String]) throws -> OrderServerConfiguration {
        var reader = SettingsReader(environment: environment)
        return try OrderServerConfiguration(from: &reader)
    }

    @Test("what libpq takes is taken, and the statements in groups have their plans with it")
    func taken() throws {
        for url in [
            "postgresql://user@/db?host=/cloudsql/project:region:instance", "host=/cloudsql/x dbname=db user=user password='a b'",
            " postgresql://user:pass@a,b/db?options=-c%20work_mem%3D8MB ",
        ] {
            let settings = try settings(["ORDER_DATABASE_URL": url, "AMQP_URL": " amqp://u:p@h "])
            #expect(settings.groupPostgres.options.contains("enable_seqscan=off"))
            #expect(settings.relayPostgres.options.contains("synchronous_commit=off"))
            #expect(settings.postgres.options.isEmpty)
        }
    }

    @Test("a pooler before the database counts for every session, and options that it would lose are refused")
    func pooled() throws {
        let pooled = try settings(["DATABASE_POOLER": "Transaction", "ORDER_DATABASE_URL": "postgresql://u@h/d"])
        #expect([pooled.postgres, pooled.groupPostgres, pooled.relayPostgres].allSatisfy { $0.pooler == .transaction })
        #expect(try settings(["ORDER_DATABASE_URL": "postgresql://u@h/d"]).postgres.pooler == .none)
        for (url, pooler, words) in [
            ("postgresql://u:hidden@h/d?options=-c%20work_mem%3Dhidden", "transaction", "ORDER_DATABASE_URL: its options would be lost"),
            ("postgresql://u@h/d", "statement", "DATABASE_POOLER"),
        ] {
            let error = #expect(throws: SettingsError.self) { try settings(["DATABASE_POOLER": pooler, "ORDER_DATABASE_URL": url]) }
            #expect(error?.faults.count == 1 && error?.faults.first?.contains(words) == true, "\(String(describing: error))")
            #expect(error?.description.contains("hidden") == false)
        }
    }

    @Test("what TLS leaves unchecked is warned of, once for each address, and an address that checks all is not")
    func warned() throws {
        var reader = SettingsReader(environment: [
            "ORDER_DATABASE_URL": "postgresql://u:hidden@h/d?sslmode=require", "AMQP_URL": "amqps://u:hidden@h/v?sslmode=verify-ca",
            "PRODUCT_SERVER_URL": "https://h:1?sslmode=require,https://h:2", "PRODUCT_INTERNAL_URL": "https://h:3",
        ])
        _ = try OrderServerConfiguration(from: &reader)
        let names = reader.warnings.map { String($0.prefix { $0 != ":" }) }
        #expect(names == ["ORDER_DATABASE_URL", "PRODUCT_SERVER_URL", "AMQP_URL"])
        #expect(!reader.warnings.joined().contains("hidden"))
    }

    @Test("each refusal names its variable, and none repeats a value")
    func refused() {
        for (name, value) in [
            ("ORDER_DATABASE_URL", "mysql://u:hidden@h/d"), ("ORDER_DATABASE_URL", "hidden"),
            ("ORDER_DATABASE_URL", "host=h application_name=x password=hidden client_encoding=latin1"),
            ("AMQP_URL", "amqp://u:hidden@h/v?heartbeat=3"), ("AMQP_URL", "amqps://u:hidden@h?sslmode=prefer"), ("AMQP_URL", "hidden"),
            ("AMQP_URL", "amqp://u:hidden@a,a/v"), ("AMQP_URL", "amqp://u:hidden@a,:1/v"),
            ("AMQP_URL", "amqps://u:p@h?sslrootcert=/nowhere/hidden"),
            ("PRODUCT_SERVER_URL", "https://h?sslrootcert=/nowhere/hidden"), ("PRODUCT_INTERNAL_URL", "https://h?sslcert=a&sslkey=hidden"),
        ] {
            let error = #expect(throws: SettingsError.self) { try settings([name: value]) }
            #expect(error?.faults.count == 1 && error?.faults.first?.hasPrefix("\(name): ") == true, "\(String(describing: error))")
            #expect(error?.description.contains("hidden") == false)
        }
    }
}
