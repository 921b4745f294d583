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

/// Looks again until the condition holds; false after a minute.
func eventually(_ condition: () async throws -> Bool) async rethrows -> Bool {
    let end = ContinuousClock.now + .seconds(60)
    while ContinuousClock.now < end {
        if try await condition() { return true }
        try? await Task.sleep(for: .milliseconds(2))
    }
    return false
}
