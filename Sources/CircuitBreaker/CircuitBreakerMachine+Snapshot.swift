// What a reader is shown.

extension CircuitBreakerMachine {
    /// All figures at `now`. Changes nothing.
    func snapshot(name: String, unixMilliseconds: Int64, at now: Int64) -> CircuitBreakerSnapshot {
        var counts = CallCounts()
        var overdue = 0
        var minimum = policy.minimumNumberOfCalls
        var open: Open?
        var probing: Probing?
        var isRecovering = false
        var share: Double?
        switch phase {
        case .closed(let ramp):
            counts = window.counts(at: now)
            overdue = running.overdue(at: now)
            share = ramp.startedAt.map { self.share(since: $0, at: now) }
        case .metricsOnly:
            counts = window.counts(at: now)
            overdue = running.overdue(at: now)
        case .open(let value):
            counts = countsAtOpening
            // The calls that opened the breaker make a rate, also where they were the few probes of half-open and so fewer than the minimum.
            overdue = overdueAtOpening
            minimum = min(minimum, max(counts.calls, 1))
            open = value
        case .recovering:
            isRecovering = true
        case .probing(let value):
            counts = value.counts
            overdue = overdueProbes(value, at: now)
            minimum = min(minimum, policy.permittedCallsInHalfOpen)
            probing = value
        case .disabled, .forcedOpen:
            break
        }
        let rates = rates(counts, overdue: overdue, minimum: minimum)
        let isHalfOpen = state == .halfOpen
        let remaining = open.map { max($0.until - now, 0) }
        return CircuitBreakerSnapshot(
            name: name,
            state: state,
            generation: generation,
            failureRate: rates.failure,
            slowCallRate: rates.slow,
            bufferedCalls: counts.calls,
            failedCalls: counts.failed,
            slowCalls: counts.slow,
            slowFailedCalls: counts.slowFailed,
            runningSlowCalls: overdue,
            notPermittedCalls: notPermittedInState,
            failureRateThreshold: isHalfOpen ? policy.halfOpenFailureRateThreshold : policy.failureRateThreshold,
            slowCallRateThreshold: isHalfOpen ? policy.halfOpenSlowCallRateThreshold : policy.slowCallRateThreshold,
            openRemaining: remaining.map { .nanoseconds($0) },
            openUntil: open.map { CircuitBreakerInstant(nanoseconds: $0.until) },
            openUntilUnixMilliseconds: open.map { unixMilliseconds.addingClamped($0.until.subtractingClamped(now) / 1_000_000) },
            attempt: attempt,
            isRecoveryRunning: isRecovering,
            permittedCallsInHalfOpen: policy.permittedCallsInHalfOpen,
            remainingProbes: probing?.remaining ?? 0,
            probesInFlight: probing?.inFlight ?? 0,
            rampShare: share,
            instant: CircuitBreakerInstant(nanoseconds: now),
            unixMilliseconds: unixMilliseconds,
            totals: totals
        )
    }
}
