public import StockGate

/// The product's `Reservation` with a patch. With a fault, the machine is told something else than what happened, or its step is changed. Without a fault it is
/// the machine itself.
public struct PatchedReservation: Hashable, Sendable {
    private var machine: Reservation
    private var hasJoined = false
    private let fault: Fault?

    /// A decrease that has not begun.
    /// - Parameter mark: the attempt's mark, as in `Reservation`
    public init(_ request: DecreaseRequest, mark: Token, fault: Fault? = nil) {
        machine = Reservation(request, mark: mark)
        self.fault = fault
    }

    /// What was asked for.
    public var request: DecreaseRequest { machine.request }
    /// Where it is.
    public var state: Reservation.State { machine.state }

    /// The request begins.
    public mutating func began(throughGate: Bool) -> Reservation.Step { machine.began(throughGate: throughGate) }

    /// Redis replied to the reserve.
    public mutating func reserveReplied(_ reply: ReserveReply) -> Reservation.Step {
        if fault == .joinedRowIsOwn, case .joined = reply { hasJoined = true }
        switch (fault, reply) {
        case (.joinedQuantityIgnored, .joined(let fence, let token, _)):
            return machine.reserveReplied(.joined(fence: fence, token: token, quantity: request.quantity))
        case (.repeatTrustsRedis, .soldOut(let counter)): return Reservation.Step(.finish, answer: .insufficient(remaining: counter))
        case (.repeatTrustsRedis, .notOnSale): return Reservation.Step(.finish, answer: .notOnSale)
        default: return machine.reserveReplied(reply)
        }
    }

    /// The reserve failed.
    public mutating func reserveFailed(sent: Bool) -> Reservation.Step {
        machine.reserveFailed(sent: sent && fault != .lostReserveUntold)
    }

    /// The resync that this request waited for has ended, or the request's wait has.
    public mutating func resyncEnded(loaded: Bool) -> Reservation.Step { machine.resyncEnded(loaded: loaded) }

    /// The ledger was asked for a key that Redis calls done.
    public mutating func lookedUp(_ entry: LedgerEntry?) -> Reservation.Step {
        let wasFoundAgain = if case .identifying = machine.state { true } else { false }
        var step = machine.lookedUp(entry)
        if fault == .markIgnored, wasFoundAgain { Self.takeForOwn(&step) }
        return step
    }

    /// The lookup failed.
    public mutating func lookUpFailed() -> Reservation.Step { machine.lookUpFailed() }

    /// The ledger decided.
    public mutating func committed(_ reply: CommitReply) -> Reservation.Step {
        guard let fault, case .committing(let sent, let unknownBefore) = machine.state else { return machine.committed(reply) }
        let isDirect = sent.fence == 0
        let isRedisAhead = !isDirect && reply.lockedFence > 0 && reply.lockedFence < sent.fence
        let held = Held(fence: sent.fence, token: sent.token)
        var step = machine.committed(reply)
        switch fault {
        case .bumperSilent: step.asksForResync = isRedisAhead
        case .aheadUnasked where isRedisAhead: step.asksForResync = reply.bumped
        case .askAlways where !isDirect && reply.lockedFence != sent.fence: step.asksForResync = true
        case .mismatchSettled: if case .apply = step.action { step.action = .settle(held) }
        case .duplicateOtherKept where !isDirect && reply.outcome == .duplicateOther: step.action = .settle(held)
        case .othersRowIsOwn where !isDirect && unknownBefore && !request.isRepeat && reply.outcome == .duplicateOther:
            Self.takeForOwn(&step)
        case .joinedRowIsOwn where hasJoined && unknownBefore && !request.isRepeat && reply.outcome == .duplicateMine:
            Self.takeForOwn(&step)
        default: break
        }
        return step
    }

    private static func takeForOwn(_ step: inout Reservation.Step) {
        if case .sold(let remaining, _)? = step.answer { step.answer = .sold(remaining: remaining, replayed: false) }
    }

    /// The commit brought no decision.
    public mutating func commitFailed(_ failure: CommitFailure) -> Reservation.Step {
        let failure = fault == .unknownReleased && failure == .unknown ? .notRun(.ledgerDown) : failure
        var step = machine.commitFailed(failure)
        switch (fault, step.action) {
        case (.unknownNotFirm, .commit(var sent)):
            sent.isFirm = request.isRepeat
            step.action = .commit(sent)
        case (.abandonReleases, .abandon(let held)): step.action = .release(held)
        default: break
        }
        return step
    }

    /// Redis replied to the apply.
    public mutating func applied(_ reply: ApplyReply) -> Reservation.Step { machine.applied(reply) }

    /// The apply failed, or its outcome is unknown.
    public mutating func applyFailed() -> Reservation.Step {
        switch (fault, machine.state) {
        case (.lostApplyIgnored, _): Reservation.Step(.finish)
        case (.applySentTwice, .applying(let fence)): Reservation.Step(.apply(fence, delta: -request.quantity.rawValue))
        default: machine.applyFailed()
        }
    }

    /// The fence was raised.
    public mutating func bumped() -> Reservation.Step {
        var step = machine.bumped()
        if fault == .bumperSilent { step.asksForResync = false }
        return step
    }
}
