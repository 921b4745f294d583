import BlockingThreads
import PostgresClient

/// An open transaction that holds rows locked, like an operator's session, a report, or a migration that was forgotten.
public final class RowLock: Sendable {
    private let worker: PostgresWorker
    private let release = WakeSignal()

    /// Opens a transaction, runs one statement in it, and returns when the statement has its locks.
    ///
    /// - Parameter sql: for example `select 1 from product_stock where product_id = 1 for update`.
    public init(url: String, _ sql: String) async throws {
        var configuration = try PostgresConfiguration.patient(url)
        configuration.idleInTransactionTimeout = .zero
        // Whoever has the rows now may hold them for a while.
        configuration.lockTimeout = .seconds(120)
        let worker = try PostgresWorker(configuration: configuration, name: "row-lock")
        self.worker = worker
        let release = release
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Void, any Error>) in
            do {
                try worker.submit { session in
                    var isLocked = false
                    do {
                        try session.transaction { transaction in
                            _ = try transaction.query(sql)
                            isLocked = true
                            continuation.resume()
                            release.wait()
                            throw RolledBack()
                        }
                    } catch {
                        if !isLocked { continuation.resume(throwing: error) }
                    }
                }
            } catch {
                continuation.resume(throwing: error)
            }
        }
    }

    /// Rolls the transaction back, and returns when the locks are free.
    public func end() async {
        release.signal()
        await worker.shutdown()
    }

    private struct RolledBack: Error {}
}
