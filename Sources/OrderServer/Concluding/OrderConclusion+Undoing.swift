import APIErrors
import Logging
import PostgresClient
import ServerMetrics
import StockContract

/// Gives back stock that was taken for failed orders, and records when the product server refuses to take it.
extension OrderConclusion {
    /// Gives back the stock of an order that had failed before this answer came. What cannot be given back now is left to recovery.
    func undoOvertaken(_ order: Order) async {
        metrics.lateSuccesses.add()
        await leaveToRecovery(order)
        let (undone, records) = await orchestrator.run(
            order,
            purpose: .undo(reason: order.failReason ?? "LATE_SUCCESS"),
            deadline: .now + deadlines.buyer
        )
        if case .notUndone(let refusal, _) = undone, await noteUndoRefused(order, refusal, records, .lateSuccess) {
            await drop(order.id, attempt: nil)
        }
    }

    /// Gives back the stock that was taken for a failed run of an order. If the product server refuses for good, that ends it too.
    /// - Throws: if what becomes of the stock is still open and could not be left to recovery
    func undoLateSuccess(_ order: Order) async throws {
        metrics.lateSuccesses.add()
        // Recovery undoes the present run of an order. An earlier run is undone here.
        guard let current = try await store.order(id: order.id), current.run != order.run || current.status != .failed else {
            return try await store.leaveToRecovery(id: order.id, after: .zero)
        }
        let isUndone = try await undo(order, firstAttempt: 1, reason: "LATE_SUCCESS", .now + deadlines.buyer)
        guard isUndone else { throw APIError(.dependencyFailed) }
    }

    /// Gives back the stock that may have been taken for a failed order. Compensating a decrease that never happened is harmless.
    /// - Parameter reason: used if the order has no reason of its own
    /// - Returns: whether this has ended: the stock was given back, or refused for good
    /// - Throws: `UNAVAILABLE` if the refusal could not be noted
    func undo(
        _ order: Order,
        firstAttempt: Int64,
        reason: String,
        _ deadline: ContinuousClock.Instant
    ) async throws(APIError) -> Bool {
        let (result, records) = await orchestrator.run(
            order,
            purpose: .undo(reason: order.failReason ?? reason),
            firstAttempt: firstAttempt,
            deadline: deadline
        )
        switch result {
        case .failed: return true
        case .notUndone(let refusal, _):
            guard await noteUndoRefused(order, refusal, records, .lateSuccess) else { throw APIError(.unavailable) }
            return true
        // An undoing saga never confirms, and never takes a key.
        case .confirmed, .keyTaken, .undecided: return false
        }
    }

    /// Notes that the product server has refused for good to take an order's stock back. The units stay taken, which needs operator action. The refusal is
    /// logged and counted only if it is new, so that a repeated cancellation does not fill the log.
    /// - Returns: whether the refusal is noted
    @discardableResult
    func noteUndoRefused(
        _ order: Order,
        _ refusal: String,
        _ records: [StepRecord],
        _ undoing: OrderMetrics.Undoing
    ) async -> Bool {
        var metadata: Logger.Metadata = [
            "order": "\(order.id)", "key": "\(order.increaseKey)", "reason": "\(refusal)", "during": "\(undoing.rawValue)",
        ]
        metadata["requestId"] = order.requestID.map { "\($0)" }
        do throws(PostgresError) {
            guard try await store.noteUndoRefused(id: order.id, refusal: order.increaseKey + " " + refusal, records: records) else {
                return true
            }
        } catch {
            trouble.note(error, "a final refusal to take stock back was not noted", metadata)
            return false
        }
        metrics.undoRefused[undoing]?.add()
        logger.error("the product server has refused for good to take stock back: needs operator action", metadata: metadata)
        return true
    }
}
