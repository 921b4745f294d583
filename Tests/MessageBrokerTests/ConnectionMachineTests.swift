import Testing

@testable import MessageBroker

@Suite("Heartbeats and frames")
struct ConnectionMachineTests {
    let start = ContinuousClock.now

    @Test func heartbeatsAreSentByHalfAnInterval() {
        var clock = HeartbeatClock(interval: .seconds(10), now: start)
        #expect(clock.due(at: start) == .wait(until: start + .seconds(5)))
        #expect(clock.due(at: start + .seconds(5)) == .send)
        clock.sent(at: start + .seconds(5))
        #expect(clock.due(at: start + .seconds(5)) == .wait(until: start + .seconds(10)))
    }

    @Test func silenceOfTwoIntervalsIsTheEnd() {
        var clock = HeartbeatClock(interval: .seconds(10), now: start)
        clock.sent(at: start + .seconds(19))
        #expect(clock.due(at: start + .seconds(19)) == .wait(until: start + .seconds(20)))
        #expect(clock.due(at: start + .seconds(20)) == .dead)
        clock.received(at: start + .seconds(20))
        #expect(clock.due(at: start + .seconds(23)) == .wait(until: start + .seconds(24)))
    }

    @Test func noIntervalNoHeartbeats() {
        let clock = HeartbeatClock(interval: .zero, now: start)
        #expect(clock.due(at: start + .seconds(1000)) == .wait(until: start + .seconds(1060)))
    }

    // MARK: Content

    typealias Assembler = ContentAssembler<String, Int>

    private func body(_ step: Assembler.Step) -> [UInt8]?? {
        if case .complete(let content) = step { content.body } else { nil }
    }

    private func isOutOfTurn(_ step: Assembler.Step) -> Bool {
        if case .outOfTurn = step { true } else { false }
    }

    private func feed(_ assembler: inout Assembler, _ bytes: [UInt8]) -> Assembler.Step {
        bytes.withUnsafeBytes { assembler.received(fragment: $0) }
    }

    @Test func aBodyInFragments() {
        var assembler = Assembler(maximumBodyBytes: 100)
        #expect(body(assembler.received(method: "deliver")) == nil)
        #expect(body(assembler.received(properties: 7, bodySize: 5)) == nil)
        #expect(body(feed(&assembler, [1, 2])) == nil)
        #expect(!assembler.isIdle)
        guard case .complete(let content) = feed(&assembler, [3, 4, 5]) else { return #expect(Bool(false), "not complete") }
        #expect(content.method == "deliver")
        #expect(content.properties == 7)
        #expect(content.body == [1, 2, 3, 4, 5])
        #expect(assembler.isIdle)
    }

    @Test func anEmptyBodyNeedsNoFragment() {
        var assembler = Assembler(maximumBodyBytes: 100)
        _ = assembler.received(method: "deliver")
        #expect(body(assembler.received(properties: 0, bodySize: 0)) == .some([]))
        #expect(assembler.isIdle)
    }

    @Test func aBodyOverTheBoundIsReadAndNotKept() {
        var assembler = Assembler(maximumBodyBytes: 3)
        _ = assembler.received(method: "deliver")
        _ = assembler.received(properties: 0, bodySize: 4)
        #expect(body(feed(&assembler, [1, 2, 3])) == nil)
        #expect(body(feed(&assembler, [4])) == .some(nil))
        _ = assembler.received(method: "deliver")
        _ = assembler.received(properties: 0, bodySize: 3)
        #expect(body(feed(&assembler, [1, 2, 3])) == .some([1, 2, 3]))
    }

    @Test func framesOutOfTurn() {
        var assembler = Assembler(maximumBodyBytes: 100)
        #expect(isOutOfTurn(assembler.received(properties: 0, bodySize: 1)))
        #expect(isOutOfTurn(feed(&assembler, [1])))
        _ = assembler.received(method: "deliver")
        #expect(isOutOfTurn(assembler.received(method: "return")))
        #expect(isOutOfTurn(feed(&assembler, [1])))
        _ = assembler.received(properties: 0, bodySize: 2)
        #expect(isOutOfTurn(assembler.received(method: "return")))
        #expect(isOutOfTurn(assembler.received(properties: 0, bodySize: 1)))
        #expect(isOutOfTurn(feed(&assembler, [1, 2, 3])))
    }

    // MARK: The consumer's place in a stream

    private func delivery(_ number: UInt64, offset: UInt64, generation: UInt64 = 0) -> Delivery {
        Delivery(
            body: [],
            messageID: nil,
            correlationID: nil,
            type: nil,
            contentType: nil,
            timestamp: nil,
            headers: ["x-stream-offset": .integer(Int64(offset))],
            exchange: "",
            routingKey: "",
            isRedelivered: false,
            tag: DeliveryTag(generation: generation, number: number)
        )
    }

    @Test func aStreamGoesOnBehindWhatIsAllAcknowledged() {
        var inbox = ConsumerInbox(streamOffset: .first)
        let deliveries = (1...4).map { delivery(UInt64($0), offset: UInt64($0) + 9) }
        for (index, delivery) in deliveries.enumerated() { #expect(inbox.arrived(UInt64(index + 1), delivery) == true) }
        #expect(inbox.acknowledge([deliveries[1].tag]) == 1)
        #expect(inbox.streamOffset == .first)
        #expect(inbox.acknowledge([deliveries[0].tag]) == 1)
        #expect(inbox.streamOffset == .offset(12))
        inbox.lost()
        #expect(inbox.streamOffset == .offset(12))
        #expect(inbox.buffer.isEmpty)
    }

    @Test func whatLiesBeforeTheOffsetIsNotGivenOut() {
        var inbox = ConsumerInbox(streamOffset: .offset(11))
        for number in 1...3 { #expect(inbox.arrived(UInt64(number), delivery(UInt64(number), offset: UInt64(number) + 8)) == true) }
        #expect(inbox.buffer.map(\.streamOffset) == [11])
        #expect(inbox.frames == [.acknowledge(1, multiple: false), .acknowledge(2, multiple: false)])
        #expect(inbox.streamOffset == .offset(11))
        #expect(inbox.delivered == 1)
    }
}
