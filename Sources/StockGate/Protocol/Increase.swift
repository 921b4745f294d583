// One increase, from its request to its last message: commit, then apply. A duplicate raises the fence instead.
//
// Invariant: the caller is answered once, after the commit. Redis is told of the added units at most once.
// Stop: `isFinished`.

/// The state of one increase: a cancellation, a compensation or a return.
public struct Increase: Hashable, Sendable {
    /// What the shell has to do next.
    public enum Action: Hashable, Sendable {
        /// Send the increase to the ledger.
        case commit
        /// Tell Redis of units that were given back under this fence. Never sent twice.
        case apply(Fence, delta: Int64)
        /// Raise the product's fence.
        case bump
        /// Nothing more.
        case finish
    }

    /// What happens next, and what the caller is told now.
    public struct Step: Hashable, Sendable {
        /// The answer to the caller, in the one step that has it.
        public var answer: IncreaseAnswer?
        /// What the shell has to do.
        public var action: Action
        /// Whether the product should be resynced.
        public var asksForResync: Bool

        package init(_ action: Action, answer: IncreaseAnswer? = nil, asks: Bool = false) {
            self.action = action
            self.answer = answer
            asksForResync = asks
        }
    }

    /// Where the increase is.
    public enum State: Hashable, Sendable {
        /// -> committing
        case start
        /// -> applying, finished
        case committing(unknownBefore: Bool)
        /// -> bumping, finished
        case applying(Fence, delta: Int64)
        /// -> finished
        case bumping
        /// The end.
        case finished
    }

    /// What was asked for.
    public let request: IncreaseRequest
    /// Where it is.
    public private(set) var state: State = .start

    /// Creates an increase that has not begun.
    public init(_ request: IncreaseRequest) {
        self.request = request
    }

    /// Whether nothing more will happen.
    public var isFinished: Bool { state == .finished }

    /// The increase begins.
    public mutating func began() -> Step {
        state = .committing(unknownBefore: false)
        return Step(.commit)
    }

    /// The ledger decided.
    public mutating func committed(_ reply: IncreaseReply) -> Step {
        let asks = reply.bumped
        let answer = Self.answer(to: reply)
        guard reply.outcome == .added, reply.isGated else {
            state = .finished
            return Step(.finish, answer: answer, asks: asks)
        }
        state = .applying(reply.lockedFence, delta: reply.quantity.rawValue)
        return Step(.apply(reply.lockedFence, delta: reply.quantity.rawValue), answer: answer, asks: asks)
    }

    /// The commit brought no decision.
    public mutating func commitFailed(_ failure: CommitFailure) -> Step {
        guard case .committing(let unknownBefore) = state else { return Step(.finish) }
        if case .notRun(let why) = failure, !unknownBefore {
            state = .finished
            return Step(.finish, answer: .unavailable(why))
        }
        // The next sending finds a row that this one wrote as a duplicate. It then raises the fence, because nobody may have told Redis of the units.
        state = .committing(unknownBefore: true)
        return Step(.commit)
    }

    /// Redis replied to the apply.
    public mutating func applied(_ reply: ApplyReply) -> Step {
        state = .finished
        return Step(.finish, asks: reply == .behind)
    }

    /// The apply failed, or its outcome is unknown. It is never sent again; the fence is raised instead.
    public mutating func applyFailed() -> Step {
        guard case .applying = state else { return Step(.finish) }
        state = .bumping
        return Step(.bump)
    }

    /// The fence was raised.
    public mutating func bumped() -> Step {
        state = .finished
        return Step(.finish, asks: true)
    }

    private static func answer(to reply: IncreaseReply) -> IncreaseAnswer {
        switch reply.outcome {
        case .added: .added(quantity: reply.quantity, remaining: reply.remaining, replayed: false)
        case .duplicate: .added(quantity: reply.quantity, remaining: reply.remaining, replayed: true)
        case .nothingToReturn: .nothingToReturn(remaining: reply.remaining, replayed: false)
        case .duplicateNothing: .nothingToReturn(remaining: reply.remaining, replayed: true)
        case .keyReused: .keyReused
        case .productMissing: .productMissing
        }
    }
}
