import CircuitBreaker
import Synchronization
import Testing

@testable import StockGate

@Suite("Latch: a value that comes later")
struct LatchTests {
    @Test("Who waits and who comes later get the first value")
    func opens() async throws {
        let latch = Latch<Int>()
        let waiting = Task { try await latch.value() }
        // Let it wait, though it would get the same value if it came too late for that.
        await Task.yield()
        latch.open(1)
        latch.open(2)
        #expect(try await waiting.value == 1)
        #expect(try await latch.value() == 1)
    }

    @Test("Closing answers who waits and who comes later, and lets go of the value", .timeLimit(.minutes(1)))
    func closes() async {
        final class Thing: Sendable {}
        let latch = Latch<Thing>()
        weak var thing: Thing?
        do {
            let made = Thing()
            thing = made
            latch.open(made)
        }
        #expect(thing != nil)
        latch.close()
        #expect(thing == nil)
        await #expect(throws: CancellationError.self) { try await latch.value() }

        let shut = Latch<Int>()
        let waiting = Task { try await shut.value() }
        await Task.yield()
        shut.close()
        await #expect(throws: CancellationError.self) { try await waiting.value }
        shut.open(1)
        await #expect(throws: CancellationError.self) { try await shut.value() }
    }

    @Test("A task that is cancelled waits no longer, and the others go on waiting", .timeLimit(.minutes(1)))
    func cancels() async throws {
        let latch = Latch<Int>()
        let cancelled = Task { try await latch.value() }
        let other = Task { try await latch.value() }
        await Task.yield()
        cancelled.cancel()
        await #expect(throws: CancellationError.self) { try await cancelled.value }
        latch.open(3)
        #expect(try await other.value == 3)
    }
}

@Suite("Outage: what a recovery has done counts for one")
struct OutageTests {
    @Test("A recovery that fails leaves the outage as it was; one that is used ends it")
    func ends() {
        let outage = Outage()
        let number = outage.number
        outage.recoveryBegan()
        #expect(outage.isRecovering)
        outage.recoveryFailed()
        #expect(!outage.isRecovering)
        #expect(outage.number == number)
        outage.recoveryBegan()
        outage.recoveryDone()
        #expect(outage.isRecovering, "it is not used yet")
        #expect(outage.decided(isUsed: true) == number)
        #expect(!outage.isRecovering)
        #expect(outage.number == number + 1)
    }

    @Test("A recovery that is done and not used counts for the next attempt")
    func unused() {
        let outage = Outage()
        let number = outage.number
        outage.recoveryBegan()
        outage.recoveryDone()
        #expect(outage.decided(isUsed: false) == number)
        #expect(outage.number == number)
        #expect(!outage.isRecovering)
    }

    @Test("Where nobody saw whether a recovery was used, the next one begins anew")
    func unseen() {
        let outage = Outage()
        let number = outage.number
        outage.recoveryBegan()
        outage.recoveryDone()
        outage.recoveryBegan()
        #expect(outage.number == number + 1)
        #expect(outage.decided(isUsed: true) == nil, "the decision was about the recovery before")
        #expect(outage.isRecovering)
    }

    @Test("Another dataset ends the outage, the first and the same one do not")
    func datasets() {
        let outage = Outage()
        let number = outage.number
        outage.saw(dataset: "a")
        outage.saw(dataset: "a")
        #expect(outage.number == number)
        outage.saw(dataset: "b")
        #expect(outage.number == number + 1)
    }
}

@Suite("Waiting for the end of a recovery")
struct RecoveryEndTests {
    @Test("It ends with the recovery, used or not", .timeLimit(.minutes(1)), arguments: [true, false])
    func ends(_ passes: Bool) async throws {
        struct Refused: Error {}
        let latch = Latch<Void>()
        let breaker = CircuitBreaker(
            name: "test",
            startsInRecovery: true,
            recovery: {
                try await latch.value()
                if !passes { throw Refused() }
            }
        )
        let isDone = Mutex(false)
        let waiting = Task {
            let ended = await breaker.recoveryEnded()
            isDone.withLock { $0 = true }
            return ended
        }
        await Task.yield()
        #expect(breaker.snapshot().isRecoveryRunning)
        #expect(!isDone.withLock { $0 })
        latch.open(())
        #expect(await waiting.value)
        #expect(breaker.isLastRecoveryUsed == passes)
        #expect(await breaker.recoveryEnded(), "none runs")
        breaker.shutdown()
    }

    @Test("The breaker's shutdown ends the wait", .timeLimit(.minutes(1)))
    func shutdown() async {
        let latch = Latch<Void>()
        let breaker = CircuitBreaker(name: "test", startsInRecovery: true, recovery: { try await latch.value() })
        let waiting = Task { await breaker.recoveryEnded() }
        await Task.yield()
        breaker.shutdown()
        #expect(await !waiting.value)
    }
}

@Suite("Products with another ledger's data")
struct ForeignProductsTests {
    @Test("The first product of an owner is news, and the last one's end")
    func news() {
        var foreign = ForeignProducts()
        #expect(foreign.saw(ProductID(1), "theirs") == .found("theirs"))
        #expect(foreign.saw(ProductID(2), "theirs") == .nothing)
        #expect(foreign.saw(ProductID(1), nil) == .nothing, "another one is left")
        #expect(foreign.saw(ProductID(3), nil) == .nothing, "it never was")
        #expect(foreign.saw(ProductID(2), nil) == .gone)
        #expect(foreign.saw(ProductID(2), "theirs") == .found("theirs"), "news again")
        #expect(foreign.saw(ProductID(4), "others") == .found("others"))
    }
}
