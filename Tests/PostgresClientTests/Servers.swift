import PostgresClient
import PrivateServers
import Testing

/// One server for all tests that leave it running.
enum SharedServer {
    private static let started = Result { try PrivatePostgres.start(fsync: false) }

    static func url() throws -> String { try started.get().url }

    static func configuration() throws -> PostgresConfiguration {
        try PostgresConfiguration(url: url())
    }

    static func port() throws -> Int { try started.get().port }
}
