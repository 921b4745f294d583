// Invariant: each buyer is answered once, with the order's outcome or at the deadline, whichever comes first. An outcome that comes later changes the order,
//   but no answer.
//
// Bounds: a wait is kept until its deadline at most, so there are no more than come within that time. An answered wait leaves when the waits before it
//   have left: each new wait removes up to two of them. So in a rush there are few more waits than buyers that wait. One task ticks while there is any.

import APIErrors
import NIOCore
import StockContract
import StrictJSON
import Synchronization

/// The deadlines of all waiting buyers. All have the same time limit, so the first one to come is the first one due, and no timer for each is needed.
final class BuyerDeadlines: Sendable {
    private struct State {
        var waits: CircularBuffer<BuyerWait> = []
        var isTicking = false

        /// Takes the first wait, if it was answered.
        mutating func takeAnswered() -> BuyerWait? { waits.first?.isAnswered == true ? waits.popFirst() : nil }
    }

    private let state = Mutex(State())
    /// How long each buyer waits at most.
    private let time: Duration
    /// How late an answer may come after the deadline.
    private let tick: Duration

    private let waiting: WaitingBuyers

    init(_ waiting: WaitingBuyers = WaitingBuyers(), time: Duration = .seconds(3), tick: Duration = .milliseconds(20)) {
        self.waiting = waiting
        self.time = time
        self.tick = tick
    }

    /// Begins a buyer's wait: `done` is called once, with the answer or at the deadline.
    func begin(_ done: @escaping PlacedOrder.Done) -> BuyerWait {
        waiting.come()
        let wait = BuyerWait(deadline: .now + time) { [waiting] result in
            waiting.leave()
            done(result)
        }
        watch(wait)
        return wait
    }

    /// Answers at the deadline at the latest. Work that `body` has begun goes on.
    func answer(_ body: @escaping @Sendable (BuyerWait) async throws(APIError) -> PlacedOrder) async throws(APIError) -> PlacedOrder {
        try await PlacedOrder.awaited { done in
            let wait = self.begin(done)
            PlacedOrder.inTask({ wait.answer($0) }) { () async throws(APIError) in try await body(wait) }
        }
    }

    /// Answers the wait at its deadline, unless it is answered before.
    func watch(_ wait: BuyerWait) {
        // Waits that leave are freed after the lock is released.
        let (isFirst, _) = self.state.withLock { state in
            state.waits.append(wait)
            let gone = (state.takeAnswered(), state.takeAnswered())
            defer { state.isTicking = true }
            return (!state.isTicking, gone)
        }
        guard isFirst else { return }
        Task { [weak self] in
            // The loop ends when no wait is left.
            while let next = self?.expire(at: .now) { try? await Task.sleep(until: next) }
        }
    }

    /// Answers the waits that are due.
    /// - Returns: the time of the next look; nil if no wait is left
    private func expire(at now: ContinuousClock.Instant) -> ContinuousClock.Instant? {
        var due: [BuyerWait] = []
        let next: ContinuousClock.Instant? = self.state.withLock { state in
            while let first = state.waits.first, first.deadline <= now || first.isAnswered {
                if !first.isAnswered { due.append(first) }
                state.waits.removeFirst()
            }
            guard let first = state.waits.first else {
                state.isTicking = false
                return nil
            }
            return max(first.deadline, now + tick)
        }
        for wait in due { wait.expire() }
        return next
    }

    var count: Int { state.withLock { $0.waits.count } }
}

/// One buyer's wait for an answer.
final class BuyerWait: Sendable {
    private struct State {
        var done: PlacedOrder.Done?
        var order: (id: Int64, status: OrderStatus)?
    }

    let deadline: ContinuousClock.Instant
    private let state: Mutex<State>

    init(deadline: ContinuousClock.Instant, done: @escaping PlacedOrder.Done) {
        self.deadline = deadline
        self.state = Mutex(State(done: done))
    }

    var isAnswered: Bool { state.withLock { $0.done == nil } }

    /// The buyer's order is durable, in this state. From now on it is settled in the background, whatever the buyer is answered.
    func began(_ orderID: Int64, _ status: OrderStatus) { state.withLock { $0.order = (orderID, status) } }

    /// Answers the buyer, if nothing has answered before.
    func answer(_ result: Result<PlacedOrder, APIError>) { take()?.done(result) }

    /// The buyer's time is over.
    func expire() {
        guard let (done, order) = take() else { return }
        // Nothing is known to be written then: the database has not answered.
        guard let order else { return done(.failure(APIError(.unavailable))) }
        done(
            .failure(
                APIError(
                    .dependencyFailed,
                    details: [
                        "orderId": .int(order.id), "status": .string(order.status.rawValue), "cause": .string(NoAnswerCause.deadline),
                    ],
                    retryAfter: .seconds(1)
                )
            )
        )
    }

    private func take() -> (done: PlacedOrder.Done, order: (id: Int64, status: OrderStatus)?)? {
        self.state.withLock { state in
            guard let done = state.done else { return nil }
            state.done = nil
            return (done, state.order)
        }
    }
}
