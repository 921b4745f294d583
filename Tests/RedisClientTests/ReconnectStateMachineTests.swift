import NIOCore
import Testing

@testable import RedisClient

@Suite struct ReconnectStateMachineTests {
    typealias Machine = ReconnectStateMachine<String>

    static let start = NIODeadline.uptimeNanoseconds(1_000_000_000)

    static func machine() -> Machine { Machine(minimum: .milliseconds(10), maximum: .milliseconds(100)) }

    static func retry(_ action: Machine.EndedAction) -> Int64? {
        switch action {
        case .lost(let delay), .failed(let delay): delay.nanoseconds / 1_000_000
        case .closed: nil
        }
    }

    @Test func connectsOnceWhenWanted() {
        var machine = Self.machine()
        #expect(machine.ready == nil)
        #expect(machine.wanted() == .connect)
        #expect(machine.wanted() == .wait)
        guard case .prepare("a") = machine.connected("a") else { Issue.record("prepare"); return }
        #expect(machine.wanted() == .wait && machine.ready == nil)
        #expect(machine.prepared(now: Self.start) == .handOut)
        #expect(machine.ready == "a" && machine.wanted() == .wait)
        #expect(machine.prepared(now: Self.start) == .ignore)
        #expect(machine.backoffElapsed() == .wait)
    }

    @Test func backsOffUpToTheMaximum() {
        var machine = Self.machine()
        _ = machine.wanted()
        var delays: [Int64?] = []
        for _ in 0..<6 {
            delays.append(Self.retry(machine.ended(now: Self.start, random: 0)))
            #expect(machine.wanted() == .wait)
            #expect(machine.prepared(now: Self.start) == .ignore)
            #expect(machine.backoffElapsed() == .connect)
        }
        #expect(delays == [10, 20, 40, 80, 100, 100])
    }

    @Test func jitterShortensByAtMostHalf() {
        for random in [0, 0.5, 1, 7] {
            var machine = Self.machine()
            _ = machine.wanted()
            let delay = Self.retry(machine.ended(now: Self.start, random: random)) ?? 0
            #expect(delay >= 5 && delay <= 10)
        }
    }

    @Test func aConnectionThatLastedStartsTheBackoffAgain() {
        var machine = Self.machine()
        _ = machine.wanted()
        for _ in 0..<3 {
            _ = machine.ended(now: Self.start, random: 0)
            _ = machine.backoffElapsed()
        }
        _ = machine.connected("a")
        _ = machine.prepared(now: Self.start)
        // It fell after a moment: no reset.
        guard case .lost(let soon) = machine.ended(now: Self.start + .milliseconds(99), random: 0) else { Issue.record("lost"); return }
        #expect(soon == .milliseconds(80))
        #expect(machine.ready == nil)
        _ = machine.backoffElapsed()
        _ = machine.connected("b")
        _ = machine.prepared(now: Self.start)
        guard case .lost(let later) = machine.ended(now: Self.start + .milliseconds(100), random: 0) else { Issue.record("lost"); return }
        #expect(later == .milliseconds(10))
    }

    @Test func aFailedPreparationIsAFailure() {
        var machine = Self.machine()
        _ = machine.wanted()
        _ = machine.connected("a")
        guard case .failed = machine.ended(now: Self.start, random: 0) else { Issue.record("failed"); return }
        #expect(machine.prepared(now: Self.start) == .ignore)
    }

    @Test func closeIsFinalInEveryState() {
        var idle = Self.machine()
        guard case .done = idle.close(), case .alreadyClosed = idle.close() else { Issue.record("idle"); return }
        #expect(idle.wanted() == .wait && idle.backoffElapsed() == .wait && idle.prepared(now: Self.start) == .ignore)

        var connecting = Self.machine()
        _ = connecting.wanted()
        guard case .awaitAttempt = connecting.close() else { Issue.record("connecting"); return }
        guard case .close("a") = connecting.connected("a") else { Issue.record("a late connection"); return }
        guard case .closed = connecting.ended(now: Self.start, random: 0) else { Issue.record("ended"); return }

        var preparing = Self.machine()
        _ = preparing.wanted()
        _ = preparing.connected("a")
        guard case .drain("a") = preparing.close() else { Issue.record("preparing"); return }

        var ready = Self.machine()
        _ = ready.wanted()
        _ = ready.connected("a")
        _ = ready.prepared(now: Self.start)
        guard case .drain("a") = ready.close() else { Issue.record("ready"); return }
        #expect(ready.ready == nil)

        var waiting = Self.machine()
        _ = waiting.wanted()
        _ = waiting.ended(now: Self.start, random: 0)
        guard case .done = waiting.close() else { Issue.record("backing off"); return }
        #expect(waiting.backoffElapsed() == .wait)
    }
}
