// One decrease, from its request to its last message: the protocol as a value.
//
// Invariant: the buyer is answered once, after the commit. A reservation that this process made is settled, released, applied under a newer fence, or left
//   pending for the sweep. It is never both settled and released.
// Bounds: at most `Reservation.maximumReserves` reserves, the later ones only while Redis says *not loaded* and the shell's wait for a resync succeeds. A
//   commit is repeated only while its outcome is unknown, at intervals that the shell chooses.
// Stop: `isFinished`.

/// The state of one decrease. It takes events and returns the next action, and uses no clock, lock or I/O.
public struct Reservation: Hashable, Sendable {
    /// What the shell has to do next.
    public enum Action: Hashable, Sendable {
        /// Send a reserve to Redis.
        case reserve
        /// Have the product resynced, and wait for that within the request's time.
        case awaitResync
        /// Look up the key in the ledger, without a lock.
        case lookUp
        /// Send this to the ledger.
        case commit(CommitRequest)
        /// Tell Redis that the reservation is sold. Nobody waits for it.
        case settle(Held)
        /// Tell Redis to give the reservation back. Nobody waits for it.
        case release(Held)
        /// Tell Redis to give the reservation back, unless a twin joined it. Nothing was decided for this request, but the twin may be committing under the
        /// same reservation. Such a reservation stays pending for the twin, or for the sweep.
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
        /// The answer to the buyer, in the one step that has it.
        public var answer: DecreaseAnswer?
        /// What the shell has to do.
        public var action: Action
        /// Whether the product should be resynced.
        public var asksForResync: Bool

        package init(_ action: Action, answer: DecreaseAnswer? = nil, asks: Bool = false) {
            self.action = action
            self.answer = answer
            asksForResync = asks
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
        /// A commit is out. `unknownBefore`: an earlier sending of it may still run. -> committing, applying, finished
        case committing(CommitRequest, unknownBefore: Bool)
        /// The direct commit of a first attempt was unknown, was sent again, and met this row. Its mark is looked up, because the row may belong to an earlier
        /// order with the same id. -> committing, finished
        case identifying(CommitRequest, CommitReply)
        /// An apply is out; the buyer has been answered. -> bumping, finished
        case applying(Fence)
        /// The apply failed or is unknown. -> finished
        case bumping
        /// The end.
        case finished
    }

    /// How many reserves one request may send: the first one, and one after each resync that it waited for.
    public static let maximumReserves = 3

    /// What was asked for.
    public let request: DecreaseRequest
    /// Where it is.
    public private(set) var state: State = .start
    private var reserves: UInt8 = 0
    /// Whether another request had made the reservation before this one joined it, so that this request shares its token.
    private var hasJoined = false
    private let mark: Token

    /// Creates a decrease that has not begun.
    public init(_ request: DecreaseRequest, mark: Token = 0) {
        self.request = request
        self.mark = request.isRepeat ? 0 : mark
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
            // The counter was lowered by the recorded quantity. A commit of another quantity under this token would make Redis and the ledger differ.
            guard quantity == request.quantity else { return finish(.keyReused) }
            hasJoined = true
            return committing(Held(fence: fence, token: token))
        case .soldOut(let counter):
            // A repeat may have been sold before the stock ran out, so the ledger decides it.
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

    /// The resync ended, or the wait for it did.
    public mutating func resyncEnded(loaded: Bool) -> Step {
        loaded ? reserve() : commit(fence: 0, token: 0, reserveSent: false)
    }

    /// The ledger's row for a key that Redis calls done; nil if there is none. Then the mark in Redis comes from a history that the ledger does not have.
    public mutating func lookedUp(_ entry: LedgerEntry?) -> Step {
        if case .identifying(let sent, let reply) = state { return identified(entry, sent, reply) }
        guard let entry else { return commit(fence: 0, token: 0, reserveSent: false) }
        guard entry.direction == .out else { return finish(.keyClosed) }
        guard entry.product == request.product, entry.quantity == request.quantity, entry.orderID == request.orderID else {
            return finish(.keyReused)
        }
        return finish(.sold(remaining: entry.remaining, replayed: true))
    }

    /// The lookup failed, so the commit decides.
    public mutating func lookUpFailed() -> Step {
        if case .identifying(let sent, _) = state { return again(sent) }
        return commit(fence: 0, token: 0, reserveSent: false)
    }

    /// The ledger decided.
    public mutating func committed(_ reply: CommitReply) -> Step {
        guard case .committing(let sent, let unknownBefore) = state else { return Step(.finish) }
        let isDuplicate = reply.outcome == .duplicateMine || reply.outcome == .duplicateOther
        let mayBeOwn = unknownBefore && !request.isRepeat && isDuplicate
        // A first attempt that sent its commit twice may find its own row. That row has the token that Redis gave to this attempt alone.
        let answer = Self.answer(to: reply, isOwnRow: mayBeOwn && reply.outcome == .duplicateMine && !hasJoined)
        if sent.fence == 0 {
            if mayBeOwn, mark != 0 {
                state = .identifying(sent, reply)
                return Step(.lookUp, asks: true)
            }
            // A duplicate on the direct path asks for a resync too: the process whose commit raised the fence may have died before it could ask.
            return finish(answer, asks: reply.bumped || isDuplicate)
        }
        let held = Held(fence: sent.fence, token: sent.token)
        // The ledger is under an older fence than Redis, so it has lost commits: it was restored from a backup, or has failed over.
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
            // Unknown is not failed: the same key and token are sent again, firm, until an answer comes. The reservation stays pending meanwhile.
            sent.isFirm = true
            return again(sent)
        }
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

    /// The fence was raised, so what Redis holds is void until the next install.
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
            token: fence == 0 ? mark : token,
            reserveSent: reserveSent,
            isFirm: request.isRepeat
        )
        state = .committing(commit, unknownBefore: false)
        return Step(.commit(commit))
    }

    private mutating func again(_ sent: CommitRequest) -> Step {
        state = .committing(sent, unknownBefore: true)
        return Step(.commit(sent))
    }

    /// The row that a direct commit met when it was sent again was looked at.
    private mutating func identified(_ entry: LedgerEntry?, _ sent: CommitRequest, _ reply: CommitReply) -> Step {
        // The ledger has lost the row since: it was restored from a backup.
        guard let entry, entry.direction == .out else { return again(sent) }
        return finish(.sold(remaining: reply.remaining, replayed: entry.fence != 0 || entry.token != mark))
    }

    /// The commit is known not to have run, so what Redis reserved for it goes back.
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
