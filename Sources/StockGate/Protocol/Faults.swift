/// Deliberate faults in the protocol, for the mutation proof: each takes one rule away, and the explorer or the simulator must notice.
///
/// They exist only where the build defines STOCKGATE_FAULTS (debug builds do). Elsewhere `has` is the constant `false`, and the optimiser removes every branch that asks.
public struct Faults: OptionSet, Hashable, Sendable {
    /// One bit a fault.
    public let rawValue: UInt64

    /// A set of faults from its bits.
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Whether the fault is switched on.
    @inlinable
    public func has(_ fault: Faults) -> Bool {
        #if STOCKGATE_FAULTS
            !self.isDisjoint(with: fault)
        #else
            false
        #endif
    }

    // The model's rules, each removed. Their names there: `fenced_stock.py`, RULES.

    /// A repeat that Redis calls sold out is answered by Redis.
    public static let repeatTrustsRedis = Faults(rawValue: 1 << 0)
    /// *Insufficient* told to a repeat leaves the key open.
    public static let firmNoLeavesOpen = Faults(rawValue: 1 << 1)
    /// A duplicate of one's own reservation seen under another fence does not bump.
    public static let duplicateBehindSilent = Faults(rawValue: 1 << 2)
    /// *Insufficient* under the reservation's own fence does not bump.
    public static let insufficientSilent = Faults(rawValue: 1 << 3)
    /// An increase that is already in the ledger does not bump.
    public static let increaseDuplicateSilent = Faults(rawValue: 1 << 4)
    /// An apply that failed or is unknown is taken for done.
    public static let lostApplyIgnored = Faults(rawValue: 1 << 5)
    /// A stock change that Redis is not told of does not bump.
    public static let untoldSilent = Faults(rawValue: 1 << 6)
    /// Reserve serves what was installed into another dataset.
    public static let stampIgnored = Faults(rawValue: 1 << 7)
    /// A resync installs into whatever dataset it finds.
    public static let datasetIgnored = Faults(rawValue: 1 << 8)
    /// Who bumps without installing asks nobody for a resync.
    public static let bumperSilent = Faults(rawValue: 1 << 9)
    /// Every mismatch asks for a resync, and the resync does not look before it bumps.
    public static let askAlways = Faults(rawValue: 1 << 10)
    /// A compensation of a key never decremented leaves the key open.
    public static let compensationLeavesOpen = Faults(rawValue: 1 << 11)
    /// A lookup that finds nothing is taken for *never committed*.
    public static let notFoundTrusted = Faults(rawValue: 1 << 12)
    /// Installing a discontinued product leaves a counter.
    public static let gateLeftOpen = Faults(rawValue: 1 << 13)

    // Faults of the kind that a careless change would bring.

    /// An install clears everything owed, the deltas of later fences too.
    public static let owedClearedWhole = Faults(rawValue: 1 << 14)
    /// An install forgets to add what is owed under its own fence.
    public static let owedNotCounted = Faults(rawValue: 1 << 15)
    /// Release gives back without looking at the token.
    public static let releaseWithoutToken = Faults(rawValue: 1 << 16)
    /// Release gives back whatever fence Redis is under.
    public static let releaseWithoutFence = Faults(rawValue: 1 << 17)
    /// The reservation is settled before its commit.
    public static let settleBeforeCommit = Faults(rawValue: 1 << 18)
    /// An apply whose outcome is unknown is sent again.
    public static let applySentTwice = Faults(rawValue: 1 << 19)
    /// The ledger looks the keys up before it has the lock.
    public static let lookupBeforeLock = Faults(rawValue: 1 << 20)
    /// A commit without a reservation does not bump, though Redis is not told of it.
    public static let directSilent = Faults(rawValue: 1 << 21)
    /// A commit under another fence is settled instead of applied.
    public static let mismatchSettled = Faults(rawValue: 1 << 22)
    /// A duplicate of somebody else's reservation keeps its own reservation.
    public static let duplicateOtherKept = Faults(rawValue: 1 << 23)
    /// An unknown commit is released as if it had failed.
    public static let unknownReleased = Faults(rawValue: 1 << 24)
    /// An unknown commit is sent again as a first attempt.
    public static let unknownNotFirm = Faults(rawValue: 1 << 25)
    /// Install takes an older fence over a newer one.
    public static let installOlder = Faults(rawValue: 1 << 26)
    /// Apply adds to the counter whatever fence it is under.
    public static let applyUnderAnyFence = Faults(rawValue: 1 << 27)
    /// An increase gives back the same units once for every delivery.
    public static let increaseNotIdempotent = Faults(rawValue: 1 << 28)
    /// A reserve whose reply was lost is taken for not sent.
    public static let lostReserveUntold = Faults(rawValue: 1 << 29)
    /// A reservation whose commit did not run is released although a twin joined it.
    public static let abandonReleases = Faults(rawValue: 1 << 30)
    /// An install keeps the reservations of older fences.
    public static let installKeepsPending = Faults(rawValue: 1 << 31)
    /// A twin that joins a reservation takes its units from the counter again.
    public static let joinTakesAgain = Faults(rawValue: 1 << 32)
    /// The ledger decrements without looking at the stock.
    public static let stockUnchecked = Faults(rawValue: 1 << 33)
    /// Nobody looks for overdue reservations.
    public static let sweepOff = Faults(rawValue: 1 << 34)
    /// The sweep gives an overdue reservation back instead of asking for a resync.
    public static let sweepReleases = Faults(rawValue: 1 << 35)
    /// Nobody compares Redis with the ledger.
    public static let auditOff = Faults(rawValue: 1 << 36)
    /// What a process remembers as sold out rejects repeats too.
    public static let memoryRejectsRepeats = Faults(rawValue: 1 << 37)
    /// An increase of another quantity than the decrease's is accepted, and gives back what its caller says.
    public static let increaseTrustsQuantity = Faults(rawValue: 1 << 38)
    /// *Not on sale* told to a repeat leaves the key open.
    public static let notOnSaleLeavesOpen = Faults(rawValue: 1 << 39)
    /// A twin of another quantity commits under the reservation that it joined.
    public static let joinedQuantityIgnored = Faults(rawValue: 1 << 40)
    /// Settle drops a reservation without looking at fence and token.
    public static let settleWithoutToken = Faults(rawValue: 1 << 41)
    /// A resync that is asked for while one runs is forgotten.
    public static let askDroppedWhileRunning = Faults(rawValue: 1 << 42)

    // An increase belongs to its decrease.

    /// An increase that names another order than the decrease is accepted.
    public static let increaseOrderUnchecked = Faults(rawValue: 1 << 43)
    /// An increase that names another product than the decrease is accepted.
    public static let increaseProductUnchecked = Faults(rawValue: 1 << 44)
    /// An increase of a closed key is not compared with what closed it.
    public static let increaseClosedUnchecked = Faults(rawValue: 1 << 45)
    /// A repeat of an increase is not compared with the first one.
    public static let increaseRepeatUnchecked = Faults(rawValue: 1 << 46)
    /// A refused increase leaves a row under its key, so that the right one is taken for a repeat of it.
    public static let wrongIncreaseOccupies = Faults(rawValue: 1 << 47)
    /// A row that closes a key keeps no quantity.
    public static let closedQuantityLost = Faults(rawValue: 1 << 48)

    // What Redis lost is no fact.

    /// A counter that was lost is taken for *not on sale*.
    public static let lostCounterTrusted = Faults(rawValue: 1 << 49)
    /// A release makes the counter anew, of what it gives back.
    public static let releaseMakesCounter = Faults(rawValue: 1 << 50)
    /// An install does not write down that the product is not on sale.
    public static let offUnwritten = Faults(rawValue: 1 << 51)

    // Redis is ahead of the ledger, or another ledger's.

    /// A fence in Redis that is ahead of the ledger's is taken for a newer install.
    public static let fenceAheadIsNewer = Faults(rawValue: 1 << 52)
    /// A commit that met an older fence than its reservation's asks nobody for a resync.
    public static let aheadUnasked = Faults(rawValue: 1 << 53)
    /// The fence is raised above the installed one alone; what Redis owes under later ones is not looked at.
    public static let owedFencesForgotten = Faults(rawValue: 1 << 54)
    /// Reserve serves what another ledger installed.
    public static let foreignUsed = Faults(rawValue: 1 << 55)
    /// A resync installs over what another ledger installed.
    public static let foreignOverwritten = Faults(rawValue: 1 << 56)
    /// Apply changes a counter that another ledger installed.
    public static let appliedToForeign = Faults(rawValue: 1 << 57)

    // A recovery may pass without a product.

    /// What a recovery leaves is not voided in Redis: other servers go on selling it through what is there from before the outage.
    public static let leftServed = Faults(rawValue: 1 << 58)
    /// What a recovery leaves is never tried again.
    public static let leftForever = Faults(rawValue: 1 << 59)
    /// Voiding forgets the fence too, so that an older install is taken.
    public static let voidForgetsFence = Faults(rawValue: 1 << 60)
    /// Voiding does not look whose data it is.
    public static let foreignVoided = Faults(rawValue: 1 << 61)
    /// Making keys anew does not look whose data it is.
    public static let foreignMended = Faults(rawValue: 1 << 62)
}
