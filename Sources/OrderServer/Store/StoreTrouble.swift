import APIErrors
import Logging
import PostgresClient
import ServerKit
import StockContract

extension APIError {
    /// What a caller is told when PostgreSQL did not do what was asked.
    init(_ error: PostgresError) {
        if error.code == .poolExhausted {
            self.init(.overloaded)
        } else if error.sqlState == "55P03" {
            // `lock_not_available`
            self.init(.lockTimeout)
        } else {
            self.init(.unavailable, retryAfter: max(error.retryAfter ?? .zero, .seconds(1)))
        }
    }
}

/// Makes errors of what PostgreSQL did not do, and says so in the log, once a second at most.
struct StoreTrouble: Sendable {
    let logger: Logger
    private let throttle = LogThrottle()

    init(_ logger: Logger) { self.logger = logger }

    /// The caller's error.
    /// - Parameter what: what was not done, for the log
    func noted(_ error: PostgresError, _ what: Logger.Message) -> APIError {
        self.throttle.log(.warning, what, to: self.logger, metadata: ["error": "\(error)"])
        return APIError(error)
    }

    /// Runs a statement; ``noted(_:_:)`` makes the error.
    func noting<Value: Sendable>(
        _ what: Logger.Message,
        _ statement: () async throws(PostgresError) -> Value
    ) async throws(APIError) -> Value {
        do throws(PostgresError) {
            return try await statement()
        } catch {
            throw self.noted(error, what)
        }
    }
}
