// Where one gated product stands on this server: whether its requests may go through Redis, and what the recovery of an outage still has to do for it.
//
// Invariant: while `isDirect`, this server sends no reserve of the product to Redis. A successful install ends that. For another ledger's data, so does a
//   resync that finds that data gone.
// Bounds: a fixed size. Each outage has a number; work that was done in an earlier outage counts for nothing.

/// The standing of one product, as a value. Times are nanoseconds of any clock that only grows.
struct Standing: Hashable, Sendable {
    /// What the recovery of an outage still has to do for a product.
    enum Need: Hashable, Sendable {
        /// The product was installed in this outage, and nobody asked for a resync since.
        case nothing
        /// The product was installed in this outage, and somebody asked for a resync since. It is looked at, and installed only if its fence was raised.
        case look
        /// The product was not installed in this outage. Its fence is raised and it is installed, whatever Redis holds.
        case install
    }

    /// Whether requests go to the ledger without Redis.
    var isDirect: Bool { isLeft || isForeign }
    /// Whether the product waits for an install, because a recovery left it out, or because what Redis holds for it cannot be used.
    private(set) var isLeft = false
    /// Whether Redis holds another ledger's data for the product, which then waits until that data is gone.
    private(set) var isForeign = false
    /// Whether what Redis holds for the product cannot be used. Its keys are made anew before the next install.
    private(set) var isSpoiled = false
    /// Whether the ledger has gone back since the last install. The next one raises the fence by a leap.
    private(set) var isMoved = false
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

    /// What a recovery still has to do for the product in this outage.
    func need(in outage: UInt64) -> Need {
        guard installedIn == outage else { return .install }
        return changes == changesAtInstall ? .nothing : .look
    }

    /// A position in the sequence of requests for a resync. A resync takes it before it reads, and passes it to `installed`: what was asked for afterwards may
    /// be newer than what the resync read.
    var mark: UInt64 { changes }

    /// Somebody asked for a resync while a recovery is due. The recovery will do it.
    mutating func heard() { changes &+= 1 }

    /// Redis serves the product exactly. `outage` is the outage whose recovery installed the product; nil for a resync outside a recovery.
    /// - Returns: whether it was sold directly until now.
    mutating func installed(in outage: UInt64?, since mark: UInt64) -> Bool {
        if let outage {
            installedIn = outage
            changesAtInstall = mark
        }
        let wasDirect = isDirect
        isForeign = false
        // The resync began before the product was last marked as sold directly, so it does not know what Redis has held since. It cannot end that mark.
        guard mark >= directSince else { return false }
        isSpoiled = false
        isLeft = false
        isMoved = false
        return wasDirect
    }

    /// Redis holds another ledger's data for the product. A recovery can do no more for it, so its work counts as done. `outage`: as in `installed`.
    mutating func foundForeign(in outage: UInt64?, since mark: UInt64) {
        _ = installed(in: outage, since: mark)
        isForeign = true
    }

    /// A recovery passes without the product.
    mutating func left() {
        changes &+= 1
        directSince = changes
        isLeft = true
    }

    /// The ledger has another history than before. The product is sold directly until an install that knows of that.
    mutating func moved() {
        left()
        isMoved = true
    }

    /// Another master serves the product's keys now. What recoveries and resyncs did for the product at the old master counts for nothing, and so do their
    /// results that are still to come. If the next install has to raise the fence by a leap, that stays so.
    mutating func changedMaster() {
        left()
        installedIn = 0
        voidedIn = 0
        isSpoiled = false
        heldUntil = 0
    }

    /// Whether Redis was told in this outage to stop serving the product.
    func isVoided(in outage: UInt64) -> Bool { voidedIn == outage }

    /// Redis was told to stop serving the product.
    mutating func voided(in outage: UInt64) { voidedIn = outage }

    /// A script failed because of what Redis holds for the product.
    /// - Returns: when to ask for the keys to be made anew; nil if that is planned already
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

    /// Whether the keys will be made anew at a later time that is planned already. No resync may come before it.
    func isHeld(at now: UInt64) -> Bool { isSpoiled && now < heldUntil }
}
