import CircuitBreaker
import Testing

@Suite struct EventsTests {
    func make() throws -> CircuitBreaker { CircuitBreaker(name: "stock", configuration: try makeSettings(), clock: ManualClock()) }

    @Test func eachReaderSeesAllInOrder() async throws {
        let breaker = try make()
        let readers = [breaker.events, breaker.events]
        breaker.transition(to: .forceOpen)
        breaker.transition(to: .disable)
        breaker.shutdown()
        for reader in readers {
            var sequences: [UInt64] = []
            for await event in reader { sequences.append(event.sequence) }
            #expect(sequences == [1, 2])
        }
    }

    @Test func aFullBufferDropsTheOldestAndCounts() async throws {
        let breaker = try make()
        let events = breaker.events(bufferCapacity: 2)
        for manual in [ManualTransition.forceOpen, .disable, .metricsOnly, .close] { breaker.transition(to: manual) }
        #expect(events.dropped == 2)
        #expect(breaker.snapshot().droppedEvents == 2)
        breaker.shutdown()
        var sequences: [UInt64] = []
        for await event in events { sequences.append(event.sequence) }
        #expect(sequences == [3, 4])
    }

    @Test func aWaitingReaderGetsTheNextEventAndEndsWhenCancelled() async throws {
        let breaker = try make()
        let events = breaker.events
        let (seen, report) = AsyncStream.makeStream(of: UInt64.self)
        let reader = Task {
            for await event in events { report.yield(event.sequence) }
            report.finish()
        }
        var iterator = seen.makeAsyncIterator()
        for expected in 1...3 as ClosedRange<UInt64> {
            breaker.transition(to: expected == 2 ? .close : .forceOpen)
            #expect(await iterator.next() == expected)
        }
        reader.cancel()
        #expect(await iterator.next() == nil)
    }

    @Test func aReaderThatIsCancelledBeforeItWaitsEnds() async throws {
        let breaker = try make()
        let events = breaker.events
        let reader = Task {
            while !Task.isCancelled { await Task.yield() }
            var iterator = events.makeAsyncIterator()
            return await iterator.next()
        }
        reader.cancel()
        #expect(await reader.value == nil)
    }

    @Test func readersTooManyAreRefusedAndCounted() async throws {
        let breaker = try make()
        var readers = (0..<256).map { _ in breaker.events(bufferCapacity: 1) }
        let tooMany = breaker.events
        for await _ in tooMany { Issue.record("a refused reader was given an event") }
        #expect(breaker.snapshot().refusedSubscriptions == 1)
        readers.removeAll()
        var iterator = breaker.events.makeAsyncIterator()
        breaker.transition(to: .forceOpen)
        #expect(await iterator.next() != nil)
    }
}
