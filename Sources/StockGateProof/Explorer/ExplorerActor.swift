import StockGate

/// What an actor of a small world was told.
enum Told: Hashable {
    case nothing
    /// Sold, or given back.
    case yes
    /// A *no* to a first attempt: a repeat may still get a *yes*.
    case no
    /// A *no* to a repeat, or after an unknown commit: final.
    case finalNo
    /// A first attempt was told that the product is discontinued.
    case discontinued
    /// The key belongs to another payload.
    case reused
    /// Nothing was decided.
    case unavailable
}

/// One actor of a small world: a machine of the project, perhaps behind a mutant's patch, and the action that it wants next.
enum ExplorerActor: Hashable {
    case buyer(Buyer)
    /// An order of the order server, between two requests.
    case order(Driver)
    /// Cancels an order once it is confirmed.
    case canceller
    case returning(PatchedIncrease, Increase.Action?, Told)
    case lookup(IncreaseRequest)
    case resync(PatchedResync, Resync.Action?)
    /// Runs what others asked for; counts its bumps.
    case healer(PatchedResync?, Resync.Action?, bumps: Int)
    case hand(Hand)
    /// Makes the product's keys anew, then resyncs it.
    case mender
    /// The breaker's opening and the recovery that passes without the product.
    case recovery(Recovery)
    /// A change by hand that must ask for a resync yet.
    case handAsks
    case done(Told)
    case dead

    /// A decrease on its way.
    struct Buyer: Hashable {
        var machine: PatchedReservation
        /// What it wants next; nil before it begins.
        var action: Reservation.Action?
        var told = Told.nothing
        /// The rows as they were before the lock, for the fault of looking before locking.
        var staleRows: [LedgerModel.Row]?
        /// The order that it is for; nil for a caller of the product server.
        var order: Driver?

        init(_ machine: PatchedReservation, order: Driver? = nil) {
            self.machine = machine
            self.order = order
        }
    }

    /// Who settles an order: the request that it was placed with, or another server.
    struct Driver: Hashable {
        enum Next: Hashable { case place, goOn, ask, write(OrderModel.Verdict) }

        /// Its place among the world's orders.
        var order: Int
        /// The key that it asks under.
        var key: String
        /// Whether this driver has not asked under the key before.
        var isFirst: Bool
        var attempts: UInt8 = 0
        var next: Next
    }

    /// What a hand does to the ledger without Redis.
    enum Hand: Hashable { case decrease, restock, delete, relist }

    /// What comes next in an outage of this server, during whose recovery the product's row is locked.
    enum Recovery: Hashable { case opens, leaves, passes, asks }

    /// Whether it has nothing more to do by itself.
    var isAtRest: Bool {
        switch self {
        case .done, .dead, .healer(nil, _, _): true
        default: false
        }
    }

    /// Whether it has begun, so that a death in the middle of it is a case of its own.
    var hasBegun: Bool {
        switch self {
        case .returning(_, nil, _), .resync(_, nil), .lookup, .hand, .healer, .done, .dead, .mender, .canceller,
            .recovery(.opens):
            false
        case .buyer(let buyer): buyer.action != nil || buyer.order != nil
        case .order(let driver): driver.next != .place && driver.next != .goOn
        case .returning, .resync, .handAsks, .recovery: true
        }
    }

    /// What an answer means to a caller.
    static func told(_ answer: DecreaseAnswer, isFirm: Bool) -> Told {
        switch answer {
        case .sold: .yes
        case .notOnSale where !isFirm: .discontinued
        case .insufficient, .notOnSale, .productMissing: isFirm ? .finalNo : .no
        case .keyClosed: .finalNo
        case .keyReused: .reused
        case .unavailable: .unavailable
        }
    }

    static func told(_ answer: IncreaseAnswer) -> Told {
        switch answer {
        case .added: .yes
        case .nothingToReturn: .finalNo
        case .keyReused: .reused
        case .productMissing: .no
        case .unavailable: .unavailable
        }
    }
}
