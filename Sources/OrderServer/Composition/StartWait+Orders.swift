import PostgresClient
import ServerKit

extension StartWait {
    /// Waits for the order database.
    func waitForOrders(_ attempt: @escaping @Sendable () async throws -> Void) async throws {
        try await self.wait(
            for: "PostgreSQL",
            at: "ORDER_DATABASE_URL",
            judge: { PostgresStartTrouble($0).map { ($0.isNotThereYet, $0.words) } },
            attempt
        )
    }
}
