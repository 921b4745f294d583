import Eventually
import Synchronization
import Testing

@Suite struct EventuallyTests {
    private struct Closed: Error, CustomStringConvertible { var description = "no reply: EOF" }

    @Test func aQuestionThatFailsIsAskedAgain() async throws {
        var asked = 0
        try await eventually("the third question is answered", every: .milliseconds(1)) {
            asked += 1
            if asked < 3 { throw Closed() }
            return true
        }
        #expect(asked == 3)
        asked = 0
        let value = try await eventuallyFound("a value", every: .milliseconds(1)) { () -> Int? in
            asked += 1
            if asked == 1 { throw Closed() }
            return asked < 3 ? nil : 7
        }
        #expect(value == 7 && asked == 3)
        asked = 0
        let holds = try await eventually(every: .milliseconds(1)) {
            asked += 1
            if asked < 3 { throw Closed() }
            return true
        }
        #expect(holds && asked == 3)
    }

    @Test func theFailureAtTheBoundSaysWhatFailedLast() async throws {
        var seen = 0
        let failed = await #expect(throws: NotInTime.self) {
            try await eventually("\(seen) seen", within: .milliseconds(5), every: .milliseconds(1)) {
                seen += 1
                throw Closed()
            }
        }
        #expect(failed?.description == "not within \(Duration.milliseconds(5)): \(seen) seen; the last question failed: no reply: EOF")
        #expect(seen > 0)
        await #expect(throws: Closed.self) {
            try await eventually(within: .milliseconds(5), every: .milliseconds(1)) { throw Closed() }
        }
        let unfound = await #expect(throws: NotInTime.self) {
            try await eventuallyFound("a value", within: .milliseconds(5), every: .milliseconds(1)) { () -> Int? in throw Closed() }
        }
        #expect(unfound?.description.hasSuffix("a value; the last question failed: no reply: EOF") == true)
    }

    /// A failure that an answer followed is no news at the bound.
    @Test func whatIsAnsweredNoIsNoFailure() async throws {
        var asked = 0
        let failed = await #expect(throws: NotInTime.self) {
            try await eventually("never", within: .zero) { false }
        }
        #expect(failed?.description == "not within \(Duration.zero): never")
        let holds = try await eventually(within: .milliseconds(50), every: .milliseconds(1)) {
            asked += 1
            if asked == 1 { throw Closed() }
            return false
        }
        // On a machine that is late with everything, the first question may be the only one.
        #expect(!holds || asked == 1)
        await #expect(throws: NotInTime.self) { try await eventuallyFound("none", within: .zero) { () -> Int? in nil } }
    }

    @Test func whatHoldsIsNeverTooLate() async throws {
        try await eventually("it holds", within: .zero) { true }
        #expect(try await eventually(within: .zero) { true })
        #expect(try await eventuallyFound("it", within: .zero) { 1 } == 1)
    }

    @Test(.timeLimit(.minutes(1))) func cancellationEndsTheWait() async throws {
        await #expect(throws: CancellationError.self) {
            try await eventually("never", within: .seconds(600)) { throw CancellationError() }
        }
        let asked = Atomic(0)
        func cancelled(_ wait: @escaping @Sendable () async throws -> Void) async {
            let before = asked.load(ordering: .relaxed)
            let task = Task { try await wait() }
            while asked.load(ordering: .relaxed) == before { await Task.yield() }
            task.cancel()
            await #expect(throws: CancellationError.self) { try await task.value }
        }
        // The questions fail with an error of their own, as those of a client in a cancelled task do.
        await cancelled {
            try await eventually("never", within: .seconds(600), every: .seconds(600)) {
                asked.add(1, ordering: .relaxed)
                throw Closed()
            }
        }
        await cancelled {
            try await eventuallyDone("never", stall: .seconds(600), within: .seconds(600)) {
                asked.add(1, ordering: .relaxed)
                throw Closed()
            }
        }
        // Also at the bound.
        let late = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            try await eventually("never", within: .zero) { false }
        }
        await #expect(throws: CancellationError.self) { try await late.value }
    }

    // MARK: Progress

    @Test func aLookThatFailsIsNoProgress() async throws {
        var left = [3, 2, nil, 1, nil, 0][...]
        try await eventuallyNone("left") {
            guard let next = left.removeFirst() else { throw Closed() }
            return next
        }
        #expect(left.isEmpty)
        let failed = await #expect(throws: NotInTime.self) {
            try await eventuallyAtLeast(2, "come", stall: .milliseconds(1)) { throw Closed() }
        }
        #expect(failed?.description.contains("2 come: no progress") == true)
        #expect(failed?.description.hasSuffix("never answered; the last question failed: no reply: EOF") == true)
        await #expect(throws: NotInTime.self) {
            try await eventuallyAtLeast(2, "come", stall: .milliseconds(1)) { 1 }
        }
        // What moves on is ended by the bound alone.
        var count = 0
        let bounded = await #expect(throws: NotInTime.self) {
            try await eventuallyAtLeast(.max, "come", within: .milliseconds(1)) {
                count += 1
                return count
            }
        }
        #expect(bounded?.description == "not within \(Duration.milliseconds(1)): \(Int.max) come, at \(count)")
        try await eventuallyAtLeast(2, "come", within: .zero) { 2 }
    }
}
