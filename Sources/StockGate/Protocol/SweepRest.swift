// Invariant: a rest ends before any reservation that the sweep saw can be overdue, and before any that was made after it looked. So a reservation is found as soon
//   after it has become overdue as if the sweep had never rested.

/// How long the sweep leaves a product alone after it has looked at its reservations.
package enum SweepRest {
    /// - Parameters:
    ///   - sawAll: whether one step of the sweep saw all of the product's reservations.
    ///   - overdue: how many of them were overdue.
    ///   - oldest: how long the oldest of them has been pending, milliseconds; nil if there was none. Negative where the server that made it has another clock.
    ///   - bound: how long a reservation may be pending, milliseconds.
    ///   - longest: the longest rest, milliseconds. What Redis holds may change in other ways than by reservations.
    /// - Returns: milliseconds, from the look on.
    package static func milliseconds(sawAll: Bool, overdue: Int64, oldest: Int64?, bound: Int64, longest: Int64) -> Int64 {
        guard sawAll, overdue == 0 else { return 0 }
        let (left, overflow) = bound.subtractingReportingOverflow(max(0, oldest ?? 0))
        return overflow ? 0 : max(0, min(left, longest))
    }
}
