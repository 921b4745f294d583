import NIOCore
import StockContract
import StockGate
import Testing

@testable import ProductServer

/// The machine: every state with every event.
@Suite struct CommandLifeTests {
    typealias Action = CommandLife.Action

    static let start = NIODeadline.uptimeNanoseconds(1_000_000_000)
    static let far = start + .seconds(3_600)

    /// A command of two orders in each of its states.
    enum Stage: String, CaseIterable {
        case received, deciding, waitingToDecide, publishing, waitingToPublish, done
    }

    static func life(_ stage: Stage, isRepeat: Bool = false, giveUpAt: NIODeadline = far) -> CommandLife {
        var life = CommandLife(orders: 2, isRepeat: isRepeat, giveUpAt: giveUpAt)
        if stage == .received { return life }
        _ = life.began()
        if stage == .deciding { return life }
        _ = life.decided(0, .committed(remaining: 7), at: start)
        if stage == .waitingToDecide {
            _ = life.decided(1, nil, at: start)
            return life
        }
        _ = life.decided(1, .committed(remaining: 6), at: start)
        if stage == .publishing { return life }
        _ = life.published(confirmed: stage == .done ? [.result] : [], at: start)
        return life
    }

    @Test func theUsualWay() {
        var life = CommandLife(orders: 2, isRepeat: false, giveUpAt: Self.far)
        #expect(life.began() == .decide([0, 1], asRepeats: false))
        #expect(life.decided(1, .refused(.insufficientStock, remaining: 0), at: Self.start) == .none)
        #expect(life.decided(0, .committed(remaining: 7), at: Self.start) == .publish([.result]))
        #expect(life.verdicts == [.committed(remaining: 7), .refused(.insufficientStock, remaining: 0)])
        #expect(life.published(confirmed: [.result], at: Self.start) == .acknowledge)
        #expect(life.isDone)
    }

    @Test("of a locked product, it stays in hand only where it may; set aside and confirmed, it is acknowledged without a result")
    func setAside() {
        for isDecided in [false, true] {
            var life = CommandLife(orders: 2, isRepeat: false, giveUpAt: Self.far)
            #expect(life.began() == .decide([0, 1], asRepeats: false))
            #expect(life.decided(0, isDecided ? .committed(remaining: 1) : nil, isLocked: true, mayStay: false, at: Self.start) == .none)
            #expect(life.decided(1, nil, isLocked: true, mayStay: false, at: Self.start) == .publish([.aside]))
            #expect(life.isWaitingForRow && !life.isSetAside)
            #expect(life.waitEnded() == .none && life.began() == .none && life.stopped() == .none)
            #expect(life.published(confirmed: [.aside], at: Self.start) == .acknowledge)
            #expect(life.isSetAside && life.isDone)
        }
        var known = CommandLife(orders: 1, isRepeat: false, giveUpAt: Self.far)
        #expect(known.began(mayStay: false) == .publish([.aside]))
        #expect(known.published(confirmed: [.aside], at: Self.start) == .acknowledge)
    }

    @Test("what cannot be set aside stays in hand and is decided again, as a repeat")
    func notSetAside() {
        var life = CommandLife(orders: 1, isRepeat: false, giveUpAt: Self.far)
        _ = life.began()
        #expect(life.decided(0, nil, isLocked: true, mayStay: false, at: Self.start) == .publish([.aside]))
        #expect(life.published(confirmed: [], at: Self.start) == .wait(Duration.milliseconds(50)))
        #expect(life.isWaitingForRow && !life.isSetAside)
        #expect(life.waitEnded() == .decide([0], asRepeats: true))
        #expect(!life.isWaitingForRow)
        #expect(life.decided(0, .committed(remaining: 1), isLocked: false, mayStay: false, at: Self.start) == .publish([.result]))
        // One that waits for anything else than a row is not set aside, nor is one when the server stops.
        life = CommandLife(orders: 1, isRepeat: false, giveUpAt: Self.far)
        _ = life.began()
        #expect(life.decided(0, nil, isLocked: false, mayStay: false, at: Self.start) == .wait(Duration.milliseconds(50)))
        life = CommandLife(orders: 1, isRepeat: false, giveUpAt: Self.far)
        _ = life.began()
        _ = life.stopped()
        #expect(life.decided(0, nil, isLocked: true, mayStay: false, at: Self.start) == .requeue(.stopping))
        life = CommandLife(orders: 1, isRepeat: false, giveUpAt: Self.start)
        _ = life.began(mayStay: false)
        #expect(life.published(confirmed: [], at: Self.start) == .requeue(.undecided))
        // Poison is no product's.
        var poison = CommandLife(poison: [.deadLetter], giveUpAt: Self.far)
        #expect(poison.began(mayStay: false) == .publish([.deadLetter]))
    }

    @Test func everyStateWithEveryEvent() {
        typealias Event = (name: String, apply: (inout CommandLife) -> Action)
        let events: [Event] = [
            ("began", { $0.began() }),
            ("decided", { $0.decided(1, .committed(remaining: 5), at: Self.start) }),
            ("unknown", { $0.decided(1, nil, at: Self.start) }),
            ("waitEnded", { $0.waitEnded() }),
            ("confirmed", { $0.published(confirmed: [.result], at: Self.start) }),
            ("unconfirmed", { $0.published(confirmed: [], at: Self.start) }),
            ("stopped", { $0.stopped() }),
        ]
        let expected: [Stage: [String: Action]] = [
            .received: ["began": .decide([0, 1], asRepeats: false), "stopped": .requeue(.stopping)],
            .deciding: [:],
            .waitingToDecide: ["waitEnded": .decide([1], asRepeats: true), "stopped": .requeue(.stopping)],
            .publishing: ["confirmed": .acknowledge, "unconfirmed": .wait(.milliseconds(50))],
            .waitingToPublish: ["waitEnded": .publish([.result]), "stopped": .requeue(.stopping)],
            .done: [:],
        ]
        for stage in Stage.allCases {
            for event in events {
                var life = Self.life(stage)
                #expect(event.apply(&life) == expected[stage]?[event.name] ?? .none, "\(stage.rawValue) + \(event.name)")
            }
        }
    }

    @Test func unknownOrdersAloneAreAskedAgainAsRepeats() {
        var life = CommandLife(orders: 3, isRepeat: false, giveUpAt: Self.far)
        _ = life.began()
        _ = life.decided(0, .committed(remaining: 9), at: Self.start)
        _ = life.decided(1, nil, at: Self.start)
        #expect(life.decided(2, nil, at: Self.start) == .wait(.milliseconds(50)))
        #expect(life.waitEnded() == .decide([1, 2], asRepeats: true))
        _ = life.decided(1, nil, at: Self.start)
        #expect(life.decided(2, .committed(remaining: 8), at: Self.start) == .wait(.milliseconds(100)))
        #expect(life.waitEnded() == .decide([1], asRepeats: true))
        #expect(life.decided(1, .refused(.insufficientStock, remaining: nil), at: Self.start) == .publish([.result]))
    }

    @Test func repeatsAreRepeatsFromTheFirstRound() {
        var life = CommandLife(orders: 1, isRepeat: true, giveUpAt: Self.far)
        #expect(life.began() == .decide([0], asRepeats: true))
    }

    @Test func waitsGrowToTheirBoundAndEndInTheQueue() {
        var life = CommandLife(orders: 1, isRepeat: false, giveUpAt: Self.start + .seconds(10))
        var now = Self.start
        var waits: [Duration] = []
        var action = life.began()
        while case .decide = action {
            action = life.decided(0, nil, at: now)
            guard case .wait(let wait) = action else { break }
            waits.append(wait)
            now = now + TimeAmount(wait)
            action = life.waitEnded()
        }
        #expect(action == .requeue(.undecided))
        #expect(
            waits.prefix(6) == [
                .milliseconds(50), .milliseconds(100), .milliseconds(200), .milliseconds(400), .milliseconds(800), .milliseconds(1600),
            ]
        )
        #expect(waits.last == .seconds(2))
        #expect(now < Self.start + .seconds(10))
    }

    @Test func whatIsNotConfirmedIsPublishedAgain() {
        var life = CommandLife(poison: [.deadLetter, .result], giveUpAt: Self.start + .milliseconds(100))
        #expect(life.began() == .publish([.deadLetter, .result]))
        #expect(life.published(confirmed: [.deadLetter], at: Self.start) == .wait(.milliseconds(50)))
        #expect(life.waitEnded() == .publish([.result]))
        #expect(life.published(confirmed: [], at: Self.start + .milliseconds(50)) == .requeue(.unpublished))
        #expect(life.published(confirmed: [.result], at: Self.start) == .none)
    }

    @Test func anUnknownProductIsADeadLetterToo() {
        var life = CommandLife(orders: 1, isRepeat: false, giveUpAt: Self.far)
        _ = life.began()
        #expect(life.decided(0, .refused(.productNotFound, remaining: nil), at: Self.start) == .publish([.result, .deadLetter]))
    }

    @Test func aStopLetsWhatIsUnderWayEnd() {
        var deciding = Self.life(.deciding)
        #expect(deciding.stopped() == .none)
        _ = deciding.decided(0, .committed(remaining: 1), at: Self.start)
        var other = deciding
        #expect(deciding.decided(1, .committed(remaining: 0), at: Self.start) == .publish([.result]))
        #expect(deciding.published(confirmed: [.result], at: Self.start) == .acknowledge)
        #expect(other.decided(1, nil, at: Self.start) == .requeue(.stopping))
        var publishing = Self.life(.publishing)
        #expect(publishing.stopped() == .none)
        #expect(publishing.published(confirmed: [], at: Self.start) == .requeue(.stopping))
    }

    @Test func anAnswerTwiceCountsOnce() {
        var life = Self.life(.deciding)
        _ = life.decided(0, .committed(remaining: 1), at: Self.start)
        #expect(life.decided(0, .committed(remaining: 2), at: Self.start) == .none)
        #expect(life.decided(7, .committed(remaining: 2), at: Self.start) == .none)
        #expect(life.decided(1, .committed(remaining: 0), at: Self.start) == .publish([.result]))
        #expect(life.verdicts[0] == .committed(remaining: 1))
    }

    @Test func whatAnswersMean() {
        typealias Verdict = CommandLife.Verdict
        #expect(Verdict(.sold(remaining: 3, replayed: true), asRepeat: true) == .committed(remaining: 3))
        #expect(Verdict(.sold(remaining: 3, replayed: false), asRepeat: false) == .committed(remaining: 3))
        #expect(Verdict(.sold(remaining: 3, replayed: true), asRepeat: false) == .committed(remaining: 3), "sent twice as the first")
        #expect(Verdict(.insufficient(remaining: 2), asRepeat: false) == .refused(.insufficientStock, remaining: 2))
        #expect(Verdict(.keyClosed, asRepeat: true) == .refused(.insufficientStock, remaining: nil))
        #expect(Verdict(.keyClosed, asRepeat: false) == .refused(.keyClosed, remaining: nil))
        #expect(Verdict(.keyReused, asRepeat: false) == .refused(.keyReused, remaining: nil))
        #expect(Verdict(.notOnSale, asRepeat: false) == .refused(.invalidState, remaining: nil))
        #expect(Verdict(.productMissing, asRepeat: false) == .refused(.productNotFound, remaining: nil))
        for why in [Unavailable.overloaded, .lockTimeout, .noAnswer, .ledgerDown] {
            #expect(Verdict(.unavailable(why), asRepeat: true) == nil)
        }
    }
}
