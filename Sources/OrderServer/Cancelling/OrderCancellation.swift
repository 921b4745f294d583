// A cancellation from its first step to its answer:
//
//   1. `cancel`: the order is marked as being cancelled, and put on recovery's list should this process die.
//   2. `giveBack`: the saga's steps are undone, which gives the stock back, and the order becomes CANCELLED.
//   3. `cancel` again: the order leaves recovery's list, and the buyer is answered.
//
// Invariant: an order becomes CANCELLED only after its stock is given back. Several cancellations of one order give back once, because they send one key.
//
// Bounds: the buyer's deadline, from which on recovery goes on alone.

import APIErrors
import Logging
import PostgresClient
import ServerKit
import ServerMetrics
import StockContract
import StrictJSON

/// Cancels orders.
struct OrderCancellation: Sendable {
    let conclusion: OrderConclusion
    let deadlines: BuyerDeadlines

    /// What a cancellation came to.
    enum GivenBack {
        /// The order is cancelled, or whatever somebody else has made of it meanwhile.
        case settled(Order)
        /// It stays CONFIRMED; the cancellation has ended.
        case refused(String)
        /// Nobody knows yet. The cause is that of the last call.
        case undecided(cause: String)
    }

    /// Gives a CONFIRMED order's stock back and cancels it. Of several at once each is answered with the cancelled order.
    /// - Throws: `ORDER_NOT_FOUND`, `INVALID_STATE`; `DEPENDENCY_FAILED` if the stock could not be given back: the order is still CONFIRMED then, and recovery goes on
    ///   with its cancellation. Unless the product server has refused it for good: then the cancellation has ended, and the error's `details.final` is true
    func cancel(id: Int64, key: String?, requestID: String? = nil) async throws(APIError) -> PlacedOrder {
        try await self.deadlines.answer { (wait) async throws(APIError) in
            let marked = try await self.conclusion.trouble.noting("a cancellation was not noted") { () throws(PostgresError) in
                try await self.conclusion.store.requestCancel(id: id, key: key)
            }
            guard var order = marked else { return try await self.replay(id, key) }
            order.requestID = requestID
            wait.began(id, .confirmed)
            switch try await self.giveBack(order, firstAttempt: 1, .now + self.conclusion.deadlines.buyer) {
            case .settled(let order):
                await self.conclusion.drop(order.id, attempt: nil)
                return PlacedOrder(order: order, isReplay: false)
            case .refused(let refusal): throw .cancelRefused(order: id, cause: refusal)
            case .undecided(let cause):
                throw APIError(
                    .dependencyFailed,
                    details: ["orderId": .int(id), "status": .string(OrderStatus.confirmed.rawValue), "cause": .string(cause)],
                    retryAfter: .seconds(1)
                )
            }
        }
    }

    /// An order that cannot be cancelled: CANCELLED by this very key, it is the answer.
    private func replay(_ id: Int64, _ key: String?) async throws(APIError) -> PlacedOrder {
        guard let current = try await self.conclusion.load(id) else { throw APIError(.orderNotFound) }
        if current.status == .cancelled, let key, current.cancelKey == key { return PlacedOrder(order: current, isReplay: true) }
        throw APIError(.invalidState, details: ["status": .string(current.status.rawValue)])
    }

    /// Undoes the saga of an order that is marked as being cancelled, and writes what that came to.
    func giveBack(_ order: Order, firstAttempt: Int64, _ deadline: ContinuousClock.Instant) async throws(APIError) -> GivenBack {
        let (result, records) = await self.conclusion.orchestrator.run(
            order,
            purpose: .undo(reason: OrderStatus.cancelled.rawValue),
            firstAttempt: firstAttempt,
            deadline: deadline
        )
        switch result {
        case .failed: return .settled(try await self.write(order, records))
        case .notUndone(let refusal, _): return try await self.withdraw(order, refusal, records)
        case .undecided(let cause): return .undecided(cause: cause)
        // Undoing confirms nothing, and takes no key.
        case .confirmed, .keyTaken: return .undecided(cause: "NO_ANSWER")
        }
    }

    private func write(_ given: Order, _ records: [StepRecord]) async throws(APIError) -> Order {
        var order = given
        switch await self.conclusion.completion.complete(order, from: .confirmed, to: .cancelled, failReason: nil, records: records) {
        case .written(let time):
            order.status = .cancelled
            order.updatedAt = time
            self.conclusion.metrics.cancelled.add()
            return order
        case .overtaken:
            guard let current = try await self.conclusion.load(order.id) else { throw APIError(.unavailable) }
            return current
        case .overloaded: throw APIError(.overloaded)
        case .unavailable(let error): throw self.conclusion.trouble.noted(error, "a cancellation was not written")
        }
    }

    /// Ends a cancellation whose stock the product server refuses for good to take back. First the note, then the mark: a server that dies in between leaves an order that recovery asks
    /// for once more.
    private func withdraw(_ order: Order, _ refusal: String, _ records: [StepRecord]) async throws(APIError) -> GivenBack {
        guard await self.conclusion.noteUndoRefused(order, refusal, records, .cancel) else { throw APIError(.unavailable) }
        try await self.conclusion.trouble.noting("a cancellation was not withdrawn") { () throws(PostgresError) in
            try await self.conclusion.store.withdrawCancel(id: order.id)
        }
        return .refused(refusal)
    }
}
