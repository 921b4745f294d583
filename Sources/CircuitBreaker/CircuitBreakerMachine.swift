// The breaker without lock, clock, logger or input and output: time is an argument, and each event returns what is left to do.
//
// Invariants
// - Every change of phase makes a new generation. Recording a permit of another generation changes one counter alone.
// - A rejected call is never recorded: it has no permit.
// - In half-open the probes that are done and those that are out are together at most as many as are permitted. While the recovery runs, no probe is given.
// - At most one recovery run is wanted at a time: the one whose number is the present generation.
// Bounds: the window's memory, 64 counters of running calls, the slots of half-open. Pending events are few: one for each lease that ended, and
// at most five more for a step.
// Stops: methods loop over those alone.
//
// Times passed in by different threads may be a little out of order; a duration is never taken as negative.

/// The breaker as a value: decide here, act in ``CircuitBreaker``.
struct CircuitBreakerMachine: Sendable {
    /// Which part of which state the breaker is in.
    enum Phase: Sendable {
        /// To `open`; by hand to all.
        case closed(Ramp)
        /// To `recovering` where there is a recovery, to `probing` where there is none; by hand to all.
        case open(Open)
        /// HALF_OPEN while the recovery runs. To `probing` or `closed` when it passes, to `open` when it does not; by hand to all.
        case recovering(Recovery)
        /// HALF_OPEN with probes. To `closed` or `open`; by hand to all.
        case probing(Probing)
        /// By hand to all.
        case disabled
        /// By hand to all.
        case forcedOpen
        /// By hand to all.
        case metricsOnly(Crossing)
    }

    struct Ramp: Sendable {
        /// Nil when the whole traffic passes.
        var startedAt: Int64?
        /// The part of a call that is owed: grows by the share with every call, and a call passes when it reaches one.
        var credit = 0.0
    }

    struct Open: Sendable {
        let until: Int64
        var nextCheckAt: Int64
        var isChecking = false
    }

    struct Recovery: Sendable {
        let startedAt: Int64
        /// Close when it passes, without probes.
        var closesDirectly: Bool
    }

    /// Which thresholds the rates have reached. A threshold that is reached is told once, until the rate has been below it.
    struct Crossing: Sendable {
        var failureRate = false
        var slowCallRate = false
    }

    /// What the shell has to do after it has let go of its lock. With every case but `none` it also publishes the pending events and looks at ``nextWake``
    /// again.
    enum Action: Sendable, Hashable {
        case none
        case publish
        /// Start the recovery and answer with ``recoveryPassed(run:at:)`` or ``recoveryFailed(run:failure:at:)``.
        case startRecovery(run: UInt64)
        /// The results of recovery runs up to this one are no longer wanted.
        case cancelRecovery(through: UInt64)
        /// Start a health check and answer with ``healthCheckAnswered(run:healthy:at:)``.
        case startHealthCheck(run: UInt64)
    }

    /// Why a recovery did not pass.
    enum RecoveryFailure: Sendable, Hashable {
        case failed(label: String)
        case timedOut
    }

    /// An event that waits to be published.
    struct PendingEvent: Sendable, Hashable {
        let instant: Int64
        let kind: CircuitBreakerEvent.Kind
    }

    let policy: CircuitBreakerPolicy
    private(set) var phase: Phase
    private(set) var generation: UInt64 = 1
    /// The window stands beside the phase, so that its memory is allocated once and not with each phase.
    private var window: SlidingWindow
    private var running: RunningCalls
    /// Openings in a row without a recovery.
    private(set) var attempt = 0
    /// The figures that opened the breaker, for whoever looks while it is open.
    private var countsAtOpening = CallCounts()
    private var overdueAtOpening = 0
    private(set) var totals = CircuitBreakerSnapshot.Totals()
    private var notPermittedInState: UInt64 = 0
    private var rejectedSinceEvent: UInt64 = 0
    /// When a rejection makes an event again.
    private(set) var nextRejectionEventAt = Int64.min
    private var random: SplitMix64
    private(set) var pendingEvents: [PendingEvent] = []

    /// A closed breaker, or one in half-open whose recovery, run 1, is to be started at once.
    init(policy: CircuitBreakerPolicy, startsInRecovery: Bool = false, seed: UInt64, at now: Int64) {
        self.policy = policy
        window = SlidingWindow(policy.window, at: now)
        running = RunningCalls(isCounting: policy.countsRunningSlowCalls, threshold: policy.slowCallDuration, lease: policy.permitLease)
        random = SplitMix64(seed: seed)
        pendingEvents.reserveCapacity(8)
        if startsInRecovery, policy.hasRecovery {
            phase = .recovering(Recovery(startedAt: now, closesDirectly: true))
            emit(.transition(from: .closed, to: .halfOpen, reason: .startup), at: now)
            emit(.recoveryStarted(attempt: 0), at: now)
        } else {
            phase = .closed(Ramp())
        }
    }

    var state: CircuitBreakerState {
        switch phase {
        case .closed: .closed
        case .open: .open
        case .recovering, .probing: .halfOpen
        case .disabled: .disabled
        case .forcedOpen: .forcedOpen
        case .metricsOnly: .metricsOnly
        }
    }

    /// When something is to be done without traffic (``hitDeadline(at:)``), nil for never.
    var nextWake: Int64? {
        switch phase {
        case .open(let open):
            if policy.hasHealthCheck { return open.isChecking ? nil : max(open.until, open.nextCheckAt) }
            return policy.movesToHalfOpenByItself ? open.until : nil
        case .probing(let probing):
            var wake = probing.deadline
            if let leaseEnd = probing.firstLeaseEnd(lease: policy.permitLease) { wake = min(wake, leaseEnd) }
            if policy.hasHealthCheck, probing.checkPermit == nil { wake = min(wake, probing.nextCheckAt) }
            return wake == .max ? nil : wake
        case .closed, .recovering, .disabled, .forcedOpen, .metricsOnly:
            return nil
        }
    }

    /// The pending events, oldest first. They are the caller's from then on.
    mutating func takePendingEvents(_ body: (PendingEvent) -> Void) {
        for event in pendingEvents { body(event) }
        pendingEvents.removeAll(keepingCapacity: true)
    }

    private mutating func emit(_ kind: CircuitBreakerEvent.Kind, at now: Int64) {
        pendingEvents.append(PendingEvent(instant: now, kind: kind))
    }

    // MARK: Calls

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

    private mutating func admitProbe(at now: Int64) -> (Admission, Action) {
        endOverdueProbes(at: now)
        guard case .probing(var probing) = phase else {
            // The look at the leases has decided: the breaker is open, or closed by the results that were in. A wait in open is never
            // zero, so this asks again at most once.
            return admitted(after: admit(at: now))
        }
        guard let permit = probing.take(generation: generation, at: now) else { return admitted(after: reject(.probesTaken, at: now)) }
        // Traffic does the probing: the health check need not for an interval.
        probing.nextCheckAt = now.addingClamped(policy.healthCheckInterval)
        phase = .probing(probing)
        return (.permitted(permit), .publish)
    }

    private func admitted(after step: (Admission, Action)) -> (Admission, Action) {
        step.1 == .none && !pendingEvents.isEmpty ? (step.0, .publish) : step
    }

    private mutating func reject(_ reason: Rejection.Reason, at now: Int64) -> (Admission, Action) {
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
    private mutating func count(failed: Bool, slow: Bool, duration: Int64) {
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
    private mutating func noteTrouble(_ outcome: CallOutcome, duration: Int64, slow: Bool, at now: Int64) {
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

    private func rates(_ counts: CallCounts, overdue: Int, minimum: Int) -> (failure: Double?, slow: Double?) {
        (
            counts.calls >= minimum && counts.calls > 0 ? percent(counts.failed, of: counts.calls) : nil,
            counts.calls + overdue >= minimum && counts.calls + overdue > 0
                ? percent(counts.slow + overdue, of: counts.calls + overdue) : nil
        )
    }

    // MARK: Free periods

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

    // MARK: The ramp

    private func share(since start: Int64, at now: Int64) -> Double {
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

    // MARK: Half-open

    private mutating func recordProbe(_ outcome: CallOutcome, for permit: Permit, at now: Int64) -> (RecordResult, Action) {
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
        // The first lease's end may be another one now.
        return (result, .publish)
    }

    /// In half-open with probes: ends leases, and goes on when the probes are decided or half-open has taken too long.
    private mutating func endOverdueProbes(at now: Int64) {
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

    private func overdueProbes(_ probing: Probing, at now: Int64) -> Int {
        policy.countsRunningSlowCalls ? probing.overdue(at: now, threshold: policy.slowCallDuration) : 0
    }

    private mutating func enterHalfOpen(because reason: TransitionReason, closesDirectly: Bool, at now: Int64) -> Action {
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

    // MARK: Without traffic

    /// ``nextWake`` has come, or may have.
    mutating func hitDeadline(at now: Int64) -> Action {
        switch phase {
        case .open(var open):
            guard now >= open.until else { return .none }
            if policy.hasHealthCheck {
                guard !open.isChecking, now >= open.nextCheckAt else { return .none }
                open.isChecking = true
                phase = .open(open)
                return .startHealthCheck(run: generation)
            }
            return policy.movesToHalfOpenByItself ? enterHalfOpen(because: .waitElapsed, closesDirectly: false, at: now) : .none
        case .probing:
            endOverdueProbes(at: now)
            guard case .probing(var probing) = phase, policy.hasHealthCheck, probing.checkPermit == nil, now >= probing.nextCheckAt else {
                return pendingEvents.isEmpty ? .none : .publish
            }
            probing.nextCheckAt = now.addingClamped(policy.healthCheckInterval)
            probing.checkPermit = probing.take(generation: generation, at: now)
            phase = .probing(probing)
            return probing.checkPermit == nil ? .publish : .startHealthCheck(run: generation)
        case .closed, .recovering, .disabled, .forcedOpen, .metricsOnly:
            return .none
        }
    }

    /// A health check has ended.
    mutating func healthCheckAnswered(run: UInt64, healthy: Bool, at now: Int64) -> Action {
        guard run == generation else { return .none }
        switch phase {
        case .open(var open):
            guard open.isChecking else { return .none }
            emit(.healthCheck(passed: healthy), at: now)
            if healthy { return enterHalfOpen(because: .healthCheckPassed, closesDirectly: false, at: now) }
            open.isChecking = false
            open.nextCheckAt = now.addingClamped(policy.healthCheckInterval)
            phase = .open(open)
            return .publish
        case .probing(var probing):
            guard let permit = probing.checkPermit else { return .none }
            probing.checkPermit = nil
            // A good answer is followed by the next check at once: there are few, and they are all that closes the breaker.
            probing.nextCheckAt = healthy ? now : now.addingClamped(policy.healthCheckInterval)
            phase = .probing(probing)
            emit(.healthCheck(passed: healthy), at: now)
            _ = recordProbe(healthy ? .success : .failure("health check"), for: permit, at: now)
            return .publish
        case .closed, .recovering, .disabled, .forcedOpen, .metricsOnly:
            return .none
        }
    }

    // MARK: By hand

    /// Someone asks for a state.
    mutating func transition(to manual: ManualTransition, by: String?, reason: String?, at now: Int64) -> Action {
        let by = by?.cut
        let reason = reason?.cut
        let why = TransitionReason.manual(by: by, reason: reason)
        var stopsRecovery = false
        if case .recovering = phase { stopsRecovery = true }
        switch manual {
        case .forceOpen:
            if case .forcedOpen = phase { return .none }
            enter(.forcedOpen, because: why, at: now)
        case .disable:
            if case .disabled = phase { return .none }
            enter(.disabled, because: why, at: now)
        case .metricsOnly:
            if case .metricsOnly = phase { return .none }
            window.reset(at: now)
            enter(.metricsOnly(Crossing()), because: why, at: now)
        case .close:
            return close(by: by, reason: reason, at: now)
        case .reset:
            emit(.reset(by: by, reason: reason), at: now)
            attempt = 0
            countsAtOpening = CallCounts()
            overdueAtOpening = 0
            if case .closed = phase {
                generation += 1
                window.reset(at: now)
                running.reset()
                notPermittedInState = 0
                phase = .closed(Ramp())
                return .publish
            }
            return close(by: by, reason: reason, at: now)
        }
        attempt = 0
        return stopsRecovery ? .cancelRecovery(through: generation) : .publish
    }

    private mutating func close(by: String?, reason: String?, at now: Int64) -> Action {
        let why = TransitionReason.manual(by: by, reason: reason)
        switch phase {
        case .closed:
            return pendingEvents.isEmpty ? .none : .publish
        case .recovering(var recovery):
            recovery.closesDirectly = true
            phase = .recovering(recovery)
            emit(.closeRequested(by: by, reason: reason), at: now)
            return .publish
        case .probing:
            // The recovery of this half-open has passed already.
            close(because: why, ramps: false, at: now)
            return .publish
        case .open, .disabled, .forcedOpen, .metricsOnly:
            if policy.hasRecovery { return enterHalfOpen(because: why, closesDirectly: true, at: now) }
            close(because: why, ramps: false, at: now)
            return .publish
        }
    }

    // MARK: Changes of state

    private mutating func open(because reason: TransitionReason, at now: Int64) {
        switch phase {
        case .closed(let ramp):
            // An opening during the ramp belongs to the trouble before it.
            if ramp.startedAt == nil { attempt = 0 }
            countsAtOpening = window.counts
            overdueAtOpening = running.overdue
        case .probing(let probing):
            countsAtOpening = probing.counts
            overdueAtOpening = overdueProbes(probing, at: now)
        case .open, .recovering, .disabled, .forcedOpen, .metricsOnly:
            countsAtOpening = CallCounts()
            overdueAtOpening = 0
        }
        attempt += 1
        totals.openings += 1
        let until = now.addingClamped(policy.waitInOpen.nanoseconds(attempt: attempt, random: random.nextUnit()))
        enter(.open(Open(until: until, nextCheckAt: until)), because: reason, at: now)
    }

    private mutating func close(because reason: TransitionReason, ramps: Bool, at now: Int64) {
        window.reset(at: now)
        let ramps = ramps && policy.rampDuration > 0
        if !ramps { attempt = 0 }
        enter(.closed(Ramp(startedAt: ramps ? now : nil)), because: reason, at: now)
    }

    private mutating func enter(_ phase: Phase, because reason: TransitionReason, at now: Int64) {
        let from = state
        generation += 1
        running.reset()
        notPermittedInState = 0
        // The first rejection of a state makes an event at once.
        nextRejectionEventAt = .min
        self.phase = phase
        emit(.transition(from: from, to: state, reason: reason), at: now)
    }

    // MARK: Looking

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

extension Permit {
    /// A permit whose result is not recorded.
    static func unrecorded(at now: Int64) -> Permit { Permit(generation: 0, at: now) }

    /// A permit that is not a probe's.
    @inline(__always)
    init(generation: UInt64, at now: Int64) {
        self.init(generation: generation, startedAt: CircuitBreakerInstant(nanoseconds: now), slot: -1, serial: 0)
    }
}

extension String {
    /// Cut at 200 bytes of UTF-8, so that an event's size has a bound. Never in the middle of a character.
    var cut: String {
        guard utf8.count > 200 else { return self }
        var end = utf8.index(startIndex, offsetBy: 200)
        while end > startIndex, end.samePosition(in: self) == nil { end = utf8.index(before: end) }
        return String(self[..<end])
    }
}
