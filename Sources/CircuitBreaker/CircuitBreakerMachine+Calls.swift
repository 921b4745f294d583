// What a call is told when it asks, and what its result changes while the breaker is closed, ramps up, or keeps metrics only.

extension CircuitBreakerMachine {
    /// A call asks to be let through.
    mutating func admit(at now: Int64) -> (Admission, Action) {
        switch phase {
        case .closed(let ramp):
            if running.advance(to: now), let reason = reachedThreshold(at: now) {
                open(because: reason, at: now)
                return reject(.open, at: now)
            }
            if ramp.startedAt != nil, !passesRamp(ramp, at: now) { return reject(.ramp, at: now) }
            running.add(startedAt: now)
            return (.permitted(permit(at: now)), pendingEvents.isEmpty ? .none : .publish)
        case .metricsOnly:
            if running.advance(to: now) { noteCrossings(at: now) }
            running.add(startedAt: now)
            return (.permitted(permit(at: now)), pendingEvents.isEmpty ? .none : .publish)
        case .disabled:
            return (.permitted(.unrecorded(at: now)), .none)
        case .forcedOpen:
            return reject(.forcedOpen, at: now)
        case .open(let open):
            guard now >= open.until else { return reject(.open, at: now) }
            let action = enterHalfOpen(because: .waitElapsed, closesDirectly: false, at: now)
            guard case .publish = action else { return (reject(.recovery, at: now).0, action) }
            return admitProbe(at: now)
        case .recovering:
            return reject(.recovery, at: now)
        case .probing:
            return admitProbe(at: now)
        }
    }

    private func permit(at now: Int64) -> Permit { Permit(generation: generation, at: now) }

    mutating func reject(_ reason: Rejection.Reason, at now: Int64) -> (Admission, Action) {
        absorbRejections(1, at: now)
        var retryAfter: Int64 = -1
        if case .open(let open) = phase { retryAfter = max(open.until - now, 0) }
        let rejection = Rejection(state: state, reason: reason, retryAfterNanoseconds: retryAfter)
        return (.rejected(rejection), pendingEvents.isEmpty ? .none : .publish)
    }

    /// Calls were rejected, here or by the shell without asking.
    mutating func absorbRejections(_ count: UInt64, at now: Int64) {
        guard count > 0 else { return }
        totals.notPermitted += count
        notPermittedInState += count
        rejectedSinceEvent += count
        guard now >= nextRejectionEventAt else { return }
        emit(.callsRejected(count: rejectedSinceEvent), at: now)
        rejectedSinceEvent = 0
        nextRejectionEventAt = now.addingClamped(policy.rejectionEventInterval)
    }

    /// A permitted call has ended.
    mutating func record(_ outcome: CallOutcome, for permit: Permit, at now: Int64) -> (RecordResult, Action) {
        guard permit.generation == generation else {
            if permit.generation == 0 { return (.notRecorded, .none) }
            totals.lateResults += 1
            return (.late, .none)
        }
        switch phase {
        case .closed, .metricsOnly:
            running.remove(startedAt: permit.startedAt.nanoseconds)
            let failed: Bool
            switch outcome {
            case .success: failed = false
            case .failure: failed = true
            case .ignored, .cancelled:
                totals.excluded += 1
                return (.gaveBack, .none)
            }
            let duration = now &- permit.startedAt.nanoseconds
            let slow = duration > policy.slowCallDuration
            window.record(failed: failed, slow: slow, at: now)
            count(failed: failed, slow: slow, duration: duration)
            _ = running.advance(to: now)
            if failed || slow { noteTrouble(outcome, duration: duration, slow: slow, at: now) }
            settle(at: now)
            return (.counted, pendingEvents.isEmpty ? .none : .publish)
        case .probing:
            return recordProbe(outcome, for: permit, at: now)
        case .open, .recovering, .disabled, .forcedOpen:
            // No permit carries a generation of these.
            totals.lateResults += 1
            return (.late, .none)
        }
    }

    @inline(__always)
    mutating func count(failed: Bool, slow: Bool, duration: Int64) {
        // A clock that went back counts as no time.
        if failed {
            totals.failed &+= 1
            totals.failedNanoseconds &+= max(duration, 0)
        } else {
            totals.succeeded &+= 1
            totals.succeededNanoseconds &+= max(duration, 0)
        }
        if slow { totals.slow &+= 1 }
    }

    @inline(never)
    mutating func noteTrouble(_ outcome: CallOutcome, duration: Int64, slow: Bool, at now: Int64) {
        let duration = Duration.nanoseconds(max(duration, 0))
        if case .failure(let label) = outcome { emit(.error(label: label.cut, duration: duration), at: now) }
        if slow, case .failure = outcome {
            emit(.slowCall(duration: duration, failed: true), at: now)
        } else if slow {
            emit(.slowCall(duration: duration, failed: false), at: now)
        }
    }

    /// After a result in closed or metrics-only: opens, or tells of a rate, where one has reached its threshold.
    @inline(__always)
    private mutating func settle(at now: Int64) {
        if case .closed = phase {
            if let reason = reachedThreshold(at: now) { open(because: reason, at: now) }
        } else {
            noteCrossings(at: now)
        }
    }

    /// The rate that has reached its threshold, if one has.
    @inline(__always)
    private mutating func reachedThreshold(at now: Int64) -> TransitionReason? {
        window.advance(to: now)
        let counts = window.counts
        let overdue = running.overdue
        guard counts.calls &+ overdue >= policy.minimumNumberOfCalls, counts.failed > 0 || counts.slow &+ overdue > 0 else { return nil }
        if counts.calls >= policy.minimumNumberOfCalls {
            let failures = percent(counts.failed, of: counts.calls)
            if failures >= policy.failureRateThreshold { return .failureRate(percent: failures) }
        }
        let slow = percent(counts.slow &+ overdue, of: counts.calls &+ overdue)
        return slow >= policy.slowCallRateThreshold ? .slowCallRate(percent: slow) : nil
    }

    private mutating func noteCrossings(at now: Int64) {
        guard case .metricsOnly(var crossing) = phase else { return }
        window.advance(to: now)
        let rates = rates(window.counts, overdue: running.overdue, minimum: policy.minimumNumberOfCalls)
        let failed = rates.failure ?? 0 >= policy.failureRateThreshold
        if failed, !crossing.failureRate { emit(.failureRateReached(percent: rates.failure ?? 0), at: now) }
        let slow = rates.slow ?? 0 >= policy.slowCallRateThreshold
        if slow, !crossing.slowCallRate { emit(.slowCallRateReached(percent: rates.slow ?? 0), at: now) }
        crossing.failureRate = failed
        crossing.slowCallRate = slow
        phase = .metricsOnly(crossing)
    }

    func rates(_ counts: CallCounts, overdue: Int, minimum: Int) -> (failure: Double?, slow: Double?) {
        (
            counts.calls >= minimum && counts.calls > 0 ? percent(counts.failed, of: counts.calls) : nil,
            counts.calls + overdue >= minimum && counts.calls + overdue > 0
                ? percent(counts.slow + overdue, of: counts.calls + overdue) : nil
        )
    }

    // MARK: The ramp

    func share(since start: Int64, at now: Int64) -> Double {
        let progress = Double(max(now - start, 0)) / Double(policy.rampDuration)
        return min(policy.rampInitialShare + (1 - policy.rampInitialShare) * progress, 1)
    }

    /// Whether this call is in the share that passes. The share is met evenly and without chance: every call adds the share to a credit, and a call passes
    /// when the credit reaches a whole.
    private mutating func passesRamp(_ ramp: Ramp, at now: Int64) -> Bool {
        guard let start = ramp.startedAt else { return true }
        let share = share(since: start, at: now)
        if share >= 1 {
            phase = .closed(Ramp())
            attempt = 0
            emit(.rampEnded, at: now)
            return true
        }
        var ramp = ramp
        ramp.credit += share
        let passes = ramp.credit >= 1
        if passes { ramp.credit -= 1 }
        phase = .closed(ramp)
        return passes
    }
}

extension Permit {
    /// A permit whose result is not recorded.
    static func unrecorded(at now: Int64) -> Permit { Permit(generation: 0, at: now) }

    /// A permit that is not a probe's.
    @inline(__always)
    init(generation: UInt64, at now: Int64) {
        self.init(generation: generation, startedAt: CircuitBreakerInstant(nanoseconds: now), slot: -1, serial: 0)
    }
}
