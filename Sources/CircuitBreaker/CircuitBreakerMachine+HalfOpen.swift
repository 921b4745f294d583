// Half-open: the recovery, then the probes, whose results close the breaker or open it again.

extension CircuitBreakerMachine {
    mutating func admitProbe(at now: Int64) -> (Admission, Action) {
        endOverdueProbes(at: now)
        guard case .probing(var probing) = phase else {
            // The look at the leases has decided: the breaker is open, or closed by the results that were in. A wait in open is never
            // zero, so this asks again at most once.
            return admitted(after: admit(at: now))
        }
        guard let permit = probing.take(generation: generation, at: now) else { return admitted(after: reject(.probesTaken, at: now)) }
        // This call probes, so the next health check is not due before an interval has passed.
        probing.nextCheckAt = now.addingClamped(policy.healthCheckInterval)
        phase = .probing(probing)
        return (.permitted(permit), .publish)
    }

    private func admitted(after step: (Admission, Action)) -> (Admission, Action) {
        step.1 == .none && !pendingEvents.isEmpty ? (step.0, .publish) : step
    }

    mutating func recordProbe(_ outcome: CallOutcome, for permit: Permit, at now: Int64) -> (RecordResult, Action) {
        guard case .probing(var probing) = phase else { return (.late, .none) }
        // A result that comes after its lease has ended is late, also when the end of the lease has not been noticed yet.
        let duration = now.subtractingClamped(permit.startedAt.nanoseconds)
        let isInTime = duration < policy.permitLease && probing.deadline > now
        guard isInTime, probing.giveBack(permit) else {
            endOverdueProbes(at: now)
            totals.lateResults += 1
            return (.late, pendingEvents.isEmpty ? .none : .publish)
        }
        var result = RecordResult.counted
        switch outcome {
        case .ignored, .cancelled:
            totals.excluded += 1
            result = .gaveBack
        case .success, .failure:
            let slow = duration > policy.slowCallDuration
            let failed = if case .failure = outcome { true } else { false }
            probing.count(failed: failed, slow: slow)
            count(failed: failed, slow: slow, duration: duration)
            if failed || slow { noteTrouble(outcome, duration: duration, slow: slow, at: now) }
        }
        phase = .probing(probing)
        endOverdueProbes(at: now)
        // Another lease may be the next to end, so the shell must set its timer anew.
        return (result, .publish)
    }

    /// In half-open with probes: ends leases, and goes on when the probes are decided or half-open has taken too long.
    mutating func endOverdueProbes(at now: Int64) {
        guard case .probing(var probing) = phase else { return }
        let ended = probing.endLeases(at: now, lease: policy.permitLease)
        totals.endedLeases += UInt64(ended)
        totals.failed += UInt64(ended)
        totals.slow += UInt64(ended)
        for _ in 0..<ended { emit(.permitLeaseEnded, at: now) }
        phase = .probing(probing)
        let verdict = probing.verdict(
            overdue: overdueProbes(probing, at: now),
            failureThreshold: policy.halfOpenFailureRateThreshold,
            slowThreshold: policy.halfOpenSlowCallRateThreshold
        )
        switch verdict {
        case .recovered: close(because: .probesSucceeded, ramps: true, at: now)
        case .failureRate(let percent): open(because: .failureRate(percent: percent), at: now)
        case .slowCallRate(let percent): open(because: .slowCallRate(percent: percent), at: now)
        case .undecided: if now >= probing.deadline { open(because: .halfOpenTimedOut, at: now) }
        }
    }

    func overdueProbes(_ probing: Probing, at now: Int64) -> Int {
        policy.countsRunningSlowCalls ? probing.overdue(at: now, threshold: policy.slowCallDuration) : 0
    }

    mutating func enterHalfOpen(because reason: TransitionReason, closesDirectly: Bool, at now: Int64) -> Action {
        guard policy.hasRecovery else {
            enter(.probing(newProbing(at: now)), because: reason, at: now)
            return .publish
        }
        enter(.recovering(Recovery(startedAt: now, closesDirectly: closesDirectly)), because: reason, at: now)
        emit(.recoveryStarted(attempt: attempt), at: now)
        return .startRecovery(run: generation)
    }

    private func newProbing(at now: Int64) -> Probing {
        Probing(
            permitted: policy.permittedCallsInHalfOpen,
            at: now,
            maximumTime: policy.maximumTimeInHalfOpen,
            nextCheckAt: now.addingClamped(policy.healthCheckInterval)
        )
    }

    /// The recovery's run has succeeded.
    mutating func recoveryPassed(run: UInt64, at now: Int64) -> Action {
        guard run == generation, case .recovering(let recovery) = phase else { return .none }
        emit(.recoveryPassed(duration: .nanoseconds(max(now - recovery.startedAt, 0))), at: now)
        if recovery.closesDirectly {
            close(because: .recoveryPassed, ramps: true, at: now)
        } else {
            // The state is the same half-open, and no permit of its generation is out. So the generation stays.
            phase = .probing(newProbing(at: now))
        }
        return .publish
    }

    /// The recovery's run has failed or taken too long.
    mutating func recoveryFailed(run: UInt64, failure: RecoveryFailure, at now: Int64) -> Action {
        guard run == generation, case .recovering(let recovery) = phase else { return .none }
        let duration = Duration.nanoseconds(max(now - recovery.startedAt, 0))
        switch failure {
        case .failed(let label):
            emit(.recoveryFailed(label: label.cut, duration: duration), at: now)
            open(because: .recoveryFailed(label: label.cut), at: now)
        case .timedOut:
            emit(.recoveryFailed(label: "timed out", duration: duration), at: now)
            open(because: .recoveryTimedOut, at: now)
        }
        return .publish
    }
}
