// What stands between the machine and the world: the machine's steps without a call, what it wants done, and the timer that wakes it.

import Synchronization

extension CircuitBreaker {
    @discardableResult
    func step(_ body: (inout CircuitBreakerMachine, Int64) -> CircuitBreakerMachine.Action) -> CircuitBreakerState {
        let now = clock.now()
        let (state, action, deliveries) = machine.withLock { machine in
            machine.absorbRejections(unabsorbedRejections.exchange(0, ordering: .relaxed), at: now)
            endFreePeriod(&machine)
            let action = body(&machine, now)
            return (machine.state, action, publish(&machine, at: now))
        }
        perform(action, deliveries)
        return state
    }

    /// Hands the machine's events on and repeats its state in the atomics. With the lock held.
    func publish(_ machine: inout CircuitBreakerMachine, at now: Int64) -> [EventHub.Delivery] {
        machine.absorbRejections(unabsorbedRejections.exchange(0, ordering: .relaxed), at: now)
        var deliveries: [EventHub.Delivery] = []
        if !machine.pendingEvents.isEmpty {
            let unixMilliseconds = wallClock()
            machine.takePendingEvents { event in
                deliveries += hub.append(event.kind, instant: event.instant, unixMilliseconds: unixMilliseconds)
            }
        }
        switch machine.phase {
        case .open(let open):
            openUntil.store(open.until, ordering: .relaxed)
            rejectsUntil.store(min(open.until, machine.nextRejectionEventAt), ordering: .relaxed)
            shortcut.store(Shortcut.open, ordering: .releasing)
        case .forcedOpen:
            rejectsUntil.store(machine.nextRejectionEventAt, ordering: .relaxed)
            shortcut.store(Shortcut.forcedOpen, ordering: .releasing)
        case .recovering:
            rejectsUntil.store(machine.nextRejectionEventAt, ordering: .relaxed)
            shortcut.store(Shortcut.recovery, ordering: .releasing)
        case .disabled:
            shortcut.store(Shortcut.disabled, ordering: .releasing)
        case .closed, .probing, .metricsOnly:
            shortcut.store(Shortcut.none, ordering: .releasing)
            beginFreePeriod(machine, at: now)
        }
        return deliveries
    }

    /// Does what the machine wants done. Without a lock held.
    func perform(_ action: CircuitBreakerMachine.Action, _ deliveries: [EventHub.Delivery]) {
        for (reader, event) in deliveries { reader.resume(returning: event) }
        switch action {
        case .none, .publish:
            break
        case .startRecovery(let run):
            steps.withLock { $0.recovery }?.start(run: run)
        case .cancelRecovery(let run):
            steps.withLock { $0.recovery }?.cancel(through: run)
        case .startHealthCheck(let run):
            steps.withLock { $0.healthCheck }?.start(run: run)
        }
        setTimer()
    }

    func recoveryStepEnded(run: UInt64, _ end: TimedStep.End) {
        step { machine, now in
            switch end {
            case .succeeded: machine.recoveryPassed(run: run, at: now)
            case .failed(let label): machine.recoveryFailed(run: run, failure: .failed(label: label), at: now)
            case .timedOut: machine.recoveryFailed(run: run, failure: .timedOut, at: now)
            }
        }
    }

    func healthCheckEnded(run: UInt64, _ end: TimedStep.End) {
        let healthy = if case .succeeded = end { true } else { false }
        step { machine, now in machine.healthCheckAnswered(run: run, healthy: healthy, at: now) }
    }

    /// Makes the timer wake when the machine wants it to. The machine is asked with the timer's lock held, so that of two threads the one that
    /// comes last sets what is true last.
    private func setTimer() {
        let stale = timer.withLock { timer -> Task<Void, Never>? in
            let wake = timer.isShutDown ? .max : machine.withLock { $0.nextWake } ?? .max
            guard wake != timer.wake else { return nil }
            let stale = timer.task
            timer.wake = wake
            timer.task = nil
            timer.number += 1
            guard wake != .max else { return stale }
            let number = timer.number
            timer.task = Task { [weak self, clock] in
                do { try await clock.sleep(until: wake) } catch { return }
                self?.timerFired(number)
            }
            return stale
        }
        stale?.cancel()
    }

    private func timerFired(_ number: UInt64) {
        let isPresent = timer.withLock { timer in
            guard timer.number == number else { return false }
            timer.task = nil
            timer.wake = .max
            return true
        }
        guard isPresent else { return }
        step { machine, now in machine.hitDeadline(at: now) }
    }
}
