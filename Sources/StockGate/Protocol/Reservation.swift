// One decrease, from its request to its last message: the protocol as a value.
//
// Invariant: the buyer is answered once, after the commit. A reservation that this process made is settled, released, applied
//   under a newer fence, or left pending for the sweep; it is never both settled and released.
// Bounds: one reserve after another only while Redis says *not loaded* and the shell's wait for a resync succeeds, at most
//   `Reservation.maximumReserves`; commits are repeated only while their outcome is unknown, paced by the shell.
// Stop: `isFinished`.

/// The state of one decrease. Events go in, the next action comes out; it knows no clock, no lock and no I/O.
public struct Reservation: Hashable, Sendable {
    /// What the shell has to do next.
    public enum Action: Hashable, Sendable {
        /// Send a reserve to Redis.
        case reserve
        /// Have this product resynced, and wait for it within the request's time.
        case awaitResync
        /// Look the key up in the ledger, without a lock.
        case lookUp
        /// Send this to the ledger.
        case commit(CommitRequest)
        /// Tell Redis that the reservation is sold. Nobody waits for it.
        case settle(Held)
        /// Tell Redis to give the reservation back. Nobody waits for it.
        case release(Held)
        /// Tell Redis to give the reservation back unless a twin joined it: nothing was decided, and the twin may be committing. A joined
        /// one stays pending for its twin, or for the sweep.
        case abandon(Held)
        /// Tell Redis of a decrement that was committed under this fence. Never sent twice.
        case apply(Fence, delta: Int64)
        /// Raise the product's fence.
        case bump
        /// Nothing more.
        case finish
    }

    /// What happens next, and what the buyer is told now.
    public struct Step: Hashable, Sendable {
        /// The one answer to the buyer, if this is the moment.
        public var answer: DecreaseAnswer?
        /// What the shell has to do.
        public var action: Action
        /// Whether to ask for a resync of the product.
        public var asksForResync: Bool

        package init(_ action: Action, answer: DecreaseAnswer? = nil, asks: Bool = false) {
            self.action = action
            self.answer = answer
            self.asksForResync = asks
        }
    }

    /// Where the request is.
    public enum State: Hashable, Sendable {
        /// -> reserving, committing
        case start
        /// A reserve is out. -> awaitingResync, lookingUp, committing, finished
        case reserving
        /// Redis holds nothing for this product. -> reserving, committing
        case awaitingResync
        /// Redis says *already done*. -> committing, finished
        case lookingUp
        /// A commit is out. `unknownBefore`: an earlier sending of it may still be alive. -> committing, applying, finished
        case committing(CommitRequest, unknownBefore: Bool)
        /// An apply is out; the buyer has been answered. -> bumping, finished
        case applying(Fence)
        /// The apply failed or is unknown. -> finished
        case bumping
        /// The end.
        case finished
    }

    /// How often one request may reserve: the first time, and after each resync that it waited for.
    public static let maximumReserves = 3

    /// What was asked for.
    public let request: DecreaseRequest
    /// Where it is.
    public private(set) var state: State = .start
    private var reserves: UInt8 = 0

    /// A decrease that has not begun.
    public init(_ request: DecreaseRequest) {
        self.request = request
    }

    /// Whether nothing more will happen.
    public var isFinished: Bool { state == .finished }

    // MARK: Events

    /// The request begins. `throughGate`: the product is gated and the breaker lets this call through.
    public mutating func began(throughGate: Bool) -> Step {
        guard throughGate else { return commit(fence: 0, token: 0, reserveSent: false) }
        return reserve()
    }

    /// Redis replied to the reserve.
    public mutating func reserveReplied(_ reply: ReserveReply) -> Step {
        switch reply {
        case .reserved(let fence, let token, _):
            return committing(Held(fence: fence, token: token))
        case .joined(let fence, let token, let quantity):
            // The counter was lowered by what is recorded. Committing another quantity under this token would set the two apart.
            guard quantity == request.quantity else { return finish(.keyReused) }
            return committing(Held(fence: fence, token: token))
        case .soldOut(let counter):
            // A repeat may have been sold before the stock ran out: the ledger decides it.
            if request.isRepeat { return commit(fence: 0, token: 0, reserveSent: false) }
            return finish(.insufficient(remaining: max(counter, 0)))
        case .notOnSale:
            if request.isRepeat { return commit(fence: 0, token: 0, reserveSent: false) }
            return finish(.notOnSale)
        case .notLoaded:
            guard reserves < Self.maximumReserves else { return commit(fence: 0, token: 0, reserveSent: false) }
            state = .awaitingResync
            return Step(.awaitResync)
        case .alreadyDone:
            state = .lookingUp
            return Step(.lookUp)
        }
    }

    /// The reserve failed. `sent`: it may have run in Redis, so whoever commits must bump.
    public mutating func reserveFailed(sent: Bool) -> Step {
        commit(fence: 0, token: 0, reserveSent: sent)
    }

    /// The resync that was waited for ended, or the wait did.
    public mutating func resyncEnded(loaded: Bool) -> Step {
        loaded ? reserve() : commit(fence: 0, token: 0, reserveSent: false)
    }

    /// The ledger was asked for a key that Redis calls done. No row: the mark came from a history that the ledger does not have.
    public mutating func lookedUp(_ entry: LedgerEntry?) -> Step {
        guard let entry else { return commit(fence: 0, token: 0, reserveSent: false) }
        guard entry.direction == .out else { return finish(.keyClosed) }
        guard entry.product == request.product, entry.quantity == request.quantity, entry.orderID == request.orderID else {
            return finish(.keyReused)
        }
        return finish(.sold(remaining: entry.remaining, replayed: true))
    }

    /// The lookup failed: the commit decides.
    public mutating func lookUpFailed() -> Step {
        commit(fence: 0, token: 0, reserveSent: false)
    }

    /// The ledger decided.
    public mutating func committed(_ reply: CommitReply) -> Step {
        guard case .committing(let sent, let unknownBefore) = state else { return Step(.finish) }
        // A first attempt that sent its commit twice finds its own row.
        let answer = Self.answer(to: reply, isOwnRow: unknownBefore && !request.isRepeat)
        let isDuplicate = reply.outcome == .duplicateMine || reply.outcome == .duplicateOther
        if sent.fence == 0 {
            // A direct duplicate asks too: the statement that bumped may have lost its client.
            return finish(answer, asks: reply.bumped || isDuplicate)
        }
        let held = Held(fence: sent.fence, token: sent.token)
        // A ledger that is under an older fence than Redis has lost commits: restored from a backup, or failed over.
        let isRedisAhead = reply.lockedFence > 0 && reply.lockedFence < sent.fence
        let asks = reply.bumped || isRedisAhead
        switch reply.outcome {
        case .committed where reply.lockedFence != sent.fence:
            state = .applying(reply.lockedFence)
            return Step(.apply(reply.lockedFence, delta: -request.quantity.rawValue), answer: answer, asks: asks)
        case .committed, .duplicateMine, .keyReusedMine:
            state = .finished
            return Step(.settle(held), answer: answer, asks: asks)
        case .duplicateOther, .insufficient, .keyClosed, .notOnSale, .productMissing, .keyReused:
            state = .finished
            return Step(.release(held), answer: answer, asks: asks)
        }
    }

    /// The commit brought no decision.
    public mutating func commitFailed(_ failure: CommitFailure) -> Step {
        guard case .committing(var sent, let unknownBefore) = state else { return Step(.finish) }
        switch failure {
        case .notRun(let why) where !unknownBefore:
            return abandon(sent, .unavailable(why))
        case .notRun, .unknown:
            // Unknown is not failed. The same key and token again, firm, until answered; the reservation stays pending meanwhile.
            sent.isFirm = true
            state = .committing(sent, unknownBefore: true)
            return Step(.commit(sent))
        }
    }

    /// Redis replied to the apply.
    public mutating func applied(_ reply: ApplyReply) -> Step {
        state = .finished
        return Step(.finish, asks: reply == .behind)
    }

    /// The apply failed, or its outcome is unknown: it is never sent again, and the fence is raised instead.
    public mutating func applyFailed() -> Step {
        guard case .applying = state else { return Step(.finish) }
        state = .bumping
        return Step(.bump)
    }

    /// The fence was raised: what Redis holds is void until the next install.
    public mutating func bumped() -> Step {
        state = .finished
        return Step(.finish, asks: true)
    }

    // MARK: Moves

    private mutating func reserve() -> Step {
        reserves += 1
        state = .reserving
        return Step(.reserve)
    }

    private mutating func committing(_ held: Held) -> Step {
        commit(fence: held.fence, token: held.token, reserveSent: true)
    }

    private mutating func commit(fence: Fence, token: Token, reserveSent: Bool) -> Step {
        let commit = CommitRequest(
            decrease: request,
            fence: fence,
            token: token,
            reserveSent: reserveSent,
            isFirm: request.isRepeat
        )
        state = .committing(commit, unknownBefore: false)
        return Step(.commit(commit))
    }

    /// The commit is known not to have run: what Redis holds for it goes back.
    private mutating func abandon(_ sent: CommitRequest, _ answer: DecreaseAnswer) -> Step {
        state = .finished
        guard sent.fence > 0 else { return Step(.finish, answer: answer) }
        let held = Held(fence: sent.fence, token: sent.token)
        return Step(.abandon(held), answer: answer)
    }

    private mutating func finish(_ answer: DecreaseAnswer, asks: Bool = false) -> Step {
        state = .finished
        return Step(.finish, answer: answer, asks: asks)
    }

    private static func answer(to reply: CommitReply, isOwnRow: Bool) -> DecreaseAnswer {
        switch reply.outcome {
        case .committed: .sold(remaining: reply.remaining, replayed: false)
        case .duplicateMine, .duplicateOther: .sold(remaining: reply.remaining, replayed: !isOwnRow)
        case .insufficient: .insufficient(remaining: reply.remaining)
        case .keyClosed: .keyClosed
        case .notOnSale: .notOnSale
        case .productMissing: .productMissing
        case .keyReused, .keyReusedMine: .keyReused
        }
    }
}
