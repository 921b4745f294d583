/// Waits until a condition holds; asks again every 20 ms.
/// - Throws: `SystemFailure` with the condition's name when the deadline passes first
func until(
    isolation: isolated (any Actor)? = #isolation,
    _ what: String,
    within bound: Duration = .seconds(20),
    _ holds: () async throws -> Bool
) async throws {
    let deadline = ContinuousClock.now + bound
    while try await !holds() {
        guard ContinuousClock.now < deadline else { throw SystemFailure(description: "not within \(bound): \(what)") }
        try await Task.sleep(for: .milliseconds(20))
    }
}
