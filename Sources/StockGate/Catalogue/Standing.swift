// Where one gated product stands on this server: whether its requests may go through Redis, and what the recovery of an outage still owes it.
//
// Invariant: while `isDirect`, this server sends no reserve of the product to Redis. Only an install that succeeded ends it, or for another ledger's data a
//   resync that found them gone.
// Bounds: a fixed size. An outage is named by a number; what was done for an earlier one counts for nothing.

/// The standing of one product, as a value. Times are nanoseconds of any clock that only grows.
struct Standing: Hashable, Sendable {
    /// What the recovery of an outage owes a product.
    enum Need: Hashable, Sendable {
        /// It was installed in this outage, and nothing was heard of it since.
        case nothing
        /// It was installed in this outage, and something was heard since: a look, and an install only if its fence was raised.
        case look
        /// It was not installed in this outage: whatever Redis holds, the fence is raised and it is installed.
        case install
    }

    /// Requests go to the ledger without Redis.
    var isDirect: Bool { isLeft || isForeign }
    /// A recovery passed without it, or what Redis holds for it cannot be used: it waits for an install.
    private(set) var isLeft = false
    /// Redis holds another ledger's data for it: it waits until they are gone.
    private(set) var isForeign = false
    /// What Redis holds for it cannot be used: its keys are made anew before the next install.
    private(set) var isSpoiled = false
    private var installedIn: UInt64 = 0
    private var voidedIn: UInt64 = 0
    private var changes: UInt64 = 0
    private var changesAtInstall: UInt64 = 0
    private var directSince: UInt64 = 0
    private var spoils: UInt8 = 0
    private var spoiledAt: UInt64 = 0
    private var heldUntil: UInt64 = 0

    /// A product that was spoiled again within this time waits longer for its next mending.
    static let spoilMemory: UInt64 = 60_000_000_000
    /// The first and the longest pause before a mending.
    static let spoilPause: ClosedRange<UInt64> = 20_000_000...30_000_000_000

    /// What is owed in this outage.
    func need(in outage: UInt64) -> Need {
        guard installedIn == outage else { return .install }
        return changes == changesAtInstall ? .nothing : .look
    }

    /// To be passed to `installed`: what is heard after this moment may be newer than what the resync read.
    var mark: UInt64 { changes }

    /// Somebody asked for a resync that does not come now, because the recovery will bring it.
    mutating func heard() { changes &+= 1 }

    /// Redis serves it exactly. `outage`: the one whose recovery did it; nil for a resync of everyday.
    /// - Returns: whether it was sold directly until now.
    mutating func installed(in outage: UInt64?, since mark: UInt64) -> Bool {
        if let outage {
            installedIn = outage
            changesAtInstall = mark
        }
        let wasDirect = isDirect
        isForeign = false
        // A resync that began before the product was last marked as sold directly cannot end that: it knows nothing of what Redis holds since.
        guard mark >= directSince else { return false }
        isSpoiled = false
        isLeft = false
        return wasDirect
    }

    /// Redis holds another ledger's data for it. That is all a recovery can do for it, and it waits for no install of ours. `outage`: as in `installed`.
    mutating func foundForeign(in outage: UInt64?, since mark: UInt64) {
        _ = installed(in: outage, since: mark)
        isForeign = true
    }

    /// A recovery passes without it.
    mutating func left() {
        changes &+= 1
        directSince = changes
        isLeft = true
    }

    /// Whether Redis was told in this outage that it serves the product no longer.
    func isVoided(in outage: UInt64) -> Bool { voidedIn == outage }

    /// Redis was told that it serves the product no longer.
    mutating func voided(in outage: UInt64) { voidedIn = outage }

    /// A script failed over what Redis holds for it.
    /// - Returns: when to ask for a mending; nil: that is arranged already.
    mutating func spoiled(at now: UInt64) -> UInt64? {
        isLeft = true
        isSpoiled = true
        guard now >= heldUntil else { return nil }
        changes &+= 1
        directSince = changes
        spoils = spoils > 0 && now < spoiledAt &+ Self.spoilMemory ? min(spoils + 1, 32) : 1
        spoiledAt = now
        let pause = min(Self.spoilPause.lowerBound << UInt64(spoils - 1), Self.spoilPause.upperBound)
        heldUntil = now &+ pause
        return heldUntil
    }

    /// Whether a mending is arranged for later, so that no resync may come before it.
    func isHeld(at now: UInt64) -> Bool { isSpoiled && now < heldUntil }
}
