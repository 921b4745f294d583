// A cancellation from its first step to its answer:
//
//   1. `cancel`: the order is marked as being cancelled, and put on recovery's list in case this process dies.
//   2. `giveBack`: the saga's steps are undone, which gives the stock back, and the order becomes CANCELLED.
//   3. `cancel` again: the order leaves recovery's list, and the buyer is answered.
//
// Invariant: an order becomes CANCELLED only after its stock was given back. Several cancellations of one order give its stock back once, because they send the
//   same key.
//
// Bounds: the buyer's deadline. After that, recovery goes on alone.

import APIErrors
import Logging
import PostgresClient
import ServerMetrics
import StockContract
import StrictJSON

struct OrderCancellation: Sendable {
    let conclusion: OrderConclusion
    let deadlines: BuyerDeadlines

    /// The result of a cancellation.
    enum GivenBack {
        /// The order is cancelled, or in the state that somebody else has given it meanwhile.
        case settled(Order)
        /// The order stays CONFIRMED, and the cancellation has ended.
        case refused(String)
        /// The outcome is unknown. `cause` is that of the last call.
        case undecided(cause: String)
    }

    /// Gives a CONFIRMED order's stock back and cancels the order. Concurrent calls for one order are all answered with the cancelled order.
    /// - Throws: `ORDER_NOT_FOUND`, `INVALID_STATE`; `DEPENDENCY_FAILED` if the stock could not be given back. Then the order is still CONFIRMED, and recovery
    ///   continues the cancellation. If the product server has refused for good, the cancellation has ended instead, and the error's `details.final` is true.
    func cancel(id: Int64, key: String?, requestID: String? = nil) async throws(APIError) -> PlacedOrder {
        try await deadlines.answer { (wait) async throws(APIError) in
            let marked = try await conclusion.trouble.noting("a cancellation was not noted") { () throws(PostgresError) in
                try await conclusion.store.requestCancel(id: id, key: key)
            }
            guard var order = marked else { return try await replay(id, key) }
            order.requestID = requestID
            wait.began(id, .confirmed)
            switch try await giveBack(order, firstAttempt: 1, .now + conclusion.deadlines.buyer) {
            case .settled(let order):
                await conclusion.drop(order.id, attempt: nil)
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

    /// The answer for an order that cannot be cancelled. If it was CANCELLED under this very key, the order itself is the answer.
    private func replay(_ id: Int64, _ key: String?) async throws(APIError) -> PlacedOrder {
        guard let current = try await conclusion.load(id) else { throw APIError(.orderNotFound) }
        if current.status == .cancelled, let key, current.cancelKey == key { return PlacedOrder(order: current, isReplay: true) }
        throw APIError(.invalidState, details: ["status": .string(current.status.rawValue)])
    }

    /// Undoes the saga of an order that is marked as being cancelled, and writes the result.
    func giveBack(_ order: Order, firstAttempt: Int64, _ deadline: ContinuousClock.Instant) async throws(APIError) -> GivenBack {
        let (result, records) = await conclusion.orchestrator.run(
            order,
            purpose: .undo(reason: OrderStatus.cancelled.rawValue),
            firstAttempt: firstAttempt,
            deadline: deadline
        )
        switch result {
        case .failed: return .settled(try await write(order, records))
        case .notUndone(let refusal, _): return try await withdraw(order, refusal, records)
        case .undecided(let cause): return .undecided(cause: cause)
        // An undoing saga never confirms, and never takes a key.
        case .confirmed, .keyTaken: return .undecided(cause: NoAnswerCause.noAnswer)
        }
    }

    private func write(_ given: Order, _ records: [StepRecord]) async throws(APIError) -> Order {
        var order = given
        switch await conclusion.completion.complete(order, from: .confirmed, to: .cancelled, failReason: nil, records: records) {
        case .written(let time):
            order.status = .cancelled
            order.updatedAt = time
            conclusion.metrics.cancelled.add()
            return order
        case .overtaken:
            guard let current = try await conclusion.load(order.id) else { throw APIError(.unavailable) }
            return current
        case .overloaded: throw APIError(.overloaded)
        case .unavailable(let error): throw conclusion.trouble.noted(error, "a cancellation was not written")
        }
    }

    /// Ends a cancellation after the product server has refused for good to take the stock back. The refusal is noted first and the mark removed second. If the
    /// server dies in between, recovery asks once more.
    private func withdraw(_ order: Order, _ refusal: String, _ records: [StepRecord]) async throws(APIError) -> GivenBack {
        guard await conclusion.noteUndoRefused(order, refusal, records, .cancel) else { throw APIError(.unavailable) }
        try await conclusion.trouble.noting("a cancellation was not withdrawn") { () throws(PostgresError) in
            try await conclusion.store.withdrawCancel(id: order.id)
        }
        return .refused(refusal)
    }
}
