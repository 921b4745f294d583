// The thin shell around `Increase`. Bounds as in `DecreaseRun`.

import BlockingThreads
import NIOCore

// @unchecked Sendable: every member is used on the context's event loop alone.
final class IncreaseRun: @unchecked Sendable {
    private let context: RequestContext
    private var machine: Increase
    private var completion: ((IncreaseAnswer) -> Void)?
    /// How often the change has been sent again because its outcome was unknown.
    private var resends = 0
    private var wasUnknown = false
    private let isPatient: Bool

    init(context: RequestContext, request: IncreaseRequest, isPatient: Bool, completion: @escaping (IncreaseAnswer) -> Void) {
        self.context = context
        machine = Increase(request)
        self.isPatient = isPatient
        self.completion = completion
    }

    func begin() {
        context.eventLoop.assumeIsolated().scheduleTask(in: context.times.answerWithin) {
            if self.completion != nil { self.context.metrics.timedOut.add(1) }
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
        if step.asksForResync { context.carryOut(.resync(request.product)) }
        switch step.action {
        case .commit: send()
        case .apply(let fence, let delta):
            context.apply(request.product, GateKeys(request.product), fence, delta: delta, key: "") { reply in
                guard let reply else { return self.perform(self.machine.applyFailed()) }
                // A request that asked Redis between the commit and this apply was still told *sold out*, and may have filled the memory of *sold out* with it.
                self.context.carryOut(.unitsReturned(request.product))
                self.perform(self.machine.applied(reply))
            }
        case .bump: context.carryOut(.raiseFence(request.product) { self.perform(self.machine.bumped()) })
        case .finish: break
        }
        if machine.isFinished { context.carryOut(.finished) }
    }

    private func send() {
        guard wasUnknown else { return transmit(isExempt: false) }
        context.metrics.unknownCommits.add(1)
        let wait = RequestContext.resendWait(after: resends)
        context.eventLoop.assumeIsolated().scheduleTask(in: wait) { self.transmit(isExempt: true) }
        resends += 1
    }

    private func transmit(isExempt: Bool) {
        let isPatient = isPatient || wasUnknown
        context.ledger.increase(machine.request, on: context.eventLoop, isExempt: isExempt, isPatient: isPatient) { result in
            switch result {
            case .success(let reply):
                self.context.carryOut(.learnt(self.machine.request.product, isGated: reply.isGated, lockedFence: reply.lockedFence))
                if reply.outcome == .added {
                    self.context.metrics.increases.add(1)
                    self.context.carryOut(.unitsReturned(self.machine.request.product))
                }
                self.perform(self.machine.committed(reply))
            case .failure(let failure):
                if failure == .unknown { self.wasUnknown = true }
                if self.context.inFlight.isShutDown, self.wasUnknown {
                    self.reply(.unavailable(.noAnswer))
                    return self.context.carryOut(.finished)
                }
                self.perform(self.machine.commitFailed(failure))
            }
        }
    }
}
