// The life of one command, from its delivery to its acknowledgement. A pure machine; its shell is `CommandDesk`.
//
// Invariant: a command is acknowledged only when every order in it has a verdict and every message about it is confirmed. An order whose outcome is unknown has
//   no verdict. It is asked again, as a repeat, because the first request may have been committed.
// Bounds: between two rounds, and between two publishes, the command waits as `backoff` says. If the next wait would end after
//   `giveUpAt`, the delivery goes back to the queue. Every round ends because the engine answers within its own bound, and every publish because the broker's
//   client does.
// Stop: `acknowledge` or `requeue`, one of them once. Later events change nothing.

import APIErrors
import BlockingThreads
import NIOCore
import StockContract
import StockGate

struct CommandLife: Sendable {
    /// The decision about an order. An order whose outcome is unknown has none.
    enum Verdict: Sendable, Hashable {
        case committed(remaining: Int64)
        case refused(APIErrorCode, remaining: Int64?)
    }

    /// A message about the command.
    enum Part: Sendable, Hashable {
        /// The result, for the order servers.
        case result
        /// A copy of the command, for the operators who look after dead letters.
        case deadLetter
        /// The command itself, to the queue where commands of locked products wait.
        case aside
    }

    /// Why a command goes back to the queue.
    enum Unfinished: String, Sendable, CaseIterable {
        /// Some orders had no verdict when the time was over.
        case undecided
        /// Some messages had no confirm when the time was over.
        case unpublished
        case stopping
    }

    /// What the shell must do.
    enum Action: Sendable, Equatable {
        case none
        /// Send these orders to the engine, and report each answer by `decided`.
        case decide([Int], asRepeats: Bool)
        /// Call `waitEnded` after this time.
        case wait(Duration)
        /// Publish these messages, and report by `published`.
        case publish([Part])
        case acknowledge
        case requeue(Unfinished)
    }

    private enum State: Sendable {
        /// -> deciding, publishing, settingAside, done
        case received
        /// -> waitingToDecide, publishing, settingAside, done
        case deciding(missing: Int)
        /// -> waitingToDecide, done
        case settingAside
        /// -> deciding, done
        case waitingToDecide
        /// -> waitingToPublish, done
        case publishing([Part])
        /// -> publishing, done
        case waitingToPublish([Part])
        /// Final.
        case done
    }

    static let backoff = Backoff(minimum: .milliseconds(50), maximum: .seconds(2))

    private var state = State.received
    /// The verdicts, by each order's position in the command.
    private(set) var verdicts: [Verdict?]
    private let isRepeat: Bool
    private let giveUpAt: NIODeadline
    /// For a poisonous command, the messages to publish; it has nothing to decide.
    private let poison: [Part]?
    /// How often the command has waited since its last progress.
    private var waits = 0
    private var round = 0
    private var isStopping = false
    /// Whether an order of the last round has no verdict because its product's row is locked.
    private(set) var isWaitingForRow = false
    /// Whether the command was acknowledged without a result, because a copy of it waits in the queue for commands of locked products.
    private(set) var isSetAside = false

    /// The life of a command with this many orders.
    init(orders: Int, isRepeat: Bool, giveUpAt: NIODeadline) {
        verdicts = Array(repeating: nil, count: orders)
        self.isRepeat = isRepeat
        self.giveUpAt = giveUpAt
        poison = nil
    }

    /// The life of a poisonous command. The messages about it are known at once.
    init(poison: [Part], giveUpAt: NIODeadline) {
        self.verdicts = []
        isRepeat = false
        self.giveUpAt = giveUpAt
        self.poison = poison
    }

    var isDone: Bool {
        if case .done = state { true } else { false }
    }

    // MARK: Events

    /// The command may begin.
    /// - Parameter mayStay: false when the product's row is locked and the bound on commands that wait for such rows in this process is reached
    mutating func began(mayStay: Bool = true) -> Action {
        guard case .received = state else { return .none }
        if isStopping { return end(.requeue(.stopping)) }
        if let poison { return publish(poison) }
        return mayStay ? decide() : setAside()
    }

    /// The engine has answered for one order; nil: the outcome is unknown.
    /// - Parameters:
    ///   - isLocked: whether that is so because the product's row is locked
    ///   - mayStay: whether one more command may wait in hand for such a row
    mutating func decided(
        _ index: Int,
        _ verdict: Verdict?,
        isLocked: Bool = false,
        mayStay: Bool = true,
        at now: NIODeadline
    ) -> Action {
        guard case .deciding(let missing) = state, verdicts.indices.contains(index), verdicts[index] == nil else { return .none }
        verdicts[index] = verdict
        if verdict == nil, isLocked { isWaitingForRow = true }
        guard missing == 1 else {
            state = .deciding(missing: missing - 1)
            return .none
        }
        if verdicts.contains(nil) {
            if isWaitingForRow, !mayStay, !isStopping { return setAside() }
            return waitOr(.undecided, .waitingToDecide, at: now)
        }
        waits = 0
        let isUnknownProduct = verdicts.contains { if case .refused(.productNotFound, _)? = $0 { true } else { false } }
        return publish(isUnknownProduct ? [.result, .deadLetter] : [.result])
    }

    mutating func waitEnded() -> Action {
        switch state {
        case .waitingToDecide: decide()
        case .waitingToPublish(let parts): publish(parts)
        case .received, .deciding, .settingAside, .publishing, .done: .none
        }
    }

    /// The broker has answered. Messages that are not confirmed are published again, because repeating a result is harmless.
    mutating func published(confirmed: [Part], at now: NIODeadline) -> Action {
        if case .settingAside = state {
            // The queue for commands of locked products is full or missing, so the command waits in hand.
            guard confirmed.contains(.aside) else { return waitOr(.undecided, .waitingToDecide, at: now) }
            isSetAside = true
            return end(.acknowledge)
        }
        guard case .publishing(let parts) = state else { return .none }
        let rest = parts.filter { !confirmed.contains($0) }
        guard rest.isEmpty else { return waitOr(.unpublished, .waitingToPublish(rest), at: now) }
        return end(.acknowledge)
    }

    /// The server is stopping: work under way ends, and nothing new begins.
    mutating func stopped() -> Action {
        isStopping = true
        switch state {
        case .received, .waitingToDecide, .waitingToPublish: return end(.requeue(.stopping))
        case .deciding, .settingAside, .publishing, .done: return .none
        }
    }

    // MARK: Steps

    private mutating func decide() -> Action {
        let open = verdicts.indices.filter { verdicts[$0] == nil }
        round += 1
        isWaitingForRow = false
        state = .deciding(missing: open.count)
        return .decide(open, asRepeats: isRepeat || round > 1)
    }

    private mutating func setAside() -> Action {
        isWaitingForRow = true
        state = .settingAside
        return .publish([.aside])
    }

    private mutating func publish(_ parts: [Part]) -> Action {
        state = .publishing(parts)
        return .publish(parts)
    }

    private mutating func waitOr(_ reason: Unfinished, _ next: State, at now: NIODeadline) -> Action {
        if isStopping { return end(.requeue(.stopping)) }
        let wait = Self.backoff.wholeWait(after: waits)
        guard now + TimeAmount(wait) < giveUpAt else { return end(.requeue(reason)) }
        waits += 1
        state = next
        return .wait(wait)
    }

    private mutating func end(_ action: Action) -> Action {
        state = .done
        return action
    }
}

extension CommandLife.Verdict {
    /// The verdict for an answer of the engine; nil if the outcome is unknown.
    init?(_ answer: DecreaseAnswer, asRepeat: Bool) {
        switch answer {
        // A message may come twice although each copy claims to be the first: a relay that dies before its mark is durable sends it again. So a row under the
        // key is this order's own, unless the engine found the row older than the command.
        case .sold(let remaining, _): self = .committed(remaining: remaining)
        case .insufficient(let remaining): self = .refused(.insufficientStock, remaining: remaining)
        // A repeat meets the final refusal of an earlier attempt.
        case .keyClosed: self = .refused(asRepeat ? .insufficientStock : .keyClosed, remaining: nil)
        case .keyReused: self = .refused(.keyReused, remaining: nil)
        case .notOnSale: self = .refused(.invalidState, remaining: nil)
        case .productMissing: self = .refused(.productNotFound, remaining: nil)
        case .unavailable: return nil
        }
    }
}
