/// One deliberate fault in the protocol, for the mutation proof: each takes one rule away, and the explorer or the simulator must notice.
///
/// The product knows none of them. A fault of a store is in that store's model, a fault of a shell in the simulator's, and a fault of a machine is a
/// patch around the machine (`PatchedReservation`, `PatchedIncrease`, `PatchedResync`): it changes what the machine is told or what it says.
public enum Fault: Hashable, Sendable, CaseIterable {
    // A rule of the protocol is taken away.

    /// A repeat that Redis calls sold out is answered by Redis.
    case repeatTrustsRedis
    /// *Insufficient* told to a repeat leaves the key open.
    case firmNoLeavesOpen
    /// A duplicate of one's own reservation seen under another fence does not bump.
    case duplicateBehindSilent
    /// *Insufficient* under the reservation's own fence does not bump.
    case insufficientSilent
    /// An increase that is already in the ledger does not bump.
    case increaseDuplicateSilent
    /// An apply that failed or is unknown is taken for done.
    case lostApplyIgnored
    /// A stock change that Redis is not told of does not bump.
    case untoldSilent
    /// Reserve serves what was installed into another dataset.
    case stampIgnored
    /// A resync installs into whatever dataset it finds.
    case datasetIgnored
    /// Who bumps without installing asks nobody for a resync.
    case bumperSilent
    /// Every mismatch asks for a resync, and the resync does not look before it bumps.
    case askAlways
    /// A compensation of a key never decremented leaves the key open.
    case compensationLeavesOpen
    /// A lookup that finds nothing is taken for *never committed*.
    case notFoundTrusted
    /// Installing a discontinued product leaves a counter.
    case gateLeftOpen

    // Faults of the kind that a careless change would bring.

    /// An install clears everything owed, the deltas of later fences too.
    case owedClearedWhole
    /// An install forgets to add what is owed under its own fence.
    case owedNotCounted
    /// Release gives back without looking at the token.
    case releaseWithoutToken
    /// Release gives back whatever fence Redis is under.
    case releaseWithoutFence
    /// The reservation is settled before its commit.
    case settleBeforeCommit
    /// An apply whose outcome is unknown is sent again.
    case applySentTwice
    /// The ledger looks the keys up before it has the lock.
    case lookupBeforeLock
    /// A commit without a reservation does not bump, though Redis is not told of it.
    case directSilent
    /// A commit under another fence is settled instead of applied.
    case mismatchSettled
    /// A duplicate of somebody else's reservation keeps its own reservation.
    case duplicateOtherKept
    /// An unknown commit is released as if it had failed.
    case unknownReleased
    /// An unknown commit is sent again as a first attempt.
    case unknownNotFirm
    /// Install takes an older fence over a newer one.
    case installOlder
    /// Apply adds to the counter whatever fence it is under.
    case applyUnderAnyFence
    /// An increase gives back the same units once for every delivery.
    case increaseNotIdempotent
    /// A reserve whose reply was lost is taken for not sent.
    case lostReserveUntold
    /// A reservation whose commit did not run is released although a twin joined it.
    case abandonReleases
    /// An install keeps the reservations of older fences.
    case installKeepsPending
    /// A twin that joins a reservation takes its units from the counter again.
    case joinTakesAgain
    /// The ledger decrements without looking at the stock.
    case stockUnchecked
    /// Nobody looks for overdue reservations.
    case sweepOff
    /// The sweep gives an overdue reservation back instead of asking for a resync.
    case sweepReleases
    /// Nobody compares Redis with the ledger.
    case auditOff
    /// What a process remembers as sold out rejects repeats too.
    case memoryRejectsRepeats
    /// An increase of another quantity than the decrease's is accepted, and gives back what its caller says.
    case increaseTrustsQuantity
    /// *Not on sale* told to a repeat leaves the key open.
    case notOnSaleLeavesOpen
    /// A twin of another quantity commits under the reservation that it joined.
    case joinedQuantityIgnored
    /// Settle drops a reservation without looking at fence and token.
    case settleWithoutToken
    /// A resync that is asked for while one runs is forgotten.
    case askDroppedWhileRunning

    // An increase belongs to its decrease.

    /// An increase that names another order than the decrease is accepted.
    case increaseOrderUnchecked
    /// An increase that names another product than the decrease is accepted.
    case increaseProductUnchecked
    /// An increase of a closed key is not compared with what closed it.
    case increaseClosedUnchecked
    /// A repeat of an increase is not compared with the first one.
    case increaseRepeatUnchecked
    /// A refused increase leaves a row under its key, so that the right one is taken for a repeat of it.
    case wrongIncreaseOccupies
    /// A row that closes a key keeps no quantity.
    case closedQuantityLost

    // What Redis lost is no fact.

    /// A counter that was lost is taken for *not on sale*.
    case lostCounterTrusted
    /// A release makes the counter anew, of what it gives back.
    case releaseMakesCounter
    /// An install does not write down that the product is not on sale.
    case offUnwritten

    // Redis is ahead of the ledger, or another ledger's.

    /// A fence in Redis that is ahead of the ledger's is taken for a newer install.
    case fenceAheadIsNewer
    /// A commit that met an older fence than its reservation's asks nobody for a resync.
    case aheadUnasked
    /// The fence is raised above the installed one alone; what Redis owes under later ones is not looked at.
    case owedFencesForgotten
    /// Reserve serves what another ledger installed.
    case foreignUsed
    /// A resync installs over what another ledger installed.
    case foreignOverwritten
    /// Apply changes a counter that another ledger installed.
    case appliedToForeign

    // A recovery may pass without a product.

    /// What a recovery leaves is not voided in Redis: other servers go on selling it through what is there from before the outage.
    case leftServed
    /// What a recovery leaves is never tried again.
    case leftForever
    /// Voiding forgets the fence too, so that an older install is taken.
    case voidForgetsFence
    /// Voiding does not look whose data it is.
    case foreignVoided
    /// Making keys anew does not look whose data it is.
    case foreignMended

    // Order ids come round again.

    /// A replay as the answer to a first attempt confirms the order.
    case replayConfirms
    /// A closed key as the answer to a first attempt fails the order.
    case closedKeyFails
    /// A row's time is not compared with the order's.
    case sinceIgnored
    /// An order takes another key for a replay, though somebody else may have sent its own.
    case staleTakesKey
    /// An order goes on under another key that is not written down.
    case newKeyUnwritten
    /// What stands under the key before is given back when an order takes another.
    case formerKeyCompensated
    /// A success that meets an order which has failed is not given back.
    case lateSuccessKept
}
