// A synchronous order from its first step to its answer. This path uses callbacks: in a rush, an order that is confirmed or refused at the first try needs no
// task.
//
//   1. `place`: the buyer's deadline begins, and the memory of sold-out products is asked. Now and then a request for a sold-out product looks at the stock.
//   2. `insert`: the order's row is written, PENDING, in a group with others. In a rush a group waits for half of the buyers that wait.
//   3. `run`: the saga asks the product server for the stock, in a call with others.
//   4. `write`: the final state is written, in a group with others, and the buyer is answered.
//
// Other cases leave this file for good: `OrderTurnaway` handles a request that gets no new order, and `OrderConclusion` an outcome other than *confirmed* or
// *failed*.
//
// Invariant: the saga begins only for an order whose row is durable, and a final state is answered only when it is durable.
//
// Bounds: the buyer's deadline, whatever the databases and the product server do. When it is over, the buyer is answered, and an order that has no outcome is
// concluded after the answer.

import APIErrors
import CircuitBreaker
import HotPath
import StockContract

/// Makes orders and runs their sagas.
final class OrderPlacing: Sendable {
    private let cells: ProductCells
    private let insertion: OrderInsertion
    private let orchestrator: SagaOrchestrator
    private let completion: OrderCompletion
    private let deadlines: BuyerDeadlines
    private let turnaway: OrderTurnaway
    private let conclusion: OrderConclusion

    init(
        cells: ProductCells,
        insertion: OrderInsertion,
        deadlines: BuyerDeadlines,
        turnaway: OrderTurnaway,
        conclusion: OrderConclusion
    ) {
        self.cells = cells
        self.insertion = insertion
        orchestrator = conclusion.orchestrator
        completion = conclusion.completion
        self.deadlines = deadlines
        self.turnaway = turnaway
        self.conclusion = conclusion
    }

    /// Makes an order and runs its saga. `done` is called once, on the thread where the outcome becomes known.
    ///
    /// A failed order is a success here, even if it failed for want of stock: ``PlacedOrder/refusal(isAsynchronous:)`` decides what its buyer is told. Errors:
    /// `INSUFFICIENT_STOCK` without an order if the product is known to be sold out; `DEPENDENCY_FAILED` if the outcome is unknown yet, or if the breaker is
    /// open (then no order is made); `KEY_REUSED`, `REQUEST_IN_PROGRESS`, `OVERLOADED`, `UNAVAILABLE`.
    func place(_ draft: OrderDraft, done: @escaping PlacedOrder.Done) {
        guard let cell = cells.cell(of: draft.productID) else {
            let wait = deadlines.begin(done)
            return turnaway.noProduct(draft, wait.deadline, waits: true) { wait.answer($0) }
        }
        // In a rush for a sold-out product this is most requests: they have nothing to wait for.
        if turnaway.isImmediate(draft), cell.soldOut.turnsAway(product: draft.productID, quantity: draft.quantity) {
            return turnaway.soldOut(draft, .now, waits: true, done)
        }
        let wait = deadlines.begin(done)
        cell.soldOut.ask(product: draft.productID, quantity: draft.quantity) { verdict in
            switch verdict {
            case .soldOut: self.turnaway.soldOut(draft, wait.deadline, waits: true) { wait.answer($0) }
            case .proceed: self.insert(draft, cell, wait) { wait.answer($0) }
            case .probe(let probe):
                self.insert(draft, cell, wait) { result in
                    cell.soldOut.endProbe(product: draft.productID, probe: probe)
                    wait.answer(result)
                }
            case .look(let probe):
                Task {
                    if await self.looksSoldOut(draft, cell) {
                        cell.soldOut.endProbe(product: draft.productID, probe: probe)
                        return self.turnaway.soldOut(draft, wait.deadline, waits: true) { wait.answer($0) }
                    }
                    self.insert(draft, cell, wait) { result in
                        cell.soldOut.endProbe(product: draft.productID, probe: probe)
                        wait.answer(result)
                    }
                }
            }
        }
    }

    /// Looks at the stock of a product that was sold out a moment ago, and remembers what it sees. The order itself finds out what a look cannot tell.
    private func looksSoldOut(_ draft: OrderDraft, _ cell: ProductCell) async -> Bool {
        guard let facts = try? await cell.catalogue.facts(of: .id(draft.productID), requestID: draft.requestID?.description),
            let stock = facts.stock, stock < draft.quantity
        else { return false }
        cell.soldOut.sawLeft(product: draft.productID, units: stock)
        return true
    }

    private func insert(_ draft: OrderDraft, _ cell: ProductCell, _ wait: BuyerWait, _ done: @escaping PlacedOrder.Done) {
        // The breaker is asked before anything is written, so that no order is made that only recovery could finish.
        if cell.breaker.isWaiting {
            return turnaway.breakerOpen(draft, wait.deadline, retryAfter: cell.breaker.snapshot().openRemaining, done)
        }
        insertion.insert(draft, deadline: wait.deadline) { outcome in
            switch outcome {
            case .made(let order):
                wait.began(order.id, .pending)
                self.run(order, wait.deadline, done)
            case let other: self.turnaway.notInserted(other, draft, wait.deadline, waits: true, done)
            }
        }
    }

    private func run(_ order: Order, _ deadline: ContinuousClock.Instant, _ done: @escaping PlacedOrder.Done) {
        orchestrator.start(order, deadline: deadline) { result, records in
            switch result {
            case .confirmed: self.write(order, .confirmed, records, done)
            case .failed(let reason): self.write(order, .failed(reason), records, done)
            case .notUndone, .keyTaken, .undecided:
                PlacedOrder.inTask(done) { () async throws(APIError) in
                    PlacedOrder(order: try await self.conclusion.conclude(order, result, records, deadline), isReplay: false)
                }
            }
        }
    }

    private func write(_ order: Order, _ state: FinalState, _ records: [StepRecord], _ done: @escaping PlacedOrder.Done) {
        completion.complete(order, from: .pending, to: state.status, failReason: state.failReason, records: records) { outcome in
            if case .written(let time) = outcome {
                return done(.success(PlacedOrder(order: self.conclusion.written(order, state, at: time), isReplay: false)))
            }
            PlacedOrder.inTask(done) { () async throws(APIError) in
                PlacedOrder(order: try await self.conclusion.settled(order, state, outcome), isReplay: false)
            }
        }
    }
}

extension CircuitBreaker {
    /// Whether the breaker will turn calls away for some time yet.
    var isWaiting: Bool {
        switch state {
        case .closed, .halfOpen, .disabled, .metricsOnly: false
        case .forcedOpen: true
        case .open: (snapshot().openRemaining ?? .zero) > .zero
        }
    }
}
