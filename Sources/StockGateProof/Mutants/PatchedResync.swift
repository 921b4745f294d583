public import StockGate

/// The product's `Resync` with a patch, as in `PatchedReservation`.
public struct PatchedResync: Hashable, Sendable {
    private var machine: Resync
    private let fault: Fault?
    /// Whether the resync was begun because the ledger has gone back.
    public let isLeaping: Bool

    /// A resync that has not begun.
    public init(forced: Bool, leaping: Bool = false, ledger: String = "", fault: Fault? = nil) {
        machine = Resync(forced: forced || fault == .askAlways, leaping: leaping && fault != .leapForgotten, ledger: ledger)
        isLeaping = leaping
        self.fault = fault
    }

    /// How it ended; nil before.
    public var outcome: Resync.Outcome? { machine.outcome }

    /// The resync begins.
    public mutating func began() -> Resync.Action { machine.began() }

    /// The gate was looked at.
    public mutating func looked(_ view: GateView) -> Resync.Action {
        guard fault == .foreignOverwritten else { return machine.looked(view) }
        var view = view
        view.ledger = nil
        return machine.looked(view)
    }

    /// The ledger's fence was read.
    public mutating func fenceRead(_ fence: Fence?) -> Resync.Action {
        let action = machine.fenceRead(fence)
        if fault == .fenceAheadIsNewer, case .raise = action { return .bump }
        return action
    }

    /// The fence was raised.
    public mutating func bumped(_ ledger: Resync.LedgerState?) -> Resync.Action {
        guard fault == .fenceAheadIsNewer, let ledger else { return machine.bumped(ledger) }
        if case .raising = machine.state { return machine.raised(ledger) }
        let action = machine.bumped(ledger)
        if case .raise = action { return machine.raised(ledger) }
        return action
    }

    /// The fence was raised above what Redis holds.
    public mutating func raised(_ ledger: Resync.LedgerState) -> Resync.Action { machine.raised(ledger) }

    /// Redis replied to the install.
    public mutating func installReplied(_ reply: InstallReply) -> Resync.Action { machine.installReplied(reply) }

    /// Redis or the ledger failed, or did not answer.
    public mutating func stepFailed() -> Resync.Action { machine.stepFailed() }
}
