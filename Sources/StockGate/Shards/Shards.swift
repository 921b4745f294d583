// Which shard a product belongs to. With one Redis, or one that sentinels name, there is one shard, and it has all products. With a cluster there is one shard
// for each master that the map of the slots names, for as long as the map names it.
//
// A product whose slot another master serves in a new map goes to that master's shard. There its fence is raised and it is installed before its gate is used, as
// after an outage: whatever that master holds for the product is of another dataset. The old master may still answer what was sent to it.
// Bounds: `SlotMap.maximumMasters` shards. Maps come one at a time.

import CircuitBreaker
import RedisClient
import Synchronization

final class Shards: Sendable {
    private struct State: Sendable {
        /// The one shard of an engine without a cluster.
        var only: Shard?
        /// Makes the shard of a cluster's master; nil if the cluster does not know the master any more.
        var make: Make?
        var map: SlotMap?
        var masters: [RedisEndpoint: Shard] = [:]
        var nextID = 1
        /// Whether it is known which products are gated, so that recoveries may run.
        var isBegun = false
        var isClosed = false
        /// Called with all breakers whenever a shard has been added or has ended.
        var onChange: (@Sendable ([CircuitBreaker]) -> Void)?
    }

    typealias Make = @Sendable (Shard.ID, RedisEndpoint) -> Shard?

    /// The shards that a new map added, and those that it ended.
    struct Change: Sendable {
        var added: [Shard] = []
        var ended: [Shard] = []
    }

    private let state = Mutex(State())
    private let wake: AsyncStream<Void>.Continuation
    private let arrivals: AsyncStream<Void>

    init() { (self.arrivals, wake) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1)) }

    /// All shards, in no order.
    var all: [Shard] { state.withLock { $0.only.map { [$0] } ?? Array($0.masters.values) } }

    /// The shard whose master serves the product's keys; nil if there is no such master.
    func shard(of id: ProductID) -> Shard? {
        // Only a cluster needs the slot.
        if let only = state.withLock({ $0.only }) { return only }
        let slot = GateKeys.slot(of: id)
        return state.withLock { state in state.map?[slot].flatMap { state.masters[$0] } }
    }

    /// The shard of this master.
    func shard(at master: RedisEndpoint) -> Shard? { state.withLock { $0.masters[master] } }

    /// Sets the one shard of an engine without a cluster.
    func set(only shard: Shard) {
        state.withLock { $0.only = shard }
        wake.yield()
    }

    /// Sets how the shard of a cluster's master is made.
    func set(make: @escaping Make) { state.withLock { $0.make = make } }

    // MARK: Maps

    /// Makes a shard for each master that is new, and ends those of masters that the map does not name. Products are not moved. One call at a time.
    func use(_ map: SlotMap) -> Change {
        let before = state.withLock { (masters: $0.masters, nextID: $0.nextID, make: $0.isClosed ? nil : $0.make) }
        var (known, nextID) = (before.masters, before.nextID)
        var change = Change()
        guard let make = before.make else { return change }
        var masters: [RedisEndpoint: Shard] = [:]
        for master in map.masters {
            if let shard = known.removeValue(forKey: master) {
                masters[master] = shard
            } else if let shard = make(Shard.ID(rawValue: nextID), master) {
                nextID += 1
                masters[master] = shard
                change.added.append(shard)
            }
        }
        change.ended = Array(known.values)
        let isClosed = state.withLock { state in
            guard !state.isClosed else { return true }
            state.map = map
            state.masters = masters
            state.nextID = nextID
            return false
        }
        if isClosed {
            for shard in change.added { shard.shutdown() }
            return Change()
        }
        return change
    }

    /// To be called when the products are with their shards. New shards begin their recoveries, and the shards of masters that are gone end.
    func settle(_ change: Change) {
        let isBegun = state.withLock { $0.isBegun }
        for shard in change.ended { shard.end() }
        if isBegun { for shard in change.added { shard.recovery.begin() } }
        wake.yield()
        guard !change.added.isEmpty || !change.ended.isEmpty else { return }
        let (onChange, breakers) = (state.withLock { $0.onChange }, self.breakers)
        onChange?(breakers)
    }

    // MARK: Life

    /// The breakers, by name.
    var breakers: [CircuitBreaker] { all.map(\.breaker).sorted { $0.name < $1.name } }

    /// Calls `onChange` with all breakers now, and whenever a shard has been added or has ended. For one listener.
    func follow(_ onChange: @escaping @Sendable ([CircuitBreaker]) -> Void) {
        state.withLock { $0.onChange = onChange }
        onChange(breakers)
    }

    /// It is known which products are gated: recoveries may run, those of later shards too.
    func begin() {
        state.withLock { $0.isBegun = true }
        for shard in all { shard.recovery.begin() }
    }

    /// Has every shard work in the background until the task is cancelled.
    func run() async {
        await withDiscardingTaskGroup { group in
            var running: Set<Shard.ID> = []
            for await _ in arrivals {
                let shards = all
                running.formIntersection(shards.map(\.id))
                for shard in shards where running.insert(shard.id).inserted { group.addTask { await shard.run() } }
            }
        }
    }

    /// Lets no call through any more, and takes no further map.
    func shutdown() {
        state.withLock { $0.isClosed = true }
        for shard in all { shard.shutdown() }
    }

    /// Forgets every shard. What they hold refers to this object, so nothing is released before.
    func forgetAll() {
        state.withLock { state in
            state.only = nil
            state.masters = [:]
            state.make = nil
            state.onChange = nil
        }
    }
}
