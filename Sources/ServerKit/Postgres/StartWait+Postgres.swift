import PostgresClient

extension StartWait {
    /// Waits for PostgreSQL, as ``wait(for:at:judge:_:)``.
    /// - Parameters:
    ///   - setting: the variable that has its address
    ///   - attempt: uses it, such as migrations
    public func waitForPostgres(at setting: String, _ attempt: @escaping @Sendable () async throws -> Void) async throws {
        try await wait(
            for: "PostgreSQL",
            at: setting,
            judge: { PostgresStartTrouble($0).map { ($0.isNotThereYet, $0.words) } },
            attempt
        )
    }
}
