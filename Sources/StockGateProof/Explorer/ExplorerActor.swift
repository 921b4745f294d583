import StockGate

/// What an actor of a small world was told.
enum Told: Hashable {
    case nothing
    /// The decrease was sold, or the increase gave units back.
    case yes
    /// A first attempt got a *no*. A repeat may still get a *yes*.
    case no
    /// A repeat, or an attempt with an unknown commit, got a *no*, which is final.
    case finalNo
    /// A first attempt was told that the product is discontinued.
    case discontinued
    /// The key belongs to another request.
    case reused
    /// Nothing was decided.
    case unavailable
}

/// One actor of a small world: one of the project's machines, perhaps with a mutant's patch, and the action that it wants to do next.
enum ExplorerActor: Hashable {
    case buyer(Buyer)
    /// The order server's work on an order, between two requests.
    case order(Driver)
    /// Cancels an order once it is confirmed.
    case canceller
    case returning(PatchedIncrease, Increase.Action?, Told)
    case lookup(IncreaseRequest)
    /// Reads the ledger's row for a key.
    case reader(String)
    case resync(PatchedResync, Resync.Action?)
    /// Runs the resyncs that others ask for, and counts its bumps.
    case healer(PatchedResync?, Resync.Action?, bumps: Int)
    case hand(Hand)
    /// Removes the product's keys, then resyncs the product.
    case mender
    /// The opening of the breaker, and the recovery that passes without the product.
    case recovery(Recovery)
    /// A change by hand that still has to ask for a resync.
    case handAsks
    case done(Told)
    case dead

    /// A decrease that is under way.
    struct Buyer: Hashable {
        var machine: PatchedReservation
        /// The next action; nil before the beginning.
        var action: Reservation.Action?
        var told = Told.nothing
        /// The rows as they were before the lock, for the fault of looking before locking.
        var staleRows: [LedgerModel.Row]?
        /// The order that the decrease is for; nil for a caller that uses the product server directly.
        var order: Driver?

        init(_ machine: PatchedReservation, order: Driver? = nil) {
            self.machine = machine
            self.order = order
        }
    }

    /// The settler of an order: the request that made the order, or another server.
    struct Driver: Hashable {
        enum Next: Hashable { case place, goOn, ask, write(OrderModel.Verdict) }

        /// The order's position among the world's orders.
        var order: Int
        /// The key under which the driver asks.
        var key: String
        /// Whether this driver asks under the key for the first time.
        var isFirst: Bool
        var attempts: UInt8 = 0
        var next: Next
    }

    /// What is changed by hand in the ledger, without Redis.
    enum Hand: Hashable { case decrease, restock, delete, relist }

    /// The next event of an outage of this server. During its recovery the product's row is locked.
    enum Recovery: Hashable { case opens, leaves, passes, asks }

    /// Whether the actor does nothing more by itself.
    var isAtRest: Bool {
        switch self {
        case .done, .dead, .healer(nil, _, _): true
        default: false
        }
    }

    /// Whether the actor has begun, so that its death is a case of its own.
    var hasBegun: Bool {
        switch self {
        case .returning(_, nil, _), .resync(_, nil), .lookup, .reader, .hand, .healer, .done, .dead, .mender, .canceller,
            .recovery(.opens):
            false
        case .buyer(let buyer): buyer.action != nil || buyer.order != nil
        case .order(let driver): driver.next != .place && driver.next != .goOn
        case .returning, .resync, .handAsks, .recovery: true
        }
    }

    /// The meaning of an answer for its caller.
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
