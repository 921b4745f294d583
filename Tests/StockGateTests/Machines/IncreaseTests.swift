import StockGate
import Testing

@Suite("Increase: every state, every event")
struct IncreaseTests {
    private static let request = IncreaseRequest(product: ProductID(7), key: "INC-1", orderID: 1, quantity: 2)

    private static func reply(_ outcome: IncreaseOutcome, bumped: Bool = false, isGated: Bool = true) -> IncreaseReply {
        IncreaseReply(outcome: outcome, lockedFence: 3, bumped: bumped, quantity: 2, remaining: 5, isGated: isGated)
    }

    private static func committing() -> Increase {
        var machine = Increase(request)
        _ = machine.began()
        return machine
    }

    private static func applying() -> Increase {
        var machine = committing()
        _ = machine.committed(reply(.added))
        return machine
    }

    @Test("the decrease's key")
    func keys() { #expect(Self.request.decreaseKey == "DEC-1") }

    @Test("start")
    func start() {
        var machine = Increase(Self.request)
        #expect(machine.began().action == .commit)
        #expect(machine.state == .committing(unknownBefore: false))
    }

    @Test("committing: every outcome, of a gated product and of another")
    func committed() {
        let answers: [IncreaseOutcome: IncreaseAnswer] = [
            .added: .added(quantity: 2, remaining: 5, replayed: false), .duplicate: .added(quantity: 2, remaining: 5, replayed: true),
            .nothingToReturn: .nothingToReturn(remaining: 5, replayed: false),
            .duplicateNothing: .nothingToReturn(remaining: 5, replayed: true), .keyReused: .keyReused, .productMissing: .productMissing,
        ]
        for outcome in IncreaseOutcome.allCases {
            for isGated in [true, false] {
                for bumped in [true, false] {
                    var machine = Self.committing()
                    let step = machine.committed(Self.reply(outcome, bumped: bumped, isGated: isGated))
                    #expect(step.answer == answers[outcome])
                    #expect(step.asksForResync == bumped)
                    let applies = outcome == .added && isGated
                    #expect(step.action == (applies ? .apply(3, delta: 2) : .finish))
                    #expect(machine.isFinished == !applies)
                }
            }
        }
    }

    @Test("committing: not run is told, unknown is sent again until answered")
    func commitFailed() {
        var machine = Self.committing()
        let step = machine.commitFailed(.notRun(.ledgerDown))
        #expect(step.action == .finish)
        #expect(step.answer == .unavailable(.ledgerDown))
        machine = Self.committing()
        for failure in [CommitFailure.unknown, .notRun(.ledgerDown), .unknown] {
            let step = machine.commitFailed(failure)
            #expect(step.action == .commit)
            #expect(step.answer == nil)
        }
        #expect(machine.state == .committing(unknownBefore: true))
        #expect(machine.committed(Self.reply(.duplicate, bumped: true)).asksForResync)
    }

    @Test("applying: behind asks; a failure bumps, once")
    func applyingAndBumping() {
        for reply in [ApplyReply.applied, .behind, .passed] {
            var machine = Self.applying()
            let step = machine.applied(reply)
            #expect(step.action == .finish)
            #expect(step.asksForResync == (reply == .behind))
        }
        var machine = Self.applying()
        #expect(machine.applyFailed().action == .bump)
        #expect(machine.bumped().asksForResync)
        #expect(machine.isFinished)
    }

    @Test("events that come in another state change nothing")
    func lateEvents() {
        for before in [Increase(Self.request), Self.applying()] {
            var machine = before
            #expect(machine.commitFailed(.unknown).action == .finish)
            #expect(machine == before)
        }
        for before in [Increase(Self.request), Self.committing()] {
            var machine = before
            #expect(machine.applyFailed().action == .finish)
            #expect(machine == before)
        }
    }
}
