// The thin shell around `Reservation`: carries out its actions, and brings it the events.
//
// Bounds: one answer, at the latest after `answerWithin`. An unknown commit is sent again after a back-off that doubles up to a second, for as long as the
//   process lives. A request that was let in counts as in flight until its last message.

import BlockingThreads
import CircuitBreaker
import NIOCore
import PostgresClient
import Synchronization

// @unchecked Sendable: every member is used on the context's event loop alone. Callbacks from other threads hop to that loop first.
final class DecreaseRun: @unchecked Sendable {
    private let context: RequestContext
    private let product: GatedProduct?
    private var machine: Reservation
    private var completion: ((DecreaseAnswer) -> Void)?
    /// How often the change has been sent again because its outcome was unknown.
    private var resends = 0
    private var wasUnknown = false
    /// Whether the ledger had a row under the key whose time has not been compared with the order's yet.
    private var hasOldRow = false
    private let isPatient: Bool
    /// The gate through which the last reserve went, which holds what was reserved.
    private var gate: RedisGate?
    let deadline: NIODeadline

    init(
        context: RequestContext,
        product: GatedProduct?,
        request: DecreaseRequest,
        isPatient: Bool,
        completion: @escaping (DecreaseAnswer) -> Void
    ) {
        self.context = context
        self.product = product
        machine = Reservation(request, mark: context.nextMark())
        self.isPatient = isPatient
        deadline = .now() + context.times.answerWithin
        self.completion = completion
    }

    var isAnswered: Bool { completion == nil }

    func begin() {
        perform(machine.began(throughGate: product != nil))
    }

    /// The request's time is over. The caller is answered, and the request goes on without it.
    func hitDeadline() {
        guard completion != nil else { return }
        context.metrics.timedOut.add(1)
        reply(.unavailable(.noAnswer))
    }

    private func reply(_ answer: DecreaseAnswer) {
        guard let completion else { return }
        if hasOldRow, machine.request.since != nil {
            hasOldRow = false
            return compare(answer)
        }
        self.completion = nil
        switch answer {
        case .sold(_, let replayed): (replayed ? context.metrics.replayed : context.metrics.sold).add(1)
        case .insufficient, .keyClosed, .keyReused, .notOnSale, .productMissing: context.metrics.refused.add(1)
        case .unavailable: break
        }
        completion(answer)
    }

    /// Compares the row's time with the order's before it answers. Only repeats, and orders whose id was used before, need this; first attempts of a sale do
    /// not.
    private func compare(_ answer: DecreaseAnswer) {
        switch answer {
        case .sold, .keyClosed: break
        case .insufficient, .keyReused, .notOnSale, .productMissing, .unavailable: return reply(answer)
        }
        let request = machine.request
        Task {
            let time: Int64??
            do {
                time = .some(try await context.ledger.timeOfEntry(forKey: request.key))
            } catch {
                time = nil
            }
            context.eventLoop.execute {
                // Without the row's time it is unknown whose row it is, so the caller should ask again.
                guard let time else { return self.reply(.unavailable(.ledgerDown)) }
                self.reply(time.map(request.isOlder) ?? false ? .keyReused : answer)
            }
        }
    }

    private func perform(_ step: Reservation.Step) {
        if let answer = step.answer { reply(answer) }
        if step.asksForResync { context.carryOut(.resync(machine.request.product)) }
        let request = machine.request
        switch step.action {
        case .reserve: reserve()
        case .awaitResync: awaitResync()
        case .lookUp: lookUp()
        case .commit(let commit): send(commit)
        case .settle(let held): if let product { gate?.settle(request.product, product.keys, held, key: request.key) }
        case .release(let held):
            if let product { gate?.release(request.product, product.keys, held, key: request.key, abandoned: false) }
        case .abandon(let held):
            if let product { gate?.release(request.product, product.keys, held, key: request.key, abandoned: true) }
        case .apply(let fence, let delta):
            guard let product else { break }
            context.apply(request.product, product.keys, fence, delta: delta, key: request.key) { reply in
                self.perform(reply.map { self.machine.applied($0) } ?? self.machine.applyFailed())
            }
        case .bump: context.carryOut(.raiseFence(request.product) { self.perform(self.machine.bumped()) })
        case .finish: break
        }
        if machine.isFinished { context.carryOut(.finished) }
    }

    private func reserve() {
        guard let product else { return perform(machine.reserveFailed(sent: false)) }
        let (generation, isDirect, shard) = product.state.withLock { ($0.soldOut.currentGeneration, $0.standing.isDirect, $0.shard) }
        guard !isDirect, let shard else { return perform(machine.reserveFailed(sent: false)) }
        let gate = context.gate(of: shard)
        guard let permit = gate.admit() else { return perform(machine.reserveFailed(sent: false)) }
        self.gate = gate
        gate.reserve(machine.request, product.keys, permit) { result in
            switch result {
            case .success(let reply):
                if case .soldOut(let counter) = reply {
                    self.context.carryOut(.soldOut(product, counter: counter, generation: generation))
                }
                self.perform(self.machine.reserveReplied(reply))
            case .failure(let failure): self.perform(self.machine.reserveFailed(sent: failure.sent))
            }
        }
    }

    private func awaitResync() {
        guard let product else { return perform(machine.resyncEnded(loaded: false)) }
        // A resync has to raise the fence in the row, so it cannot end before the row is unlocked.
        if context.ledger.lockedProducts.isLocked(product.id.rawValue) { return perform(machine.resyncEnded(loaded: false)) }
        // The end of the resync or the end of the wait, whichever comes first, ends this. Both arrive on this loop.
        let wait = ResyncWait { loaded in self.perform(self.machine.resyncEnded(loaded: loaded)) }
        let timer = context.eventLoop.assumeIsolated().scheduleTask(in: context.times.resyncWait) { wait.end(loaded: false) }
        context.carryOut(
            .resyncWaitedFor(product) { loaded in
                timer.cancel()
                wait.end(loaded: loaded)
            }
        )
    }

    private func lookUp() {
        Task {
            let found: LedgerEntry??
            do {
                found = .some(try await context.ledger.entry(forKey: machineKey))
            } catch {
                found = nil
            }
            context.eventLoop.execute {
                if case .some(.some) = found { self.hasOldRow = true }
                if let found { self.perform(self.machine.lookedUp(found)) } else { self.perform(self.machine.lookUpFailed()) }
            }
        }
    }

    /// The request never changes, so its key may be read on any thread.
    private var machineKey: String { machine.request.key }

    private func send(_ commit: CommitRequest) {
        if commit.fence == 0 { context.metrics.direct.add(1) }
        guard wasUnknown else { return transmit(commit, isExempt: false) }
        context.metrics.unknownCommits.add(1)
        let wait = RequestContext.resendWait(after: resends)
        context.eventLoop.assumeIsolated().scheduleTask(in: wait) { self.transmit(commit, isExempt: true) }
        resends += 1
    }

    private func transmit(_ commit: CommitRequest, isExempt: Bool) {
        // An earlier sending is still unknown. Only waiting for the row can settle it.
        context.ledger.commit(commit, on: context.eventLoop, isExempt: isExempt, isPatient: isPatient || wasUnknown) { result in
            switch result {
            case .success(let reply):
                self.context.carryOut(.learnt(commit.decrease.product, isGated: reply.isGated, lockedFence: reply.lockedFence))
                switch reply.outcome {
                case .duplicateMine, .duplicateOther, .keyClosed: self.hasOldRow = true
                case .committed, .insufficient, .notOnSale, .productMissing, .keyReused, .keyReusedMine: break
                }
                self.perform(self.machine.committed(reply))
            case .failure(let failure):
                if failure == .unknown { self.wasUnknown = true }
                if self.context.inFlight.isShutDown, self.wasUnknown {
                    // The request ends as if the process had died here: its reservation stays pending for another server's sweep.
                    self.reply(.unavailable(.noAnswer))
                    return self.context.carryOut(.finished)
                }
                self.perform(self.machine.commitFailed(failure))
            }
        }
    }
}

/// Calls its body once, at the first end of the wait.
// @unchecked Sendable: used on one event loop alone; both of its callers run there.
private final class ResyncWait: @unchecked Sendable {
    private var body: ((Bool) -> Void)?

    init(_ body: @escaping (Bool) -> Void) { self.body = body }

    func end(loaded: Bool) {
        let body = self.body
        self.body = nil
        body?(loaded)
    }
}
