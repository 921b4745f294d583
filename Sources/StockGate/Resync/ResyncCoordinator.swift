// Decides when products are resynced, knows who waits for that, and handles the results. Only this class and a recovery use the driver, which carries resyncs
// out.
//
// Who suffers: a product that fails does not fail its round. A product whose row is locked is tried again beside the rounds, where it delays no other.
// Bounds: each product has one running resync and one remembered request (its schedule). A round has at most `chunk` products, and at most
//   `ResyncDriver.maximumLockWaits` products are waited for beside the rounds. Callers that wait for a product are bounded by the requests in flight.

import CircuitBreaker
import NIOCore
import Synchronization

final class ResyncCoordinator: Sendable {
    private let products: ShardProducts
    private let breaker: CircuitBreaker
    private let outage: Outage
    private let inFlight: InFlight
    private let group: any EventLoopGroup
    private let events: EventLog
    private let metrics: EngineMetrics
    private let chunk: Int
    private let queue = ResyncQueue()
    private let lockWaits = Mutex(0)

    /// `chunk`: products in one round at most.
    init(
        products: ShardProducts,
        breaker: CircuitBreaker,
        outage: Outage,
        inFlight: InFlight,
        group: any EventLoopGroup,
        events: EventLog,
        metrics: EngineMetrics,
        chunk: Int
    ) {
        self.products = products
        self.breaker = breaker
        self.outage = outage
        self.inFlight = inFlight
        self.group = group
        self.events = events
        self.metrics = metrics
        self.chunk = max(1, chunk)
    }

    // MARK: Asking

    /// Asks for a resync of a product. It comes soon, one at a time. While the breaker is open none comes, because its recovery resyncs every product.
    func ask(_ product: GatedProduct, forced: Bool) {
        guard isServing, !inFlight.isShutDown else {
            // The recovery resyncs the product, or asks for its resync once it has passed.
            product.state.withLock { $0.standing.heard() }
            return endWaits(for: product, loaded: false)
        }
        let now = NIODeadline.now().uptimeNanoseconds
        let action = product.state.withLock { $0.standing.isHeld(at: now) ? nil : $0.schedule.asked(forced: forced, at: now) }
        if let action { follow(action, product) } else { endWaits(for: product, loaded: false) }
    }

    /// Asks for a resync, and calls `waiter` once, on any thread, with whether Redis serves the product now.
    func awaitResync(of product: GatedProduct, _ waiter: @escaping @Sendable (Bool) -> Void) {
        product.state.withLock { $0.waiters.append(waiter) }
        ask(product, forced: false)
    }

    /// A script failed because of what Redis holds for one product. The product is sold directly until its keys are made anew.
    func spoiled(_ product: GatedProduct, _ failure: GateFailure) {
        let now = NIODeadline.now().uptimeNanoseconds
        guard let until = product.state.withLock({ $0.standing.spoiled(at: now) }) else { return }
        metrics.spoiled.add(1)
        events.say(failure.words.withoutScript, of: .product(product.id), .leftDirect(product.id, why: failure.words))
        group.next().scheduleTask(deadline: .uptimeNanoseconds(until)) { self.ask(product, forced: true) }
    }

    /// The master does not serve the product's slot, or not all of it. The product is sold directly until it is installed, here or where the next map of the slots
    /// says. A call of the product's that was out meanwhile may still be answered: its fence decides.
    func isElsewhere(_ product: GatedProduct) {
        let isNews = product.state.withLock { state in
            guard state.shard?.id == products.shard, !state.standing.isLeft else { return false }
            state.standing.left()
            return true
        }
        if isNews { ask(product, forced: true) }
    }

    /// The product has come to this shard, where its fence is raised and it is installed before its gate is used.
    func took(_ product: GatedProduct) {
        let now = NIODeadline.now().uptimeNanoseconds
        follow(product.state.withLock { $0.schedule.hurried(at: now) }, product)
        ask(product, forced: true)
    }

    /// The master serves no slot any more. What waits is given back untried, and goes to the shards that have the products now.
    func shutdown() { for waiting in queue.close() { waiting.ended(.untried) } }

    /// A new connection may reach another dataset, so every gated product is looked at. During a recovery only the change of dataset matters, because the
    /// recovery looks at each product anyway.
    func connected(dataset: String) {
        outage.saw(dataset: dataset)
        guard isServing else { return }
        for product in products.all { ask(product, forced: false) }
    }

    /// The ledger's data has another history than before. What this shard's recovery did on the basis of the old one counts no more.
    func ledgerMoved() { outage.ledgerMoved() }

    /// Whether products are resynced one by one as they are asked for. Otherwise a recovery resyncs them.
    private var isServing: Bool { !breaker.isOpen && !outage.isRecovering }

    private func endWaits(for product: GatedProduct, loaded: Bool) {
        let waiters = product.state.withLock { state in
            let waiters = state.waiters
            state.waiters = []
            return waiters
        }
        for waiter in waiters { waiter(loaded) }
    }

    // MARK: Schedules

    private func follow(_ action: ResyncSchedule.Action, _ product: GatedProduct) {
        switch action {
        case .none: break
        case .wait(let until):
            group.next().scheduleTask(deadline: .uptimeNanoseconds(until)) {
                let now = NIODeadline.now().uptimeNanoseconds
                self.follow(product.state.withLock { $0.schedule.timerFired(at: now) }, product)
            }
        case .run(let forced):
            // The product may have gone to another shard since somebody asked.
            (product.shard?.resyncs ?? self).enqueue(product, forced: forced)
        }
    }

    private func enqueue(_ product: GatedProduct, forced: Bool) {
        let (mark, isDirect) = product.state.withLock { ($0.standing.mark, $0.standing.isDirect) }
        let waiting = ResyncQueue.Waiting(product: product, isForced: forced) { self.ended($0, product, since: mark) }
        if !queue.append(waiting, isPatient: isDirect) { waiting.ended(.untried) }
    }

    private func ended(_ result: ResyncResult, _ product: GatedProduct, since mark: UInt64) {
        note(result, product, in: nil, since: mark)
        endWaits(for: product, loaded: result.outcome.hasSucceeded && result.outcome.foreignLedger == nil)
        // A failed resync is tried again, unless the breaker's recovery will do it anyway, or nobody serves the product: it is asked for when somebody does. If
        // another shard has the product by now, the next try is there.
        let home = product.shard
        let isForRecovery = home?.id == products.shard && breaker.isOpen
        let succeeded = result.outcome.hasSucceeded || isForRecovery || home == nil || inFlight.isShutDown
        let now = NIODeadline.now().uptimeNanoseconds
        follow(product.state.withLock { $0.schedule.ended(succeeded: succeeded, at: now) }, product)
    }

    // MARK: Rounds

    /// Has the driver resync waiting products, round after round, until the task is cancelled. Products that wait while a recovery is responsible are given
    /// back untried.
    func run(_ driver: ResyncDriver) async {
        for await _ in queue.arrivals {
            while !Task.isCancelled {
                let round = queue.next(chunk)
                if round.isEmpty { break }
                guard isServing else {
                    for waiting in round { waiting.ended(.untried) }
                    continue
                }
                let results = await driver.resync(round.map(Self.entry))
                for waiting in round {
                    let result = results[waiting.product.id] ?? .untried
                    if result.failure?.scope == .locked, beginsLockWait() {
                        waitForRow(waiting, driver)
                    } else {
                        waiting.ended(result)
                    }
                }
            }
        }
    }

    /// Resyncs one gated product now, for an operator.
    func resync(_ id: ProductID, _ driver: ResyncDriver) async -> Resync.Outcome {
        let product = products[id]
        let standing = product?.state.withLock { $0.standing } ?? Standing()
        let mark = standing.mark
        let entry = ResyncDriver.Entry(id: id, isForced: true, isMended: standing.isSpoiled, isLeaping: standing.isMoved)
        let results = await driver.resync([entry], lockWaitsUntil: .now + ResyncDriver.lockWait)
        let result = results[id] ?? .untried
        if let product {
            note(result, product, in: nil, since: mark)
        } else if let failure = result.failure {
            events.say(failure.words, of: .resync(id), .resyncFailed(id, why: failure.words))
        }
        return result.outcome
    }

    private static func entry(_ waiting: ResyncQueue.Waiting) -> ResyncDriver.Entry {
        let standing = waiting.product.state.withLock { $0.standing }
        return ResyncDriver.Entry(
            id: waiting.product.id,
            isForced: waiting.isForced,
            isMended: standing.isSpoiled,
            isLeaping: standing.isMoved
        )
    }

    private func beginsLockWait() -> Bool {
        lockWaits.withLock { count in
            guard count < ResyncDriver.maximumLockWaits else { return false }
            count += 1
            return true
        }
    }

    /// Tries one product again, beside the rounds, and waits for its row.
    private func waitForRow(_ waiting: ResyncQueue.Waiting, _ driver: ResyncDriver) {
        Task {
            let results = await driver.resync([Self.entry(waiting)], lockWaitsUntil: .now + ResyncDriver.lockWait)
            lockWaits.withLock { $0 -= 1 }
            waiting.ended(results[waiting.product.id] ?? .untried)
        }
    }

    // MARK: Results

    /// Handles the result of a resync, and reports it. `outage` is the one whose recovery did it; nil for a resync outside a recovery.
    func note(_ result: ResyncResult, _ product: GatedProduct, in outage: UInt64?, since mark: UInt64) {
        let home = product.shard
        guard home?.id == products.shard else {
            // The product went to another shard while this resync ran. The resync may have raised the fence, and the Redis of that shard does not know it yet.
            home?.resyncs.ask(product, forced: false)
            return
        }
        guard result.outcome.hasSucceeded else {
            product.forgetSoldOut()
            if let failure = result.failure, outage == nil { say(failure, product) }
            return
        }
        if case .installed(let ledger) = result.outcome {
            events.tell(.resynced(product.id, fence: ledger.fence, stock: ledger.stock))
        }
        let theirs = result.outcome.foreignLedger
        let isOfShard = product.state.withLock { state in
            // The product goes to another shard at this moment. That shard asks for a resync of its own.
            guard state.shard?.id == products.shard else { return false }
            state.soldOut.end()
            if theirs == nil {
                _ = state.standing.installed(in: outage, since: mark)
            } else {
                state.standing.foundForeign(in: outage, since: mark)
            }
            return true
        }
        guard isOfShard else { return }
        switch products.saw(foreignLedger: theirs, for: product.id) {
        case .nothing: break
        case .found(let theirs): events.tell(.foreignLedger(product.id, theirs: theirs, ours: products.ledgerName))
        case .gone: events.tell(.foreignLedgerGone)
        }
        events.isOver(.resync(product.id))
        // The product is sold through Redis again, so its trouble is over. Another ledger's data is different: the product stays without Redis then.
        if theirs == nil, events.isOver(.product(product.id)) { events.tell(.gatedAgain(product.id)) }
    }

    private func say(_ failure: ResyncFailure, _ product: GatedProduct) {
        switch failure.scope {
        case .redis: events.say(failure.news, of: .redis, .redisFailed(why: failure.words))
        case .ledger: events.say(failure.words, of: .recovery, .trouble("products not resynced: \(failure.words)"))
        // The next map of the slots is told when it is found, with the number of products that it moves.
        case .slot: break
        case .locked, .row, .keys:
            // A product that is sold directly was reported when it was left. Only a new reason is news.
            let isDirect = product.state.withLock { $0.standing.isDirect }
            let event: EngineEvent =
                isDirect ? .leftDirect(product.id, why: failure.words) : .resyncFailed(product.id, why: failure.words)
            events.say(failure.news, of: isDirect ? .product(product.id) : .resync(product.id), event)
        }
    }
}
