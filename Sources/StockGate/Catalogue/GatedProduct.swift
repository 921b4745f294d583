// What one server keeps for one gated product: a few hundred bytes, no matter how many requests are in flight.

import NIOCore
import Synchronization

final class GatedProduct: Sendable {
    struct State: Sendable {
        var soldOut = SoldOutSighting()
        var schedule: ResyncSchedule
        var standing = Standing()
        /// Decreases that asked for it lately: what a recovery installs first. Halved with every sweep.
        var heat: UInt32 = 0
        /// Requests that wait for a resync. Bounded by the requests in flight.
        var waiters: [@Sendable (Bool) -> Void] = []
        /// Where the sweep goes on.
        var sweepCursor = "0"
        /// What the last quiet look found, if it was a difference.
        var suspicion: AuditSuspicion?
    }

    let id: ProductID
    let keys: GateKeys
    let state: Mutex<State>

    init(_ id: ProductID, resyncInterval: UInt64) {
        self.id = id
        self.keys = GateKeys(id)
        self.state = Mutex(State(schedule: ResyncSchedule(interval: resyncInterval)))
    }

    /// A decrease comes. Whether the product is sold directly, and the counter if the memory of *sold out* rejects the request.
    func entered(_ request: DecreaseRequest) -> (isDirect: Bool, counter: Int64?) {
        let now = NIODeadline.now().uptimeNanoseconds
        return state.withLock { state in
            state.heat &+= 1
            if state.standing.isDirect { return (true, nil) }
            return (false, request.isRepeat ? nil : state.soldOut.rejects(request.quantity, at: now))
        }
    }

    /// What the product's memory of *sold out* holds ends, since units have come or may have come.
    func forgetSoldOut() { state.withLock { $0.soldOut.end() } }
}
