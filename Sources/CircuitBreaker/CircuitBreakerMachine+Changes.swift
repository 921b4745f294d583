// Changes of state: by hand, and for a reason that the machine has found.

import SeededRandom

extension CircuitBreakerMachine {
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

    mutating func open(because reason: TransitionReason, at now: Int64) {
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

    mutating func close(because reason: TransitionReason, ramps: Bool, at now: Int64) {
        window.reset(at: now)
        let ramps = ramps && policy.rampDuration > 0
        if !ramps { attempt = 0 }
        enter(.closed(Ramp(startedAt: ramps ? now : nil)), because: reason, at: now)
    }

    mutating func enter(_ phase: Phase, because reason: TransitionReason, at now: Int64) {
        let from = state
        generation += 1
        running.reset()
        notPermittedInState = 0
        // The first rejection of a state makes an event at once.
        nextRejectionEventAt = .min
        self.phase = phase
        emit(.transition(from: from, to: state, reason: reason), at: now)
    }
}
