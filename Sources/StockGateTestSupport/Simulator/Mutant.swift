import StockGate

/// One deliberate fault in the protocol, and what the proof found when it was switched on.
public struct Mutant: Hashable, Sendable {
    /// What finds a mutant.
    public enum Finder: Hashable, Sendable {
        /// A small world, after this many states.
        case world(World, states: Int)
        /// The simulator, with this seed, after this many runs.
        case seed(UInt64, runs: Int)
    }

    /// How a mutant was found.
    public struct Catch: Sendable {
        /// By what.
        public var finder: Finder
        /// The promise that it breaks.
        public var promise: String
    }

    /// Its name in `Faults`.
    public var name: String
    /// The fault.
    public var fault: Faults

    /// Names a mutant.
    public init(_ name: String, _ fault: Faults) {
        self.name = name
        self.fault = fault
    }

    /// Every fault that the build knows.
    public static let all: [Mutant] = [
        Mutant("repeatTrustsRedis", .repeatTrustsRedis), Mutant("firmNoLeavesOpen", .firmNoLeavesOpen),
        Mutant("duplicateBehindSilent", .duplicateBehindSilent), Mutant("insufficientSilent", .insufficientSilent),
        Mutant("increaseDuplicateSilent", .increaseDuplicateSilent), Mutant("lostApplyIgnored", .lostApplyIgnored),
        Mutant("untoldSilent", .untoldSilent), Mutant("stampIgnored", .stampIgnored), Mutant("datasetIgnored", .datasetIgnored),
        Mutant("bumperSilent", .bumperSilent), Mutant("askAlways", .askAlways), Mutant("compensationLeavesOpen", .compensationLeavesOpen),
        Mutant("notFoundTrusted", .notFoundTrusted), Mutant("gateLeftOpen", .gateLeftOpen),
        Mutant("owedClearedWhole", .owedClearedWhole), Mutant("owedNotCounted", .owedNotCounted),
        Mutant("releaseWithoutToken", .releaseWithoutToken), Mutant("releaseWithoutFence", .releaseWithoutFence),
        Mutant("settleBeforeCommit", .settleBeforeCommit), Mutant("applySentTwice", .applySentTwice),
        Mutant("lookupBeforeLock", .lookupBeforeLock), Mutant("directSilent", .directSilent), Mutant("mismatchSettled", .mismatchSettled),
        Mutant("duplicateOtherKept", .duplicateOtherKept), Mutant("unknownReleased", .unknownReleased),
        Mutant("unknownNotFirm", .unknownNotFirm), Mutant("installOlder", .installOlder), Mutant("applyUnderAnyFence", .applyUnderAnyFence),
        Mutant("increaseNotIdempotent", .increaseNotIdempotent), Mutant("lostReserveUntold", .lostReserveUntold),
        Mutant("abandonReleases", .abandonReleases), Mutant("installKeepsPending", .installKeepsPending),
        Mutant("joinTakesAgain", .joinTakesAgain), Mutant("stockUnchecked", .stockUnchecked), Mutant("sweepOff", .sweepOff),
        Mutant("sweepReleases", .sweepReleases), Mutant("auditOff", .auditOff), Mutant("memoryRejectsRepeats", .memoryRejectsRepeats),
        Mutant("increaseTrustsQuantity", .increaseTrustsQuantity), Mutant("notOnSaleLeavesOpen", .notOnSaleLeavesOpen),
        Mutant("joinedQuantityIgnored", .joinedQuantityIgnored), Mutant("settleWithoutToken", .settleWithoutToken),
        Mutant("askDroppedWhileRunning", .askDroppedWhileRunning), Mutant("increaseOrderUnchecked", .increaseOrderUnchecked),
        Mutant("increaseProductUnchecked", .increaseProductUnchecked), Mutant("increaseClosedUnchecked", .increaseClosedUnchecked),
        Mutant("increaseRepeatUnchecked", .increaseRepeatUnchecked), Mutant("wrongIncreaseOccupies", .wrongIncreaseOccupies),
        Mutant("closedQuantityLost", .closedQuantityLost), Mutant("lostCounterTrusted", .lostCounterTrusted),
        Mutant("releaseMakesCounter", .releaseMakesCounter), Mutant("offUnwritten", .offUnwritten),
        Mutant("fenceAheadIsNewer", .fenceAheadIsNewer), Mutant("aheadUnasked", .aheadUnasked),
        Mutant("owedFencesForgotten", .owedFencesForgotten), Mutant("foreignUsed", .foreignUsed),
        Mutant("foreignOverwritten", .foreignOverwritten), Mutant("appliedToForeign", .appliedToForeign),
        Mutant("leftServed", .leftServed), Mutant("leftForever", .leftForever),
        Mutant("voidForgetsFence", .voidForgetsFence), Mutant("foreignVoided", .foreignVoided),
        Mutant("foreignMended", .foreignMended),
    ]

    /// Whether this build can switch faults on (`STOCKGATE_FAULTS`).
    public static var canSwitch: Bool { Faults.stockUnchecked.has(.stockUnchecked) }

    /// Faults of the shells around the machines, and of a second product: what small worlds do not have.
    private static let shellFaults: Faults = [.sweepOff, .auditOff, .memoryRejectsRepeats, .increaseProductUnchecked]

    /// Looks for a world that breaks a promise with this fault, then for a seed. Nil: the proof does not notice it.
    public func hunt(seeds: Int = 20_000) -> Catch? {
        Self.shellFaults.isDisjoint(with: fault) ? huntInWorlds() ?? huntInSeeds(seeds) : huntInSeeds(seeds) ?? huntInWorlds()
    }

    private func huntInWorlds() -> Catch? {
        var states = 0
        // The one large world comes last: few faults need it.
        for world in (World.model + World.own).sorted(by: { !$0.isLarge && $1.isLarge }) {
            let report = Explorer.explore(world, faults: fault)
            states += report.states
            if let violation = report.violation { return Catch(finder: .world(world, states: states), promise: violation.promise) }
        }
        return nil
    }

    private func huntInSeeds(_ seeds: Int) -> Catch? {
        let report = Simulator.run(seeds: UInt64(1)...UInt64(seeds), faults: fault, shrinking: false)
        return report.violation.map { Catch(finder: .seed(report.seed, runs: report.runs), promise: $0) }
    }
}

extension World {
    fileprivate var isLarge: Bool { actors.count > 5 }
}
