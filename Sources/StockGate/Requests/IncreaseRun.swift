// The thin shell around `Increase`. Bounds as in `DecreaseRun`.

import NIOCore

// @unchecked Sendable: every member is used on `gate.eventLoop` alone.
final class IncreaseRun: @unchecked Sendable {
    private let engine: StockEngine
    private let gate: RedisGate
    private var machine: Increase
    private var completion: ((IncreaseAnswer) -> Void)?
    private var backoff: TimeAmount = .milliseconds(20)
    private var wasUnknown = false
    private let isPatient: Bool

    init(
        engine: StockEngine,
        gate: RedisGate,
        request: IncreaseRequest,
        isPatient: Bool,
        completion: @escaping (IncreaseAnswer) -> Void
    ) {
        self.engine = engine
        self.gate = gate
        self.machine = Increase(request)
        self.isPatient = isPatient
        self.completion = completion
    }

    func begin(answerWithin: TimeAmount) {
        gate.eventLoop.assumeIsolated().scheduleTask(in: answerWithin) {
            if self.completion != nil { self.engine.counters.timedOut.add(1) }
            self.reply(.unavailable(.noAnswer))
        }
        perform(machine.began())
    }

    private func reply(_ answer: IncreaseAnswer) {
        let completion = self.completion
        self.completion = nil
        completion?(answer)
    }

    private func perform(_ step: Increase.Step) {
        let request = machine.request
        if let answer = step.answer { reply(answer) }
        if step.asksForResync { engine.ask(request.product, forced: false) }
        switch step.action {
        case .commit: send()
        case .apply(let fence, let delta):
            engine.counters.applies.add(1)
            gate.apply(request.product, GateKeys(request.product), fence, delta: delta, key: "") { result in
                switch result {
                case .success(let reply):
                    // Whoever asked Redis between the commit and this was still told *sold out*, and may have remembered it.
                    self.engine.forgetSoldOut(request.product)
                    self.perform(self.machine.applied(reply))
                case .failure:
                    self.engine.counters.lostApplies.add(1)
                    self.perform(self.machine.applyFailed())
                }
            }
        case .bump:
            engine.bump(request.product) { self.gate.eventLoop.execute { self.perform(self.machine.bumped()) } }
        case .finish: break
        }
        if machine.isFinished { engine.finished() }
    }

    private func send() {
        guard wasUnknown else { return transmit(isExempt: false) }
        engine.counters.unknownCommits.add(1)
        gate.eventLoop.assumeIsolated().scheduleTask(in: backoff) { self.transmit(isExempt: true) }
        backoff = min(backoff * 2, .seconds(1))
    }

    private func transmit(isExempt: Bool) {
        let isPatient = isPatient || wasUnknown
        engine.ledger.increase(machine.request, on: gate.eventLoop, isExempt: isExempt, isPatient: isPatient) { result in
            switch result {
            case .success(let reply):
                self.engine.learned(self.machine.request.product, isGated: reply.isGated, told: reply.told)
                if reply.outcome == .added {
                    self.engine.counters.increases.add(1)
                    self.engine.forgetSoldOut(self.machine.request.product)
                }
                self.perform(self.machine.committed(reply))
            case .failure(let failure):
                if failure == .unknown { self.wasUnknown = true }
                if self.engine.isShutDown, self.wasUnknown {
                    self.reply(.unavailable(.noAnswer))
                    return self.engine.finished()
                }
                self.perform(self.machine.commitFailed(failure))
            }
        }
    }
}
