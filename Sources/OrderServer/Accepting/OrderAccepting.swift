// An order over the broker, up to its answer 202. This path uses callbacks; only a key that is taken, or a look-up of one, needs a task.
//
//   1. `accept`: the buyer's deadline begins, the memory of sold-out products is asked, and room for the order's message is reserved.
//   2. One statement writes the order's row and the message that carries the order, in a group with others, and the buyer is answered.
//
// The rest happens without the buyer: `OutboxRelay` publishes the message, and `ResultConsumer` writes what the product server has decided.
//
// Bounds: the buyer's deadline, and `OutboxBacklog.maximumOrders` orders whose messages are not sent. One more order is OVERLOADED.

import APIErrors
import ServerMetrics
import StrictJSON

/// Makes orders that a message carries to the product server. This object exists only if there is a broker.
final class OrderAccepting: Sendable {
    private let cells: ProductCells
    private let backlog: OutboxBacklog
    private let insertion: OrderInsertion
    private let deadlines: BuyerDeadlines
    private let turnaway: OrderTurnaway
    private let metrics: OrderMetrics

    init(
        cells: ProductCells,
        backlog: OutboxBacklog,
        insertion: OrderInsertion,
        deadlines: BuyerDeadlines,
        turnaway: OrderTurnaway,
        metrics: OrderMetrics
    ) {
        self.cells = cells
        self.backlog = backlog
        self.insertion = insertion
        self.deadlines = deadlines
        self.turnaway = turnaway
        self.metrics = metrics
    }

    /// Makes an order together with its message. `done` is called once, immediately or on the group writer's thread. The order is PENDING; a replay may be in
    /// any state.
    ///
    /// Errors: `INSUFFICIENT_STOCK` without an order if the product is known to be sold out; `OVERLOADED` if too many orders wait to be sent; `UNAVAILABLE`; `KEY_REUSED`.
    func accept(_ draft: OrderDraft, done: @escaping PlacedOrder.Done) {
        let wait = deadlines.begin(done)
        guard let cell = cells.cell(of: draft.productID) else {
            return turnaway.noProduct(draft, wait.deadline, waits: false) { wait.answer($0) }
        }
        if cell.soldOut.isSoldOut(product: draft.productID, quantity: draft.quantity) {
            return turnaway.soldOut(draft, wait.deadline, waits: false) { wait.answer($0) }
        }
        guard backlog.reserve() else {
            return wait.answer(.failure(APIError(.overloaded, details: ["waitingOrders": .int(Int64(backlog.orders))])))
        }
        insertion.insert(draft, isAsynchronous: true, deadline: wait.deadline) { outcome in
            if case .made(let order) = outcome {
                self.metrics.accepted.add()
                return wait.answer(.success(PlacedOrder(order: order, isReplay: false)))
            }
            self.backlog.release(orders: 1)
            self.turnaway.notInserted(outcome, draft, wait.deadline, waits: false) { wait.answer($0) }
        }
    }
}
