/// One deliberate fault in the protocol, for the mutation proof. Each fault removes one rule, and the explorer or the simulator must notice.
///
/// The product's code contains none of them. A fault of a store is in the store's model, a fault of a shell in the simulator, and a fault of a machine in a
/// patch around the machine (`PatchedReservation`, `PatchedIncrease`, `PatchedResync`), which changes what the machine is told or what it says.
public enum Fault: Hashable, Sendable, CaseIterable {
    // Faults that remove a rule of the protocol.

    /// A repeat is answered *sold out* by Redis, without the ledger.
    case repeatTrustsRedis
    /// *Insufficient* told to a repeat leaves the key open.
    case firmNoLeavesOpen
    /// A duplicate of the request's own reservation, found under another fence, does not bump.
    case duplicateBehindSilent
    /// *Insufficient* under the reservation's own fence does not bump.
    case insufficientSilent
    /// An increase that is already in the ledger does not bump.
    case increaseDuplicateSilent
    /// An apply that failed or is unknown is taken for done.
    case lostApplyIgnored
    /// A stock change that Redis is not told of leaves the fence as it is.
    case untoldSilent
    /// Reserve serves what was installed into another dataset.
    case stampIgnored
    /// A resync installs into whatever dataset Redis has.
    case datasetIgnored
    /// A request that bumps and leaves the install to others forgets to ask for a resync.
    case bumperSilent
    /// Every mismatch asks for a resync, which does not look before it bumps.
    case askAlways
    /// A compensation of a key that was never decremented leaves the key open.
    case compensationLeavesOpen
    /// A lookup that finds nothing is taken for *never committed*.
    case notFoundTrusted
    /// Installing a discontinued product leaves a counter.
    case gateLeftOpen

    // Faults of the kind that a careless change would make.

    /// An install clears everything that is owed, including the deltas of later fences.
    case owedClearedWhole
    /// An install forgets to add what is owed under its own fence.
    case owedNotCounted
    /// A release gives units back without comparing the token.
    case releaseWithoutToken
    /// A release gives units back without comparing the fence.
    case releaseWithoutFence
    /// A later call reserves under a token that an earlier one has given out.
    case tokenGivenAgain
    case settleBeforeCommit
    /// An apply whose outcome is unknown is sent again.
    case applySentTwice
    /// The ledger looks the keys up before it has the lock.
    case lookupBeforeLock
    /// A commit without a reservation, which Redis is not told of, leaves the fence as it is.
    case directSilent
    /// A commit under another fence is settled instead of applied.
    case mismatchSettled
    /// A duplicate of another reservation does not release its own.
    case duplicateOtherKept
    /// An unknown commit is released as if it had failed.
    case unknownReleased
    /// An unknown commit is sent again as a first attempt.
    case unknownNotFirm
    /// An install replaces a newer fence with an older one.
    case installOlder
    /// An apply changes the counter without comparing the fence.
    case applyUnderAnyFence
    /// An increase gives the same units back again for every delivery.
    case increaseNotIdempotent
    /// A reserve whose reply was lost is treated as not sent.
    case lostReserveUntold
    /// A reservation whose commit did not run is released although a twin joined it.
    case abandonReleases
    /// An install keeps the reservations of older fences.
    case installKeepsPending
    /// A twin that joins a reservation takes its units from the counter again.
    case joinTakesAgain
    /// The ledger decrements without comparing the stock.
    case stockUnchecked
    /// Nobody looks for overdue reservations.
    case sweepOff
    /// The sweep leaves a product alone for ever in which it saw nothing overdue.
    case sweepRestsForEver
    /// The sweep gives an overdue reservation back instead of asking for a resync.
    case sweepReleases
    /// Nobody compares Redis with the ledger.
    case auditOff
    /// The memory of *sold out* rejects repeats too.
    case memoryRejectsRepeats
    /// An increase with another quantity than the decrease's is accepted, and gives back the quantity that its caller names.
    case increaseTrustsQuantity
    /// *Not on sale* told to a repeat leaves the key open.
    case notOnSaleLeavesOpen
    /// A twin of another quantity commits under the reservation that it joined.
    case joinedQuantityIgnored
    /// Settle drops a reservation without looking at fence and token.
    case settleWithoutToken
    /// A request for a resync is forgotten if it comes while another resync runs.
    case askDroppedWhileRunning

    // Faults in how an increase belongs to its decrease.

    /// An increase that names another order than the decrease is accepted.
    case increaseOrderUnchecked
    /// An increase that names another product than the decrease is accepted.
    case increaseProductUnchecked
    /// An increase of a closed key is not compared with what closed it.
    case increaseClosedUnchecked
    /// A repeat of an increase is not compared with the first one.
    case increaseRepeatUnchecked
    /// A refused increase leaves a row under its key, so that the correct increase is treated as its repeat.
    case wrongIncreaseOccupies
    /// A row that closes a key keeps no quantity.
    case closedQuantityLost

    // Faults in what is concluded from data that Redis has lost.

    /// A lost counter is read as *not on sale*.
    case lostCounterTrusted
    /// A release makes a new counter from the units that it gives back.
    case releaseMakesCounter
    /// An install of a product that is off sale forgets to record that.
    case offUnwritten

    // Faults for a Redis that is ahead of the ledger, or belongs to another ledger.

    /// A fence of Redis that is ahead of the ledger's is read as a newer install.
    case fenceAheadIsNewer
    /// A commit that met an older fence than its reservation's does not ask for a resync.
    case aheadUnasked
    /// The fence is raised above the installed one only, and not above the fences of owed deltas.
    case owedFencesForgotten
    /// A reserve serves what another ledger installed.
    case foreignUsed
    /// A resync installs over what another ledger installed.
    case foreignOverwritten
    /// An apply changes a counter that another ledger installed.
    case appliedToForeign

    // Faults with a ledger that fails over to its standby.

    /// A new timeline of the ledger asks for nothing: Redis goes on with what the lost commits left there.
    case failoverUnnoticed
    /// After a failover fences are raised by one, so that the new primary gives out again what the old one had given out.
    case leapForgotten
    /// Sessions at the primary that was replaced are still used after the new one was found.
    case oldPrimaryUsed
    /// A commit whose wait for the synchronous standby was cancelled is taken for a success.
    case warningIgnored
    /// A statement that finds its work done does not wait for the synchronous standby.
    case repeatNotReplicated
    /// A read tells a row that the synchronous standby may lack.
    case readNotReplicated

    // Faults in a recovery that passes without a product.

    /// A product that a recovery leaves is not voided in Redis, so other servers go on selling it through data from before the outage.
    case leftServed
    /// A product that a recovery leaves is never tried again.
    case leftForever
    /// Voiding removes the fence too, so that an older install is accepted.
    case voidForgetsFence
    /// Voiding does not check whose data it is.
    case foreignVoided
    /// Removing unusable keys does not check whose data they are.
    case foreignMended

    // Faults when a product's slot moves to another node.

    /// A product whose slot has moved is sold directly, and nobody asks for its resync.
    case moveUnasked
    /// Nobody asks for a resync at the new node when one has ended at the old one, which may have raised the fence.
    case oldResyncSilent
    /// What comes to the new node with a slot is served under the fence that it has.
    case movedAsItIs
    /// A product whose ledger has gone back, and which is then installed at another node, is installed there without a leap.
    case moveForgetsLeap

    // Faults with order ids that are used a second time.

    /// A replay as the answer to a first attempt confirms the order.
    case replayConfirms
    /// A closed key as the answer to a first attempt fails the order.
    case closedKeyFails
    /// A row's time is not compared with the order's.
    case sinceIgnored
    /// After a replay an order takes another key, though somebody else may have sent its own key.
    case staleTakesKey
    /// An order continues under another key that is not written to the database.
    case newKeyUnwritten
    /// When an order takes another key, the units under its former key are given back.
    case formerKeyCompensated
    /// A first attempt that sends its commit again takes the row of another reservation, or of none, for its own.
    case othersRowIsOwn
    /// A first attempt that joined a reservation takes what was committed under it for its own.
    case joinedRowIsOwn
    /// A first attempt that sends its direct commit again does not look at the mark of the row that it finds.
    case markIgnored
    /// A sequence of ids that is behind its table is not raised: an order that is given an id which has a row is turned away.
    case sequenceLeftBehind
    /// An order that is given an id which has a row is taken for made.
    case takenIDDriven
    /// The units of a success that comes for a failed order are not given back.
    case lateSuccessKept
}
