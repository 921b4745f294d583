import NIOCore
import SeededRandom
import Testing

@testable import RedisClient

/// Completions are numbers here; time is given.
@Suite struct ConnectionStateMachineTests {
    typealias Machine = ConnectionStateMachine<Int>

    static func at(_ milliseconds: Int) -> NIODeadline { .uptimeNanoseconds(1_000_000_000) + .milliseconds(Int64(milliseconds)) }

    static func machine(maximumPending: Int = 8) -> Machine {
        var machine = Machine(maximumPending: maximumPending, silenceLimit: .milliseconds(1000))
        machine.connected()
        return machine
    }

    /// Enqueues and returns the id.
    static func put(_ machine: inout Machine, _ number: Int, deadline: Int = 50, now: Int = 0) throws -> RedisCommandID {
        guard case .accept(let id, _, _) = machine.enqueue(number, deadline: at(deadline), now: at(now), hasRoom: true) else {
            throw RedisError(.queueFull)
        }
        return id
    }

    static func code(_ action: Machine.EnqueueAction) -> RedisError.Code? {
        if case .reject(_, let error) = action { error.code } else { nil }
    }

    static func completed(_ action: Machine.ReplyAction) -> Int? {
        if case .complete(let number, _) = action { number } else { nil }
    }

    @Test func everyEventBeforeConnecting() {
        var machine = Machine(maximumPending: 8, silenceLimit: .seconds(1))
        #expect(Self.code(machine.enqueue(1, deadline: Self.at(50), now: Self.at(0), hasRoom: true)) == .notConnected)
        machine.flushed()
        machine.receivedBytes(now: Self.at(0))
        guard case .ignore = machine.receivedReply() else { Issue.record("a reply"); return }
        guard case .ignore = machine.hitDeadline(now: Self.at(0)) else { Issue.record("a deadline"); return }
        guard case .tooLate = machine.cancel(RedisCommandID(number: 0)) else { Issue.record("a cancellation"); return }
        #expect(!machine.isOpen)
        machine.connected()
        #expect(machine.isOpen)
    }

    @Test func drainedOrClosedBeforeConnectingStaysClosed() {
        var drained = Machine(maximumPending: 8, silenceLimit: .seconds(1))
        guard case .close = drained.drain() else { Issue.record("drain"); return }
        drained.connected()
        #expect(!drained.isOpen)
        var closed = Machine(maximumPending: 8, silenceLimit: .seconds(1))
        #expect(closed.close(RedisError(.connectionLost(sent: true))).isEmpty)
        closed.connected()
        #expect(!closed.isOpen)
    }

    @Test func everyEventAfterClosing() throws {
        var machine = Self.machine()
        let id = try Self.put(&machine, 1)
        machine.flushed()
        let failed = machine.close(RedisError(.connectionLost(sent: true)))
        #expect(failed.sent == [1] && failed.unsent.isEmpty)
        #expect(Self.code(machine.enqueue(2, deadline: Self.at(50), now: Self.at(0), hasRoom: true)) == .notConnected)
        guard case .ignore = machine.receivedReply() else { Issue.record("a reply"); return }
        guard case .ignore = machine.hitDeadline(now: Self.at(99)) else { Issue.record("a deadline"); return }
        guard case .tooLate = machine.cancel(id) else { Issue.record("a cancellation"); return }
        guard case .ignore = machine.drain() else { Issue.record("drain"); return }
        #expect(machine.close(RedisError(.closed)).isEmpty)
        machine.connected()
        #expect(!machine.isOpen && machine.pendingCount == 0)
    }

    @Test func repliesAnswerInOrder() throws {
        var machine = Self.machine()
        for number in 1...3 { _ = try Self.put(&machine, number) }
        machine.flushed()
        #expect(Self.completed(machine.receivedReply()) == 1)
        _ = try Self.put(&machine, 4)
        machine.flushed()
        #expect((2...4).map { _ in Self.completed(machine.receivedReply()) } == [2, 3, 4])
        guard case .unexpected = machine.receivedReply() else { Issue.record("a reply too many"); return }
    }

    @Test func aReplyToWhatWasNotSentIsUnexpected() throws {
        var machine = Self.machine()
        _ = try Self.put(&machine, 1)
        guard case .unexpected = machine.receivedReply() else { Issue.record("a reply to an unsent command"); return }
    }

    @Test func oneFlushAndOneTimerPerTurn() throws {
        var machine = Self.machine()
        guard case .accept(_, true, let arm?) = machine.enqueue(1, deadline: Self.at(50), now: Self.at(0), hasRoom: true) else {
            Issue.record("the first command schedules a flush and a timer")
            return
        }
        #expect(arm == Self.at(50))
        guard case .accept(_, false, nil) = machine.enqueue(2, deadline: Self.at(51), now: Self.at(1), hasRoom: true) else {
            Issue.record("the second does neither")
            return
        }
        guard case .accept(_, false, let earlier?) = machine.enqueue(3, deadline: Self.at(20), now: Self.at(1), hasRoom: true) else {
            Issue.record("an earlier deadline arms the timer again")
            return
        }
        #expect(earlier == Self.at(20))
        machine.flushed()
        guard case .accept(_, true, nil) = machine.enqueue(4, deadline: Self.at(60), now: Self.at(2), hasRoom: true) else {
            Issue.record("the first after a flush schedules the next")
            return
        }
    }

    @Test func boundsRefuseAtOnce() throws {
        var machine = Self.machine(maximumPending: 2)
        #expect(Self.code(machine.enqueue(1, deadline: Self.at(0), now: Self.at(0), hasRoom: true)) == .timedOut(sent: false))
        #expect(Self.code(machine.enqueue(1, deadline: Self.at(50), now: Self.at(0), hasRoom: false)) == .queueFull)
        _ = try Self.put(&machine, 1)
        _ = try Self.put(&machine, 2)
        #expect(Self.code(machine.enqueue(3, deadline: Self.at(50), now: Self.at(0), hasRoom: true)) == .queueFull)
        machine.flushed()
        // A timed out command still takes its place: its reply is owed.
        _ = machine.hitDeadline(now: Self.at(50))
        #expect(Self.code(machine.enqueue(3, deadline: Self.at(99), now: Self.at(51), hasRoom: true)) == .queueFull)
        guard case .drop = machine.receivedReply() else { Issue.record("a late reply"); return }
        _ = try Self.put(&machine, 3, deadline: 99, now: 51)
    }

    @Test func lateRepliesNeverShiftTheQueue() throws {
        var machine = Self.machine()
        _ = try Self.put(&machine, 1, deadline: 10)
        _ = try Self.put(&machine, 2, deadline: 20)
        let third = try Self.put(&machine, 3, deadline: 90)
        machine.flushed()
        guard case .expire(let expired, let arm?, false) = machine.hitDeadline(now: Self.at(10)) else { Issue.record("expire"); return }
        #expect(expired.sent == [1] && expired.unsent.isEmpty && arm == Self.at(20))
        guard case .complete(3, sent: true, close: false) = machine.cancel(third) else { Issue.record("cancel"); return }
        guard case .tooLate = machine.cancel(third) else { Issue.record("cancelled twice"); return }
        _ = try Self.put(&machine, 4, deadline: 95, now: 11)
        machine.flushed()
        guard case .drop = machine.receivedReply() else { Issue.record("reply to 1"); return }
        #expect(Self.completed(machine.receivedReply()) == 2)
        guard case .drop = machine.receivedReply() else { Issue.record("reply to 3"); return }
        #expect(Self.completed(machine.receivedReply()) == 4)
        #expect(machine.pendingCount == 0)
    }

    @Test func deadlinesInAnyOrder() throws {
        var machine = Self.machine()
        for (number, deadline) in [(1, 90), (2, 30), (3, 60), (4, 30)] { _ = try Self.put(&machine, number, deadline: deadline) }
        machine.flushed()
        guard case .expire(let first, let next?, false) = machine.hitDeadline(now: Self.at(30)) else { Issue.record("expire"); return }
        #expect(first.sent == [2, 4] && next == Self.at(60))
        guard case .expire(let second, let last?, false) = machine.hitDeadline(now: Self.at(60)) else { Issue.record("expire"); return }
        #expect(second.sent == [3] && last == Self.at(90))
        #expect(Self.completed(machine.receivedReply()) == 1)
    }

    @Test func unsentCommandsFailAsUnsent() throws {
        var machine = Self.machine()
        _ = try Self.put(&machine, 1)
        machine.flushed()
        let second = try Self.put(&machine, 2)
        _ = try Self.put(&machine, 3)
        guard case .complete(2, sent: false, close: false) = machine.cancel(second) else { Issue.record("cancel"); return }
        let failed = machine.close(RedisError(.connectionLost(sent: true)))
        #expect(failed.sent == [1] && failed.unsent == [3])
    }

    @Test func timersAreAtLeastAMillisecondApart() throws {
        var machine = Self.machine()
        _ = try Self.put(&machine, 1, deadline: 10)
        _ = machine.enqueue(2, deadline: Self.at(10) + .microseconds(10), now: Self.at(0), hasRoom: true)
        machine.flushed()
        guard case .expire(let expired, let arm?, false) = machine.hitDeadline(now: Self.at(10)) else { Issue.record("expire"); return }
        #expect(expired.sent == [1] && arm == Self.at(11))
    }

    @Test func silenceEndsTheConnection() throws {
        var machine = Self.machine()
        _ = try Self.put(&machine, 1, deadline: 10)
        _ = try Self.put(&machine, 2, deadline: 5000)
        machine.flushed()
        guard case .expire(_, let arm?, false) = machine.hitDeadline(now: Self.at(10)) else { Issue.record("expire"); return }
        #expect(arm == Self.at(1000))
        // Bytes are progress, even without a whole reply.
        machine.receivedBytes(now: Self.at(500))
        guard case .expire(_, let later?, false) = machine.hitDeadline(now: Self.at(1000)) else { Issue.record("expire"); return }
        #expect(later == Self.at(1500))
        guard case .silent(let expired, let lost) = machine.hitDeadline(now: Self.at(1500)) else { Issue.record("silent"); return }
        #expect(expired.isEmpty && lost.sent == [2])
        #expect(!machine.isOpen)
    }

    @Test func silenceDoesNotCountWhileNothingIsOutstanding() throws {
        var machine = Self.machine()
        _ = try Self.put(&machine, 1)
        machine.flushed()
        _ = machine.receivedReply()
        guard case .expire(let expired, nil, false) = machine.hitDeadline(now: Self.at(50)) else { Issue.record("expire"); return }
        #expect(expired.isEmpty)
        _ = try Self.put(&machine, 2, deadline: 90_050, now: 90_000)
        machine.flushed()
        guard case .expire(let late, _, false) = machine.hitDeadline(now: Self.at(90_050)) else { Issue.record("expire"); return }
        #expect(late.sent == [2])
    }

    @Test func drainingWaitsForThoseWhoWait() throws {
        var machine = Self.machine()
        _ = try Self.put(&machine, 1)
        let second = try Self.put(&machine, 2)
        machine.flushed()
        guard case .wait = machine.drain(), case .wait = machine.drain() else { Issue.record("drain"); return }
        #expect(Self.code(machine.enqueue(3, deadline: Self.at(50), now: Self.at(0), hasRoom: true)) == .closed)
        machine.connected()
        machine.receivedBytes(now: Self.at(1))
        guard case .complete(1, close: false) = machine.receivedReply() else { Issue.record("reply"); return }
        guard case .complete(2, sent: true, close: true) = machine.cancel(second) else { Issue.record("cancel"); return }
        #expect(!machine.isOpen)
    }

    @Test(arguments: ["reply", "deadline", "close", "silence"])
    func drainingEnds(by event: String) throws {
        var machine = Self.machine()
        _ = try Self.put(&machine, 1, deadline: event == "silence" ? 5000 : 50)
        guard case .wait = machine.drain() else { Issue.record("drain"); return }
        machine.flushed()
        switch event {
        case "reply":
            guard case .complete(1, close: true) = machine.receivedReply() else { Issue.record("reply"); return }
        case "deadline":
            guard case .expire(let expired, nil, close: true) = machine.hitDeadline(now: Self.at(50)) else {
                Issue.record("expire"); return
            }
            #expect(expired.sent == [1])
        case "close": #expect(machine.close(RedisError(.closed)).sent == [1])
        default:
            guard case .silent(_, let lost) = machine.hitDeadline(now: Self.at(1000)) else { Issue.record("silent"); return }
            #expect(lost.sent == [1])
        }
        #expect(!machine.isOpen)
        #expect(Self.code(machine.enqueue(3, deadline: Self.at(9000), now: Self.at(0), hasRoom: true)) != nil)
    }

    @Test func anIdleConnectionDrainsAtOnce() {
        var machine = Self.machine()
        guard case .close = machine.drain() else { Issue.record("drain"); return }
        #expect(!machine.isOpen)
    }

    /// Random events against a plain model: each command is completed exactly once, and a reply only ever reaches the command that it answers.
    @Test(arguments: 0..<50 as Range<UInt64>)
    func randomEventsKeepTheOrder(seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        var machine = Self.machine(maximumPending: 20)
        var now = 0
        var next = 0
        // What the server owes, in its order, as the model sees it: numbers, in flight or still unsent.
        var owed: [Int] = []
        var unsent = 0
        var ids: [Int: RedisCommandID] = [:]
        var completed: [Int: Int] = [:]
        for _ in 0..<500 {
            switch random.next() % 6 {
            case 0, 1:
                let deadline = now + 1 + Int(random.next() % 100)
                if case .accept(let id, _, _) = machine.enqueue(next, deadline: Self.at(deadline), now: Self.at(now), hasRoom: true) {
                    ids[next] = id
                    owed.append(next)
                    unsent += 1
                } else {
                    #expect(owed.count == 20)
                    completed[next, default: 0] += 1
                }
                next += 1
            case 2:
                machine.flushed()
                unsent = 0
            case 3 where owed.count > unsent:
                machine.receivedBytes(now: Self.at(now))
                let expected = owed.removeFirst()
                switch machine.receivedReply() {
                case .complete(let number, _):
                    #expect(number == expected)
                    completed[number, default: 0] += 1
                case .drop: #expect(completed[expected] == 1)
                case .unexpected, .ignore: Issue.record("seed \(seed): a reply was not taken")
                }
            case 4:
                now += Int(random.next() % 20)
                switch machine.hitDeadline(now: Self.at(now)) {
                case .expire(let failed, _, _): for number in failed.sent + failed.unsent { completed[number, default: 0] += 1 }
                case .silent(let expired, let lost):
                    for number in expired.sent + expired.unsent + lost.sent + lost.unsent { completed[number, default: 0] += 1 }
                    #expect((0..<next).allSatisfy { completed[$0] == 1 }, "seed \(seed)")
                    return
                case .ignore: Issue.record("seed \(seed): closed")
                }
            default:
                let number = Int(random.next() % UInt64(next + 1))
                guard let id = ids[number], case .complete(let cancelled, _, _) = machine.cancel(id) else { continue }
                #expect(cancelled == number)
                completed[number, default: 0] += 1
            }
            #expect(machine.pendingCount == owed.count)
        }
        let rest = machine.close(RedisError(.connectionLost(sent: true)))
        for number in rest.sent + rest.unsent { completed[number, default: 0] += 1 }
        #expect((0..<next).allSatisfy { completed[$0] == 1 }, "seed \(seed)")
    }
}
