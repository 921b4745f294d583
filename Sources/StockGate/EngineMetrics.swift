public import Synchronization

/// A count that only grows. Adding to it is one relaxed atomic operation.
public final class EngineCounter: Sendable {
    private let value = Atomic<UInt64>(0)

    func add(_ count: UInt64) { value.wrappingAdd(count, ordering: .relaxed) }

    /// The count now.
    public var count: UInt64 { value.load(ordering: .relaxed) }
}

/// What the engine has done since it started.
public final class EngineMetrics: Sendable {
    /// Reserves sent to Redis.
    public let reserves = EngineCounter()
    /// Script calls that carried reserves. One call may carry several.
    public let reserveCalls = EngineCounter()
    /// Decreases answered from the process' memory of *sold out*.
    public let soldOutFromMemory = EngineCounter()
    /// Decreases that Redis called sold out.
    public let soldOutAtGate = EngineCounter()
    /// Decreases committed.
    public let sold = EngineCounter()
    /// Decreases that were duplicates of committed ones.
    public let replayed = EngineCounter()
    /// Decreases that the ledger refused.
    public let refused = EngineCounter()
    /// Decreases that went without a reservation.
    public let direct = EngineCounter()
    /// Decreases and increases turned away because too much was in flight.
    public let overloaded = EngineCounter()
    /// Decreases and increases that were not answered in time.
    public let timedOut = EngineCounter()
    /// Changes that were sent again because their outcome was unknown.
    public let unknownCommits = EngineCounter()
    /// Increases that added units.
    public let increases = EngineCounter()
    /// Changes of stock that Redis was told of after their commit: increases, and decreases whose commit met another fence than their reservation's.
    public let applies = EngineCounter()
    /// Applies that failed or are unknown.
    public let lostApplies = EngineCounter()
    /// Settles and releases that could not be sent to Redis.
    public let untold = EngineCounter()
    /// Resyncs that installed, or that met a newer install.
    public let resyncs = EngineCounter()
    /// Resyncs with nothing to install: Redis was up to date or holds another ledger's data, or the product is missing.
    public let resyncsNotNeeded = EngineCounter()
    /// Resyncs that failed.
    public let resyncsFailed = EngineCounter()
    /// How often a product was switched to direct sale because what Redis held for it could not be used.
    public let spoiled = EngineCounter()
    /// Fences that were raised because Redis held a higher one than the ledger.
    public let raisedAboveRedis = EngineCounter()
    /// How often the ledger's sessions reached another history of its data.
    public let ledgerMoves = EngineCounter()
    /// Settled marks that pruning removed. Marks that a settle removed along the way are not counted.
    public let prunedMarks = EngineCounter()
    /// Resyncs asked for by the sweep.
    public let swept = EngineCounter()
    /// Products that another master of a cluster serves than before, and that were given to its shard.
    public let moved = EngineCounter()
    /// Differences that the audit found, in two looks.
    public let auditFindings = EngineCounter()
    /// Requests in flight.
    public let inFlight = Atomic<Int>(0)
}
