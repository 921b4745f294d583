// What happens without traffic: the end of a wait, and the answers of health checks.

extension CircuitBreakerMachine {
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
}
