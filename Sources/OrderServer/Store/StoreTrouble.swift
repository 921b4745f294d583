import APIErrors
import Logging
import PostgresClient
import ServerKit
import StockContract

extension APIError {
    /// The caller's error for an error of PostgreSQL.
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

/// Turns errors of PostgreSQL into errors for callers, and logs them, at most once a second.
struct StoreTrouble: Sendable {
    let logger: Logger
    private let throttle = LogThrottle()

    init(_ logger: Logger) { self.logger = logger }

    /// The caller's error for this error, which is logged.
    /// - Parameter what: what was not done, for the log
    func noted(_ error: PostgresError, _ what: Logger.Message) -> APIError {
        throttle.log(.warning, what, to: logger, metadata: ["error": "\(error)"])
        return APIError(error)
    }

    /// Logs an error of work for which no caller waits, under the same limit: many orders may meet one outage.
    /// - Parameter what: what was not done, for the log
    func note(_ error: any Error, _ what: Logger.Message, _ more: Logger.Metadata = [:]) {
        throttle.log(.warning, what, to: logger, metadata: more.merging(["error": "\(error)"]) { $1 })
    }

    /// Runs a statement, and turns its error into the caller's with ``noted(_:_:)``.
    func noting<Value: Sendable>(
        _ what: Logger.Message,
        _ statement: () async throws(PostgresError) -> Value
    ) async throws(APIError) -> Value {
        do throws(PostgresError) {
            return try await statement()
        } catch {
            throw noted(error, what)
        }
    }
}
