import APIErrors
import Logging
import PostgresClient
import ServerKit
import ServerMetrics
import StockContract

/// Stock that was taken for orders that have failed, and what the product server refuses to take back.
extension OrderConclusion {
    /// Gives back what was taken for an order that was found to have failed before this answer came. What cannot be given back now is left to recovery.
    func undoOvertaken(_ order: Order) async {
        self.metrics.lateSuccesses.add()
        await self.leaveToRecovery(order)
        let (undone, records) = await self.orchestrator.run(
            order,
            purpose: .undo(reason: order.failReason ?? "LATE_SUCCESS"),
            deadline: .now + self.deadlines.buyer
        )
        if case .notUndone(let refusal, _) = undone, await self.noteUndoRefused(order, refusal, records, .lateSuccess) {
            await self.drop(order.id, attempt: nil)
        }
    }

    /// Gives back what was taken for a run of an order that has failed. Refused for good by the product server, that has ended as well.
    /// - Throws: if it is neither done, refused nor left to recovery
    func undoLateSuccess(_ order: Order) async throws {
        self.metrics.lateSuccesses.add()
        // Recovery undoes an order's present run; an earlier one is undone here.
        guard let current = try await self.store.order(id: order.id), current.run != order.run || current.status != .failed else {
            return try await self.store.leaveToRecovery(id: order.id, after: .zero)
        }
        let isUndone = try await self.undo(order, firstAttempt: 1, reason: "LATE_SUCCESS", .now + self.deadlines.buyer)
        guard isUndone else { throw APIError(.dependencyFailed) }
    }

    /// Gives back what may have been taken for an order that has failed. A compensation of nothing does no harm.
    /// - Parameter reason: of an order that names none
    /// - Returns: whether that has ended: done, or refused for good
    /// - Throws: `UNAVAILABLE` if the refusal could not be noted
    func undo(
        _ order: Order,
        firstAttempt: Int64,
        reason: String,
        _ deadline: ContinuousClock.Instant
    ) async throws(APIError) -> Bool {
        let (result, records) = await self.orchestrator.run(
            order,
            purpose: .undo(reason: order.failReason ?? reason),
            firstAttempt: firstAttempt,
            deadline: deadline
        )
        switch result {
        case .failed: return true
        case .notUndone(let refusal, _):
            guard await self.noteUndoRefused(order, refusal, records, .lateSuccess) else { throw APIError(.unavailable) }
            return true
        // Undoing confirms nothing, and takes no key.
        case .confirmed, .keyTaken, .undecided: return false
        }
    }

    /// Notes that the product server has refused for good to take an order's stock back: the units stay taken, and an operator has to settle that. Logged and counted
    /// if it is news; a cancellation that is asked for again and again fills no log.
    /// - Returns: whether it is noted
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
            guard try await self.store.noteUndoRefused(id: order.id, refusal: order.increaseKey + " " + refusal, records: records) else {
                return true
            }
        } catch {
            metadata["error"] = "\(error)"
            self.logger.warning("a final refusal to take stock back was not noted", metadata: metadata)
            return false
        }
        self.metrics.undoRefused[undoing]?.add()
        self.logger.error("the product server has refused for good to take stock back: needs operator action", metadata: metadata)
        return true
    }
}
