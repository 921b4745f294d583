import PostgresClient

extension StartWait {
    /// How long a migration waits for a lock before the attempt ends. Then the log can say what the start waits for, and ``wait(for:at:judge:_:)`` counts the time.
    public static let lockWait: Duration = .seconds(2)

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
