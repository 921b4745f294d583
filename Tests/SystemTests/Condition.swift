import Eventually

/// Waits until a condition holds, as ``Eventually`` does; asks every 20 ms, since a whole stack shares the machine with the question.
///
/// For what is a matter of moments on any machine. The bound only ends a wait that would never end: what takes as long as the machine is slow is waited for with
/// `eventuallyNone` or `eventuallyAtLeast`, which fail when nothing moves any more.
/// - Throws: `NotInTime` with the condition's name when the bound passes first
func until(
    isolation: isolated (any Actor)? = #isolation,
    _ what: @autoclosure () -> String,
    within bound: Duration = .seconds(60),
    _ holds: () async throws -> Bool
) async throws {
    try await eventually(what(), within: bound, every: .milliseconds(20), holds)
}
