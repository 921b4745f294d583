import StockGate
import Testing

@Suite("Reservation: every state, every event")
struct ReservationTests {
    /// A first attempt, or a repeat, of two units.
    private static func request(isRepeat: Bool = false) -> DecreaseRequest {
        DecreaseRequest(product: ProductID(7), key: "DEC-1", orderID: 1, quantity: 2, isRepeat: isRepeat)
    }

    private static let held = Held(fence: 3, token: 9)

    private static func reply(_ outcome: CommitOutcome, lockedFence: Fence = 3, bumped: Bool = false, remaining: Int64 = 5) -> CommitReply {
        CommitReply(outcome: outcome, lockedFence: lockedFence, bumped: bumped, remaining: remaining, isGated: true)
    }

    private static func reserving(isRepeat: Bool = false) -> Reservation {
        var machine = Reservation(request(isRepeat: isRepeat))
        _ = machine.began(throughGate: true)
        return machine
    }

    private static func reserved(isRepeat: Bool = false) -> Reservation {
        var machine = reserving(isRepeat: isRepeat)
        _ = machine.reserveReplied(.reserved(fence: 3, token: 9, left: 0))
        return machine
    }

    private static func direct(isRepeat: Bool = false) -> Reservation {
        var machine = Reservation(request(isRepeat: isRepeat))
        _ = machine.began(throughGate: false)
        return machine
    }

    private static func applying() -> Reservation {
        var machine = reserved()
        _ = machine.committed(reply(.committed, lockedFence: 4))
        return machine
    }

    private static func commit(fence: Fence = 0, token: Token = 0, sent: Bool = false, firm: Bool = false, isRepeat: Bool = false)
        -> Reservation.Action
    {
        .commit(CommitRequest(decrease: request(isRepeat: isRepeat), fence: fence, token: token, reserveSent: sent, isFirm: firm))
    }

    @Test("start")
    func start() {
        var machine = Reservation(Self.request())
        #expect(machine.state == .start)
        #expect(!machine.isFinished)
        #expect(machine.began(throughGate: true).action == .reserve)
        #expect(machine.state == .reserving)
        machine = Reservation(Self.request())
        #expect(machine.began(throughGate: false).action == Self.commit())
    }

    struct ReserveCase: Sendable {
        var reply: ReserveReply
        var isRepeat: Bool
        var action: Reservation.Action
        var answer: DecreaseAnswer?
    }

    static let reserveCases: [ReserveCase] = [
        ReserveCase(
            reply: .reserved(fence: 3, token: 9, left: 0),
            isRepeat: false,
            action: commit(fence: 3, token: 9, sent: true)
        ),
        ReserveCase(
            reply: .reserved(fence: 3, token: 9, left: 0),
            isRepeat: true,
            action: commit(fence: 3, token: 9, sent: true, firm: true, isRepeat: true)
        ),
        ReserveCase(reply: .joined(fence: 3, token: 9, quantity: 2), isRepeat: false, action: commit(fence: 3, token: 9, sent: true)),
        ReserveCase(reply: .joined(fence: 3, token: 9, quantity: 1), isRepeat: false, action: .finish, answer: .keyReused),
        ReserveCase(reply: .soldOut(counter: 1), isRepeat: false, action: .finish, answer: .insufficient(remaining: 1)),
        ReserveCase(reply: .soldOut(counter: -3), isRepeat: false, action: .finish, answer: .insufficient(remaining: 0)),
        ReserveCase(reply: .soldOut(counter: 1), isRepeat: true, action: commit(firm: true, isRepeat: true)),
        ReserveCase(reply: .notOnSale, isRepeat: false, action: .finish, answer: .notOnSale),
        ReserveCase(reply: .notOnSale, isRepeat: true, action: commit(firm: true, isRepeat: true)),
        ReserveCase(reply: .notLoaded, isRepeat: false, action: .awaitResync),
        ReserveCase(reply: .alreadyDone, isRepeat: false, action: .lookUp),
    ]

    @Test("reserving, and what Redis replies", arguments: reserveCases)
    func reserveReplied(_ one: ReserveCase) {
        var machine = Self.reserving(isRepeat: one.isRepeat)
        let step = machine.reserveReplied(one.reply)
        #expect(step.action == one.action)
        #expect(step.answer == one.answer)
        #expect(!step.asksForResync)
        #expect(machine.isFinished == (one.action == .finish))
    }

    @Test("reserving, and no reply: whoever may have left a reservation says so")
    func reserveFailed() {
        for sent in [true, false] {
            var machine = Self.reserving()
            #expect(machine.reserveFailed(sent: sent).action == Self.commit(sent: sent))
        }
    }

    @Test("awaiting a resync: loaded reserves again, at most three times in all; else direct")
    func awaitingResync() {
        var machine = Self.reserving()
        for _ in 1..<Reservation.maximumReserves {
            #expect(machine.reserveReplied(.notLoaded).action == .awaitResync)
            #expect(machine.resyncEnded(loaded: true).action == .reserve)
        }
        #expect(machine.reserveReplied(.notLoaded).action == Self.commit())
        machine = Self.reserving()
        _ = machine.reserveReplied(.notLoaded)
        #expect(machine.resyncEnded(loaded: false).action == Self.commit())
    }

    @Test("looking up: the first result, another payload, a closed key, nothing")
    func lookingUp() {
        func entry(_ direction: LedgerEntry.Direction, quantity: Quantity = 2, order: Int64 = 1, product: Int64 = 7) -> LedgerEntry {
            LedgerEntry(
                product: ProductID(product),
                orderID: order,
                quantity: quantity,
                remaining: 4,
                direction: direction,
                fence: 0,
                token: 0
            )
        }
        let cases: [(LedgerEntry?, DecreaseAnswer?)] = [
            (entry(.out), .sold(remaining: 4, replayed: true)), (entry(.out, quantity: 1), .keyReused), (entry(.out, order: 2), .keyReused),
            (entry(.out, product: 8), .keyReused), (entry(.closed), .keyClosed), (entry(.in), .keyClosed), (nil, nil),
        ]
        for (found, answer) in cases {
            var machine = Self.reserving()
            _ = machine.reserveReplied(.alreadyDone)
            let step = machine.lookedUp(found)
            #expect(step.answer == answer)
            #expect(step.action == (answer == nil ? Self.commit() : .finish))
        }
        var machine = Self.reserving()
        _ = machine.reserveReplied(.alreadyDone)
        #expect(machine.lookUpFailed().action == Self.commit())
    }

    struct CommitCase: Sendable {
        var outcome: CommitOutcome
        var answer: DecreaseAnswer
        /// Under the reservation's fence, and under a newer one.
        var same: Reservation.Action
        var newer: Reservation.Action
    }

    static let commitCases: [CommitCase] = [
        CommitCase(
            outcome: .committed,
            answer: .sold(remaining: 5, replayed: false),
            same: .settle(held),
            newer: .apply(4, delta: -2)
        ),
        CommitCase(outcome: .duplicateMine, answer: .sold(remaining: 5, replayed: true), same: .settle(held), newer: .settle(held)),
        CommitCase(outcome: .duplicateOther, answer: .sold(remaining: 5, replayed: true), same: .release(held), newer: .release(held)),
        CommitCase(outcome: .insufficient, answer: .insufficient(remaining: 5), same: .release(held), newer: .release(held)),
        CommitCase(outcome: .keyClosed, answer: .keyClosed, same: .release(held), newer: .release(held)),
        CommitCase(outcome: .notOnSale, answer: .notOnSale, same: .release(held), newer: .release(held)),
        CommitCase(outcome: .productMissing, answer: .productMissing, same: .release(held), newer: .release(held)),
        CommitCase(outcome: .keyReused, answer: .keyReused, same: .release(held), newer: .release(held)),
        CommitCase(outcome: .keyReusedMine, answer: .keyReused, same: .settle(held), newer: .settle(held)),
    ]

    @Test("committing with a reservation: every outcome, under its fence and under a newer one", arguments: commitCases)
    func committed(_ one: CommitCase) {
        for (told, action) in [(Fence(3), one.same), (4, one.newer)] {
            for bumped in [false, true] {
                var machine = Self.reserved()
                let step = machine.committed(Self.reply(one.outcome, lockedFence: told, bumped: bumped))
                #expect(step.answer == one.answer)
                #expect(step.action == action)
                #expect(step.asksForResync == bumped)
                if case .apply = action { #expect(machine.state == .applying(4)) } else { #expect(machine.isFinished) }
            }
        }
    }

    @Test(
        "committing under an older fence than the reservation's: Redis is ahead of the ledger, and a resync is asked for",
        arguments: commitCases
    )
    func ahead(_ one: CommitCase) {
        var machine = Self.reserved()
        let step = machine.committed(Self.reply(one.outcome, lockedFence: 2))
        #expect(step.answer == one.answer)
        #expect(step.asksForResync)
        // No such product has no fence.
        machine = Self.reserved()
        #expect(!machine.committed(Self.reply(one.outcome, lockedFence: 0)).asksForResync)
    }

    @Test("every outcome has a case")
    func complete() { #expect(Set(Self.commitCases.map(\.outcome)) == Set(CommitOutcome.allCases)) }

    @Test("committing directly: answered and finished; a bump or a duplicate asks for a resync", arguments: commitCases)
    func direct(_ one: CommitCase) {
        for bumped in [false, true] {
            var machine = Self.direct()
            let step = machine.committed(Self.reply(one.outcome, bumped: bumped))
            #expect(step.answer == one.answer)
            #expect(step.action == .finish)
            #expect(step.asksForResync == (bumped || one.outcome == .duplicateMine || one.outcome == .duplicateOther))
            #expect(machine.isFinished)
        }
    }

    @Test("committing, known not to have run: the reservation is abandoned, the caller told")
    func notRun() {
        for why in [Unavailable.overloaded, .lockTimeout, .ledgerDown] {
            var machine = Self.reserved()
            var step = machine.commitFailed(.notRun(why))
            #expect(step.action == .abandon(Self.held))
            #expect(step.answer == .unavailable(why))
            machine = Self.direct()
            step = machine.commitFailed(.notRun(why))
            #expect(step.action == .finish)
            #expect(step.answer == .unavailable(why))
        }
    }

    @Test(
        "a first attempt whose commit was unknown has replayed nothing if the row is of its own reservation; else it has, and so has a repeat"
    )
    func ownRow() {
        for (outcome, isOwn) in [(CommitOutcome.duplicateMine, true), (.duplicateOther, false)] {
            var machine = Self.reserved()
            _ = machine.commitFailed(.unknown)
            #expect(machine.committed(Self.reply(outcome)).answer == .sold(remaining: 5, replayed: !isOwn))
            machine = Self.reserved(isRepeat: true)
            _ = machine.commitFailed(.unknown)
            #expect(machine.committed(Self.reply(outcome)).answer == .sold(remaining: 5, replayed: true))
            // Whoever was there first may have committed under the reservation that was joined.
            machine = Self.reserving()
            _ = machine.reserveReplied(.joined(fence: 3, token: 9, quantity: 2))
            _ = machine.commitFailed(.unknown)
            #expect(machine.committed(Self.reply(outcome)).answer == .sold(remaining: 5, replayed: true))
        }
    }

    private static func marked(_ mark: Token, isRepeat: Bool = false) -> Reservation {
        var machine = Reservation(request(isRepeat: isRepeat), mark: mark)
        _ = machine.began(throughGate: false)
        return machine
    }

    @Test("a first attempt without a reservation carries its mark, and by it knows its own row after an unknown commit")
    func ownMark() {
        func entry(fence: Fence = 0, token: Token, direction: LedgerEntry.Direction = .out) -> LedgerEntry {
            LedgerEntry(product: ProductID(7), orderID: 1, quantity: 2, remaining: 4, direction: direction, fence: fence, token: token)
        }
        let again = Self.commit(token: 77, firm: true)
        func found() -> Reservation {
            var machine = Self.marked(77)
            #expect(machine.commitFailed(.unknown).action == again)
            let step = machine.committed(Self.reply(.duplicateOther))
            #expect(step.action == .lookUp)
            #expect(step.answer == nil)
            #expect(step.asksForResync)
            return machine
        }
        for (entry, isOwn) in [
            (entry(token: 77), true), (entry(token: 78), false), (entry(token: 0), false), (entry(fence: 3, token: 77), false),
        ] {
            var machine = found()
            let step = machine.lookedUp(entry)
            #expect(step.action == .finish)
            #expect(step.answer == .sold(remaining: 5, replayed: !isOwn))
            #expect(machine.isFinished)
        }
        // What cannot be looked at, or is gone, is asked for again: nothing is told that is not known.
        for event in [{ $0.lookUpFailed() }, { $0.lookedUp(nil) }, { $0.lookedUp(entry(token: 77, direction: .closed)) }]
            as [(inout Reservation) -> Reservation.Step]
        {
            var machine = found()
            let step = event(&machine)
            #expect(step.action == again)
            #expect(step.answer == nil)
            #expect(machine.committed(Self.reply(.duplicateOther)).action == .lookUp)
            #expect(machine.committed(Self.reply(.duplicateOther)).answer == nil)
        }
    }

    @Test("a repeat carries no mark, and a row that is met at once is a replay without a look")
    func withoutMark() {
        var machine = Self.marked(77, isRepeat: true)
        #expect(machine.commitFailed(.unknown).action == Self.commit(firm: true, isRepeat: true))
        #expect(machine.committed(Self.reply(.duplicateOther)).answer == .sold(remaining: 5, replayed: true))
        machine = Self.marked(77)
        #expect(machine.committed(Self.reply(.duplicateOther)).answer == .sold(remaining: 5, replayed: true))
        #expect(machine.isFinished)
        // Without a mark nobody knows whose the row is.
        machine = Self.direct()
        _ = machine.commitFailed(.unknown)
        #expect(machine.committed(Self.reply(.duplicateOther)).answer == .sold(remaining: 5, replayed: true))
        // A reservation has a token of its own.
        machine = Reservation(Self.request(), mark: 77)
        _ = machine.began(throughGate: true)
        #expect(machine.reserveReplied(.reserved(fence: 3, token: 9, left: 0)).action == Self.commit(fence: 3, token: 9, sent: true))
    }

    @Test("committing, unknown: the same key and token again, firm, whatever comes in between")
    func unknown() {
        var machine = Self.reserved()
        let again = Self.commit(fence: 3, token: 9, sent: true, firm: true)
        for failure in [CommitFailure.unknown, .notRun(.ledgerDown), .unknown, .notRun(.overloaded)] {
            let step = machine.commitFailed(failure)
            #expect(step.action == again)
            #expect(step.answer == nil)
        }
        #expect(machine.committed(Self.reply(.duplicateMine)).action == .settle(Self.held))
    }

    @Test("applying: passed and applied end it, behind asks, a failure bumps and is never sent again")
    func applyingAndBumping() {
        for reply in [ApplyReply.applied, .behind, .passed] {
            var machine = Self.applying()
            let step = machine.applied(reply)
            #expect(step.action == .finish)
            #expect(step.asksForResync == (reply == .behind))
            #expect(machine.isFinished)
        }
        var machine = Self.applying()
        #expect(machine.applyFailed().action == .bump)
        #expect(machine.state == .bumping)
        let step = machine.bumped()
        #expect(step.action == .finish)
        #expect(step.asksForResync)
        #expect(machine.isFinished)
    }

    @Test("events of a commit or an apply that is not out change nothing")
    func lateEvents() {
        let states = [Reservation(Self.request()), Self.reserving(), Self.applying(), finished()]
        for before in states {
            var machine = before
            #expect(machine.committed(Self.reply(.committed)).answer == nil)
            #expect(machine.commitFailed(.unknown).action == .finish)
            #expect(machine == before)
        }
        for before in [Reservation(Self.request()), Self.reserving(), Self.reserved(), finished()] {
            var machine = before
            #expect(machine.applyFailed().action == .finish)
            #expect(machine == before)
        }
    }

    private func finished() -> Reservation {
        var machine = Self.direct()
        _ = machine.committed(Self.reply(.committed))
        return machine
    }
}
