/// How long a breaker stays open, by the attempt: 1 for the first opening, one more for each that follows without a recovery in between.
///
/// ```swift
/// let wait = WaitInOpen.exponential(initial: .seconds(1), multiplier: 2, jitter: 0.2, maximum: .seconds(60))
/// ```
public struct WaitInOpen: Sendable {
    enum Kind: Sendable {
        case constant(Duration)
        case exponential(initial: Duration, multiplier: Double, jitter: Double, maximum: Duration)
        case custom(maximum: Duration, @Sendable (_ attempt: Int) -> Duration)
    }

    let kind: Kind

    /// The same wait at every attempt.
    public static func constant(_ wait: Duration) -> Self { Self(kind: .constant(wait)) }

    /// `initial * multiplier ^ (attempt - 1)`, spread evenly over plus or minus `jitter` (a share of the wait, 0 to 1), and never more
    /// than `maximum`.
    public static func exponential(initial: Duration, multiplier: Double = 2, jitter: Double = 0.2, maximum: Duration) -> Self {
        Self(kind: .exponential(initial: initial, multiplier: multiplier, jitter: jitter, maximum: maximum))
    }

    /// A wait of the caller's own. It is called while the breaker holds its lock: it must be quick and must not call the breaker.
    /// What it returns is held between one millisecond and `maximum`.
    public static func custom(maximum: Duration, _ wait: @escaping @Sendable (_ attempt: Int) -> Duration) -> Self {
        Self(kind: .custom(maximum: maximum, wait))
    }

    /// Nanoseconds to wait. `random` is in 0..<1.
    ///
    /// `Backoff` of `BlockingThreads` is not used: here the multiplier is a setting, chance may also make a wait longer, and this library depends on no other
    /// that waits.
    func nanoseconds(attempt: Int, random: Double) -> Int64 {
        switch kind {
        case .constant(let wait):
            return wait.clampedNanoseconds
        case .exponential(let initial, let multiplier, let jitter, let maximum):
            let cap = Double(maximum.clampedNanoseconds)
            var wait = Double(initial.clampedNanoseconds)
            // The loop stops at the cap, so that a large attempt stays in range and is quick: doubling reaches the cap within 64 steps, and a multiplier
            // close to 1 is bounded by the count.
            var steps = min(max(attempt, 1) - 1, 10_000)
            while steps > 0, wait < cap, multiplier > 1 {
                wait *= multiplier
                steps -= 1
            }
            wait = min(wait, cap) * (1 + jitter * (2 * random - 1))
            return Int64(min(max(wait, 1_000_000), cap))
        case .custom(let maximum, let wait):
            return min(max(wait(attempt).clampedNanoseconds, 1_000_000), maximum.clampedNanoseconds)
        }
    }
}
