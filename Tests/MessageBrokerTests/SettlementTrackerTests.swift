import Testing

@testable import MessageBroker

@Suite("Acknowledgements")
struct SettlementTrackerTests {
    private func tracker(delivered count: UInt64) -> SettlementTracker {
        var tracker = SettlementTracker()
        for number in 1...count { #expect(tracker.delivered(number) == true) }
        return tracker
    }

    private func tags(_ numbers: UInt64..., generation: UInt64 = 0) -> [DeliveryTag] {
        numbers.map { DeliveryTag(generation: generation, number: $0) }
    }

    private func acknowledge(_ tracker: inout SettlementTracker, _ tags: [DeliveryTag]) -> (count: Int, frames: [SettlementTracker.Frame]) {
        var frames: [SettlementTracker.Frame] = []
        let count = tracker.acknowledge(tags, &frames)
        return (count, frames)
    }

    @Test func aWholeBatchIsOneFrame() {
        var tracker = tracker(delivered: 5)
        let (count, frames) = acknowledge(&tracker, tags(1, 2, 3))
        #expect(count == 3)
        #expect(frames == [.acknowledge(3, multiple: true)])
        #expect(tracker.unsettled == 2)
    }

    @Test func theOrderOfTheBatchDoesNotMatter() {
        var tracker = tracker(delivered: 3)
        #expect(acknowledge(&tracker, tags(3, 1, 2)).frames == [.acknowledge(3, multiple: true)])
    }

    @Test func whatStaysOpenIsNotCovered() {
        var tracker = tracker(delivered: 5)
        #expect(
            acknowledge(&tracker, tags(1, 2, 4, 5)).frames == [
                .acknowledge(2, multiple: true), .acknowledge(4, multiple: false), .acknowledge(5, multiple: false),
            ]
        )
        #expect(tracker.unsettled == 1)
        #expect(acknowledge(&tracker, tags(3)).frames == [.acknowledge(3, multiple: false)])
        #expect(tracker.unsettledSpan == 0)
    }

    @Test func aRejectedOneInBetweenIsNoGap() {
        var tracker = tracker(delivered: 3)
        #expect(tracker.reject(tags(2)[0], requeue: false) == .reject(2, requeue: false))
        #expect(acknowledge(&tracker, tags(1, 3)).frames == [.acknowledge(3, multiple: true)])
    }

    @Test func twiceIsLate() {
        var tracker = tracker(delivered: 3)
        #expect(acknowledge(&tracker, tags(2, 2)).count == 1)
        #expect(acknowledge(&tracker, tags(2)).count == 0)
        #expect(tracker.reject(tags(2)[0], requeue: true) == nil)
        #expect(tracker.reject(tags(1)[0], requeue: true) == .reject(1, requeue: true))
        #expect(tracker.reject(tags(1)[0], requeue: true) == nil)
        #expect(acknowledge(&tracker, tags(1, 2)).frames.isEmpty)
        #expect(tracker.unsettled == 1)
    }

    @Test func anOlderConnectionsDeliveriesAreLate() {
        var tracker = tracker(delivered: 2)
        tracker.lost()
        #expect(tracker.unsettled == 0)
        #expect(tracker.generation == 1)
        #expect(tracker.delivered(1) == true)
        #expect(acknowledge(&tracker, tags(1)).count == 0)
        #expect(tracker.reject(tags(1)[0], requeue: false) == nil)
        #expect(acknowledge(&tracker, tags(1, generation: 1)).frames == [.acknowledge(1, multiple: false)])
        // A generation that is not there yet, and numbers that were not delivered.
        #expect(acknowledge(&tracker, tags(1, generation: 2)).count == 0)
        #expect(acknowledge(&tracker, tags(0, 2, generation: 1)).count == 0)
    }

    @Test func tagsFollowEachOther() {
        var tracker = tracker(delivered: 2)
        #expect(tracker.delivered(2) == false)
        #expect(tracker.delivered(4) == false)
        #expect(tracker.delivered(3) == true)
    }

    /// What the frames mean to the broker is what was asked for, whatever the order.
    @Test func againstABroker() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<300 {
            var tracker = SettlementTracker()
            var open: Set<UInt64> = []
            var brokerOpen: Set<UInt64> = []
            var last: UInt64 = 0
            for _ in 0..<60 {
                if Bool.random(using: &random) {
                    last += 1
                    #expect(tracker.delivered(last) == true)
                    open.insert(last)
                    brokerOpen.insert(last)
                    continue
                }
                let chosen = (0..<Int.random(in: 1...6, using: &random)).map { _ in UInt64.random(in: 0...(last + 2), using: &random) }
                let expected = open.intersection(chosen)
                var frames: [SettlementTracker.Frame] = []
                #expect(tracker.acknowledge(chosen.map { DeliveryTag(generation: 0, number: $0) }, &frames) == expected.count)
                open.subtract(expected)
                for case .acknowledge(let tag, let multiple) in frames {
                    // The broker closes the channel on an unknown tag.
                    #expect(brokerOpen.contains(tag))
                    brokerOpen = brokerOpen.filter { multiple ? $0 > tag : $0 != tag }
                }
                #expect(brokerOpen == open)
                #expect(tracker.unsettled == open.count)
            }
        }
    }
}
