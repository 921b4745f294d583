// What one server keeps for one gated product: a few hundred bytes, no matter how many requests are in flight.

import Synchronization

/// The process' memory of *sold out*: the counter it saw, for a short time.
///
/// It rejects only first attempts that want more than that. An increase on this server ends it at once; one on another server may be missed for
/// as long as the memory lasts.
struct SoldOutMemory: Sendable {
    private var counter: Int64 = 0
    private var until: UInt64 = 0
    private var generation: UInt64 = 0

    /// To be passed to `saw`: a sight from before an increase must not be remembered after it.
    var currentGeneration: UInt64 { generation }

    /// The counter, if a request for `quantity` is known to be too large at this time (nanoseconds).
    func rejects(_ quantity: Int64, at now: UInt64) -> Int64? {
        now < until && quantity > counter ? counter : nil
    }

    mutating func saw(counter: Int64, generation: UInt64, until: UInt64) {
        guard generation == self.generation else { return }
        self.counter = counter
        self.until = until
    }

    mutating func end() {
        generation &+= 1
        until = 0
    }
}

final class GatedProduct: Sendable {
    struct State: Sendable {
        var soldOut = SoldOutMemory()
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
}

/// A difference that one quiet look found. The same in a second look is a finding.
struct AuditSuspicion: Hashable, Sendable {
    var fence: Fence
    var redisFence: Fence
    var stock: Int64
    var counter: Int64?
    /// What Redis holds is another ledger's: no difference, but not to be used.
    var isForeign = false
}
