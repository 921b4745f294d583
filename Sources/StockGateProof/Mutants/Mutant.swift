/// One deliberate fault in the protocol, and what the proof found with it.
public struct Mutant: Hashable, Sendable {
    /// The part of the proof that found a mutant.
    public enum Finder: Hashable, Sendable {
        /// A small world, after this many states.
        case world(World, states: Int)
        /// The simulator, with this seed, after this many runs.
        case seed(UInt64, runs: Int)
    }

    /// How a mutant was found.
    public struct Catch: Sendable {
        /// What found it.
        public var finder: Finder
        /// The promise that the fault breaks.
        public var promise: String
    }

    /// The fault.
    public var fault: Fault

    /// Creates a mutant with one fault.
    public init(_ fault: Fault) { self.fault = fault }

    /// The fault's name.
    public var name: String { "\(fault)" }

    /// One mutant for each fault.
    public static let all = Fault.allCases.map { Mutant($0) }

    /// Faults of the shells around the machines, and of a second product, which small worlds do not have.
    private static let shellFaults: Set<Fault> = [
        .sweepOff, .sweepRestsForEver, .auditOff, .memoryRejectsRepeats, .increaseProductUnchecked,
    ]

    /// Looks for a world in which this fault breaks a promise, then for a seed. Nil: the proof does not notice the fault.
    public func hunt(seeds: Int = 20_000) -> Catch? {
        Self.shellFaults.contains(fault) ? huntInSeeds(seeds) ?? huntInWorlds() : huntInWorlds() ?? huntInSeeds(seeds)
    }

    private func huntInWorlds() -> Catch? {
        var states = 0
        // Worlds that the fault concerns come first, and the one large world last, because few faults need it.
        let worlds = World.model + World.own
        let likely = worlds.filter { isAbout($0) }
        let others = worlds.filter { !isAbout($0) }.sorted { !$0.isLarge && $1.isLarge }
        for world in likely + others {
            let report = Explorer.explore(world, fault: fault)
            states += report.states
            if let violation = report.violation { return Catch(finder: .world(world, states: states), promise: violation.promise) }
        }
        return nil
    }

    /// Whether the fault concerns this world, for faults that only few worlds can show.
    private func isAbout(_ world: World) -> Bool {
        switch fault {
        case .lostCounterTrusted, .releaseMakesCounter: world.losses > 0
        case .fenceAheadIsNewer, .aheadUnasked, .owedFencesForgotten: world.restores > 0
        case .failoverUnnoticed, .leapForgotten, .oldPrimaryUsed, .warningIgnored, .repeatNotReplicated, .readNotReplicated:
            world.failovers > 0
        case .foreignUsed, .foreignOverwritten, .appliedToForeign, .foreignVoided, .foreignMended: world.actors.contains("foreign")
        case .leftServed, .leftForever, .voidForgetsFence: world.actors.contains("recovery")
        case .moveUnasked, .oldResyncSilent, .movedAsItIs: world.moves > 0
        case .moveForgetsLeap: world.moves > 0 && world.failovers > 0
        case .replayConfirms, .closedKeyFails, .sinceIgnored, .staleTakesKey, .newKeyUnwritten, .formerKeyCompensated, .lateSuccessKept,
            .othersRowIsOwn, .joinedRowIsOwn, .markIgnored:
            world.actors.contains { $0.hasPrefix("#") }
        case .sequenceLeftBehind, .takenIDDriven: world.actors.contains { $0.hasPrefix("=") }
        default: false
        }
    }

    private func huntInSeeds(_ seeds: Int) -> Catch? {
        let report = Simulator.run(seeds: UInt64(1)...UInt64(seeds), fault: fault, shrinking: false)
        return report.violation.map { Catch(finder: .seed(report.seed, runs: report.runs), promise: $0) }
    }
}

extension World {
    fileprivate var isLarge: Bool { actors.count > 5 }
}
