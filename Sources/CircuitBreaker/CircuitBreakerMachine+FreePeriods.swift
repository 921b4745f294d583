// Periods in which calls are counted without asking the machine.

extension CircuitBreakerMachine {
    /// The free period that `now` is in, if it is in one. The shell has to tell the machine of the calls in it by ``absorb(_:)`` before the period ends, and
    /// before it asks the machine anything else.
    ///
    /// During it no running call becomes overdue and no result leaves a time-based window: only new results can move a rate. A quick success raises a rate in
    /// one case alone, which is no free period: it brings the number of calls up to the minimum.
    func freePeriod(around now: Int64) -> FreePeriod? {
        guard case .closed(let ramp) = phase, ramp.startedAt == nil, pendingEvents.isEmpty, let period = running.period else { return nil }
        let counts = window.counts
        let isUntroubled = counts.failed == 0 && counts.slow &+ running.overdue == 0
        guard isUntroubled || counts.calls >= policy.minimumNumberOfCalls else { return nil }
        let until = min(period.upperBound, window.changesAt)
        guard now >= period.lowerBound, now < until else { return nil }
        return FreePeriod(
            generation: generation,
            from: period.lowerBound,
            until: until,
            longest: policy.slowCallDuration,
            shift: running.youngShift
        )
    }

    /// Counts the calls of a free period of the present generation.
    mutating func absorb(_ calls: FreeCalls) {
        running.add(calls)
        window.recordSuccesses(calls.succeeded)
        totals.succeeded &+= calls.succeeded
        totals.succeededNanoseconds &+= calls.nanoseconds
    }
}
