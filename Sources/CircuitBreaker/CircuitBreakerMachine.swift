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

import SeededRandom

/// The breaker as a value: decide here, act in ``CircuitBreaker``.
struct CircuitBreakerMachine: Sendable {
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

    // The extensions of this type, each in a file of its own, change what follows. The shell reads it and calls methods.

    let policy: CircuitBreakerPolicy
    var phase: Phase
    var generation: UInt64 = 1
    /// The window stands beside the phase, so that its memory is allocated once and not with each phase.
    var window: SlidingWindow
    var running: RunningCalls
    /// Openings in a row without a recovery.
    var attempt = 0
    /// The figures that opened the breaker, for whoever looks while it is open.
    var countsAtOpening = CallCounts()
    var overdueAtOpening = 0
    var totals = CircuitBreakerSnapshot.Totals()
    var notPermittedInState: UInt64 = 0
    var rejectedSinceEvent: UInt64 = 0
    /// When a rejection makes an event again.
    var nextRejectionEventAt = Int64.min
    var random: SplitMix64
    var pendingEvents: [PendingEvent] = []

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

    mutating func emit(_ kind: CircuitBreakerEvent.Kind, at now: Int64) {
        pendingEvents.append(PendingEvent(instant: now, kind: kind))
    }
}
