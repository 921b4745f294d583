/// How a permitted call ended, as its caller judges it. Whether it was slow is measured, not told.
///
/// ```swift
/// breaker.record(isSoldOut ? .success : .failure("timeout"), for: permit)
/// ```
public enum CallOutcome: Sendable, Hashable {
    /// The callee answered. A refusal by its rules (sold out, not found) is an answer.
    case success
    /// The callee is in trouble. The label is a short reason for the events; it is cut at 200 bytes of UTF-8.
    case failure(_ label: String = "error")
    /// The call says nothing about the callee: it is not counted and gives its probe slot back.
    case ignored
    /// The caller gave up for reasons of its own: it is not counted and gives its probe slot back.
    case cancelled
}

/// What became of a recorded outcome.
///
/// ```swift
/// if breaker.record(.success, for: permit) == .late { lateResults += 1 }
/// ```
public enum RecordResult: Sendable, Hashable {
    /// It was counted.
    case counted
    /// It was excluded or cancelled: not counted, and a probe's slot is free again.
    case gaveBack
    /// It belongs to an earlier state, its lease had ended, or it was recorded before: nothing changed but ``CircuitBreakerSnapshot/Totals/lateResults``.
    case late
    /// The breaker counts nothing (``CircuitBreakerState/disabled``).
    case notRecorded
}
