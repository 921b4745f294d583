public import StockGate

/// The product's `Increase` with a patch, as in `PatchedReservation`.
public struct PatchedIncrease: Hashable, Sendable {
    private var machine: Increase
    private let fault: Fault?

    /// An increase that has not begun.
    public init(_ request: IncreaseRequest, fault: Fault? = nil) {
        machine = Increase(request)
        self.fault = fault
    }

    /// What was asked for.
    public var request: IncreaseRequest { machine.request }
    /// Where it is.
    public var state: Increase.State { machine.state }

    /// The increase begins.
    public mutating func began() -> Increase.Step { machine.began() }

    /// The ledger decided.
    public mutating func committed(_ reply: IncreaseReply) -> Increase.Step { silenced(machine.committed(reply)) }

    /// The commit brought no decision.
    public mutating func commitFailed(_ failure: CommitFailure) -> Increase.Step { machine.commitFailed(failure) }

    /// Redis replied to the apply.
    public mutating func applied(_ reply: ApplyReply) -> Increase.Step { machine.applied(reply) }

    /// The apply failed, or its outcome is unknown.
    public mutating func applyFailed() -> Increase.Step {
        switch (fault, machine.state) {
        case (.lostApplyIgnored, _): Increase.Step(.finish)
        case (.applySentTwice, .applying(let fence, let delta)): Increase.Step(.apply(fence, delta: delta))
        default: machine.applyFailed()
        }
    }

    /// The fence was raised.
    public mutating func bumped() -> Increase.Step { silenced(machine.bumped()) }

    private func silenced(_ step: Increase.Step) -> Increase.Step {
        guard fault == .bumperSilent else { return step }
        var step = step
        step.asksForResync = false
        return step
    }
}
