import StockGate
import Testing

@Suite("Resync: every state, every event")
struct ResyncTests {
    private static let ledger = Resync.LedgerState(fence: 5, stock: 9, isOnSale: true)

    private static func view(fence: Fence = 4, isLoaded: Bool = true) -> GateView {
        GateView(dataset: "d:m", stamp: isLoaded ? "d:m" : "c:m", fence: fence, counter: 9, pending: 0)
    }

    private static func machine(forced: Bool = false, upTo steps: Int) -> Resync {
        var machine = Resync(forced: forced)
        if steps > 0 { _ = machine.began() }
        if steps > 1 { _ = machine.looked(view()) }
        if steps > 2, !forced { _ = machine.fenceRead(5) }
        if steps > 3 { _ = machine.bumped(ledger) }
        return machine
    }

    @Test("a view is loaded if a fence is in and its stamp is the dataset")
    func views() {
        #expect(Self.view().isLoaded)
        #expect(!Self.view(fence: 0).isLoaded)
        #expect(!Self.view(isLoaded: false).isLoaded)
    }

    @Test("looking: forced or not loaded bumps at once, else the fences are compared")
    func looking() {
        for forced in [true, false] {
            for isLoaded in [true, false] {
                var machine = Self.machine(forced: forced, upTo: 1)
                let action = machine.looked(Self.view(isLoaded: isLoaded))
                #expect(action == (forced || !isLoaded ? .bump : .readFence))
            }
        }
    }

    @Test("comparing: equal fences need nothing, others bump, a missing product ends it")
    func comparing() {
        let cases: [(Fence?, Resync.Action, Resync.Outcome?)] = [
            (4, .finish, .notNeeded), (5, .bump, nil), (nil, .finish, .productMissing), (3, .raise(above: 4), nil),
        ]
        for (fence, action, outcome) in cases {
            var machine = Self.machine(upTo: 2)
            #expect(machine.fenceRead(fence) == action)
            #expect(machine.outcome == outcome)
        }
    }

    @Test("bumping: installs what the statement returned, into the dataset that was read before it")
    func bumping() {
        var machine = Self.machine(forced: true, upTo: 2)
        #expect(machine.bumped(Self.ledger) == .install(dataset: "d:m", Self.ledger))
        machine = Self.machine(forced: true, upTo: 2)
        #expect(machine.bumped(nil) == .finish)
        #expect(machine.outcome == .productMissing)
    }

    @Test("Redis is ahead: the fence is raised above all that Redis names, whoever sees it")
    func ahead() {
        var view = Self.view()
        view.highestFence = 6
        var machine = Resync(forced: false)
        _ = machine.began()
        #expect(machine.looked(view) == .readFence)
        #expect(machine.fenceRead(4) == .raise(above: 6))
        let above = Resync.LedgerState(fence: 7, stock: 9, isOnSale: true)
        #expect(machine.raised(above) == .install(dataset: "d:m", above))
        for (fence, isAhead) in [(Fence(5), true), (6, true), (7, false)] {
            machine = Resync(forced: true)
            _ = machine.began()
            #expect(machine.looked(view) == .bump)
            let state = Resync.LedgerState(fence: fence, stock: 9, isOnSale: true)
            #expect(machine.bumped(state) == (isAhead ? .raise(above: 6) : .install(dataset: "d:m", state)))
        }
    }

    @Test("the ledger has gone back: the fence leaps above all that Redis and the ledger name, and no further than a fence may be")
    func leaping() {
        let last = Resync.lastFence.rawValue
        for (inRedis, inLedger, above) in [
            (Int64(6), Int64(5), 6 + Resync.leap), (6, 9, 9 + Resync.leap), (0, 1, 1 + Resync.leap), (last, 5, last), (5, last, last),
            (last - Resync.leap - 1, 1, last - 1), (last + 1, 5, 5 + Resync.leap),
        ] {
            var view = Self.view(isLoaded: inRedis > 0)
            view.highestFence = Fence(inRedis)
            var machine = Resync(forced: false, leaping: true)
            #expect(machine.isForced)
            _ = machine.began()
            #expect(machine.looked(view) == .bump)
            #expect(machine.bumped(.init(fence: Fence(inLedger), stock: 9, isOnSale: true)) == .raise(above: Fence(above)))
            let raised = Resync.LedgerState(fence: Fence(above + 1), stock: 9, isOnSale: true)
            #expect(machine.raised(raised) == .install(dataset: "d:m", raised))
        }
    }

    @Test("another ledger's data ends it; one without a name, or for a ledger without one, does not")
    func foreign() {
        for (theirs, ours, isForeign) in [("a", "b", true), ("a", "a", false), (nil, "b", false), ("a", "", false)]
            as [(String?, String, Bool)]
        {
            for forced in [true, false] {
                var view = Self.view()
                view.ledger = theirs
                var machine = Resync(forced: forced, ledger: ours)
                _ = machine.began()
                let action = machine.looked(view)
                #expect((action == .finish) == isForeign)
                #expect(machine.outcome == (isForeign ? .foreign("a") : nil))
            }
        }
        var machine = Self.machine(forced: true, upTo: 4)
        #expect(machine.installReplied(.foreign) == .look)
        #expect(Resync.Outcome.foreign("a").hasSucceeded)
    }

    @Test("installing: installed, newer, or start over a bounded number of times")
    func installing() {
        let cases: [(InstallReply, Resync.Outcome)] = [(.installed, .installed(Self.ledger)), (.newer, .newer)]
        for (reply, outcome) in cases {
            var machine = Self.machine(upTo: 4)
            #expect(machine.installReplied(reply) == .finish)
            #expect(machine.outcome == outcome)
            #expect(machine.outcome?.hasSucceeded == true)
        }
        var machine = Self.machine(forced: true, upTo: 4)
        for _ in 1..<Resync.maximumRounds {
            #expect(machine.installReplied(.datasetChanged) == .look)
            _ = machine.looked(Self.view())
            _ = machine.bumped(Self.ledger)
        }
        #expect(machine.installReplied(.datasetChanged) == .finish)
        #expect(machine.outcome == .failed)
        #expect(machine.outcome?.hasSucceeded == false)
    }

    @Test("a failed step ends it, wherever it is")
    func failures() {
        for steps in 1...4 {
            var machine = Self.machine(upTo: steps)
            #expect(!machine.isFinished)
            #expect(machine.stepFailed() == .finish)
            #expect(machine.outcome == .failed)
        }
    }

    @Test("events that come in another state change nothing")
    func lateEvents() {
        for steps in 0...4 {
            let before = Self.machine(upTo: steps)
            var machine = before
            if steps != 2 { #expect(machine.fenceRead(7) == .finish) }
            if steps != 3 { #expect(machine.bumped(Self.ledger) == .finish) }
            if steps != 4 { #expect(machine.installReplied(.installed) == .finish) }
            #expect(machine == before)
        }
    }
}

@Suite("Resync schedule: every state, every event")
struct ResyncScheduleTests {
    @Test("idle runs at once, and not again before the interval is over")
    func interval() {
        var schedule = ResyncSchedule(interval: 100)
        #expect(schedule.isIdle)
        #expect(schedule.asked(forced: false, at: 1000) == .run(forced: false))
        #expect(schedule.ended(succeeded: true, at: 1010) == .none)
        #expect(schedule.isIdle)
        #expect(schedule.asked(forced: false, at: 1050) == .wait(until: 1100))
        #expect(schedule.asked(forced: true, at: 1060) == .none)
        #expect(schedule.timerFired(at: 1090) == .wait(until: 1100))
        #expect(schedule.timerFired(at: 1100) == .run(forced: true))
    }

    @Test("what is asked while one runs is kept, forced if anyone forces")
    func kept() {
        var schedule = ResyncSchedule(interval: 0)
        _ = schedule.asked(forced: false, at: 0)
        #expect(schedule.asked(forced: false, at: 1) == .none)
        #expect(schedule.asked(forced: true, at: 2) == .none)
        #expect(schedule.asked(forced: false, at: 3) == .none)
        #expect(schedule.ended(succeeded: true, at: 4) == .run(forced: true))
        #expect(schedule.ended(succeeded: true, at: 5) == .none)
    }

    @Test("a failed run is asked for again, after a pause that doubles up to a bound and is forgotten by a success")
    func failed() {
        var schedule = ResyncSchedule(interval: 100_000_000)
        _ = schedule.asked(forced: false, at: 0)
        var now: UInt64 = 0
        for pause in [UInt64(200_000_000), 400_000_000, 800_000_000, ResyncSchedule.maximumBackoff, ResyncSchedule.maximumBackoff] {
            #expect(schedule.ended(succeeded: false, at: now) == .wait(until: now + pause))
            now += pause
            #expect(schedule.timerFired(at: now - 1) == .wait(until: now))
            #expect(schedule.timerFired(at: now) == .run(forced: false))
        }
        #expect(schedule.ended(succeeded: true, at: now) == .none)
        #expect(schedule.asked(forced: false, at: now) == .wait(until: now + 100_000_000))
    }

    @Test("events that come in another state change nothing")
    func lateEvents() {
        var schedule = ResyncSchedule(interval: 100)
        #expect(schedule.timerFired(at: 5) == .none)
        #expect(schedule.ended(succeeded: true, at: 5) == .none)
        _ = schedule.asked(forced: false, at: 5)
        #expect(schedule.timerFired(at: 500) == .none)
        _ = schedule.ended(succeeded: true, at: 6)
        _ = schedule.asked(forced: false, at: 7)
        #expect(schedule.ended(succeeded: true, at: 8) == .none)
        #expect(!schedule.isIdle)
    }
}
