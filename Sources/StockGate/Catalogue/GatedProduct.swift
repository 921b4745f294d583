// What one server keeps for one gated product: a few hundred bytes, no matter how many requests are in flight.

import NIOCore
import Synchronization

final class GatedProduct: Sendable {
    struct State: Sendable {
        /// The shard whose master serves the product's keys; nil if none does. The product is sold directly then.
        var shard: Shard?
        var soldOut = SoldOutSighting()
        var schedule: ResyncSchedule
        var standing = Standing()
        /// How many decreases asked for the product lately, halved with every sweep. A recovery installs the hottest products first.
        var heat: UInt32 = 0
        /// Callbacks of the requests that wait for a resync. Bounded by the requests in flight.
        var waiters: [@Sendable (Bool) -> Void] = []
        /// The cursor at which the next step of the sweep continues.
        var sweepCursor = "0"
        /// The sweep leaves the product alone until then: no reservation can be overdue earlier.
        var sweepRest = NIODeadline.distantPast
        /// Pruning leaves the product alone until then: no mark can be beyond its retention earlier.
        var pruneRest = NIODeadline.distantPast
        /// What the last quiet look found, if it was a difference.
        var suspicion: AuditSuspicion?
    }

    let id: ProductID
    let keys: GateKeys
    let state: Mutex<State>

    init(_ id: ProductID, shard: Shard?, resyncInterval: UInt64) {
        self.id = id
        keys = GateKeys(id)
        self.state = Mutex(State(shard: shard, schedule: ResyncSchedule(interval: resyncInterval)))
    }

    /// The shard whose master serves the product's keys; nil if none does.
    var shard: Shard? { state.withLock { $0.shard } }

    /// Counts a decrease that comes in. Returns whether the product is sold directly, and the remembered counter if the memory of *sold out* rejects the
    /// request.
    func entered(_ request: DecreaseRequest) -> (isDirect: Bool, counter: Int64?) {
        let now = NIODeadline.now().uptimeNanoseconds
        return state.withLock { state in
            state.heat &+= 1
            if state.standing.isDirect || state.shard == nil { return (true, nil) }
            return (false, request.isRepeat ? nil : state.soldOut.rejects(request.quantity, at: now))
        }
    }

    /// Ends the memory of *sold out*, because units have come or may have come.
    func forgetSoldOut() { state.withLock { $0.soldOut.end() } }
}
