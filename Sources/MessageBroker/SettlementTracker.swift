// The deliveries of a consumer's connection that are still to be acknowledged or rejected.
//
// Invariant: a tag is settled at most once, and only on the connection that delivered it. Tags of an older generation, and tags that were settled before,
//   change nothing. An acknowledgement with `multiple` covers only tags that it acknowledges or that were settled before.
// Bound: the broker's prefetch bounds the unsettled tags. The window spans from the oldest of them to the newest.

import DequeModule

/// Decides which deliveries may be acknowledged, with as few frames as possible. A value.
struct SettlementTracker {
    enum Frame: Sendable, Hashable {
        case acknowledge(UInt64, multiple: Bool)
        case reject(UInt64, requeue: Bool)
    }

    private enum Entry {
        /// Delivered. -> chosen, settled
        case open
        /// Chosen by the call of `acknowledge` that runs. -> settled
        case chosen
        /// Final.
        case settled
    }

    /// The number of this connection.
    private(set) var generation: UInt64 = 0
    private var window: Deque<Entry> = []
    /// The tag of the window's first entry.
    private var first: UInt64 = 1
    /// Deliveries not yet settled.
    private(set) var unsettled = 0

    /// How many tags there are from the oldest unsettled delivery to the newest delivery.
    var unsettledSpan: Int { window.count }

    /// The connection has ended. Its deliveries can no longer be settled.
    mutating func lost() {
        generation += 1
        window.removeAll(keepingCapacity: true)
        first = 1
        unsettled = 0
    }

    /// Records a delivery. Returns false if its tag does not follow the one before, which breaks the protocol.
    mutating func delivered(_ number: UInt64) -> Bool {
        guard number == first + UInt64(window.count) else { return false }
        window.append(.open)
        unsettled += 1
        return true
    }

    /// Acknowledges those deliveries that still can be. The frames are in the order of tags.
    mutating func acknowledge(_ tags: some Sequence<DeliveryTag>, _ frames: inout [Frame]) -> Int {
        var count = 0
        var lowest = UInt64.max
        var highest: UInt64 = 0
        for tag in tags {
            guard let index = index(of: tag), case .open = window[index] else { continue }
            window[index] = .chosen
            lowest = min(lowest, tag.number)
            highest = max(highest, tag.number)
            count += 1
        }
        guard count > 0 else { return 0 }
        unsettled -= count

        // Where no tag below stays open, one frame with `multiple` acknowledges all of them.
        var number = first
        var last: UInt64?
        var covered = 0
        while number <= highest {
            let index = Int(number - first)
            if case .open = window[index] { break }
            if case .chosen = window[index] {
                window[index] = .settled
                last = number
                covered += 1
            }
            number += 1
        }
        if let last { frames.append(.acknowledge(last, multiple: covered > 1)) }
        number = max(number, lowest)
        while number <= highest {
            let index = Int(number - first)
            if case .chosen = window[index] {
                window[index] = .settled
                frames.append(.acknowledge(number, multiple: false))
            }
            number += 1
        }
        trim()
        return count
    }

    /// Rejects a delivery. Returns nil if that is no longer possible.
    mutating func reject(_ tag: DeliveryTag, requeue: Bool) -> Frame? {
        guard let index = index(of: tag), case .open = window[index] else { return nil }
        window[index] = .settled
        unsettled -= 1
        trim()
        return .reject(tag.number, requeue: requeue)
    }

    private func index(of tag: DeliveryTag) -> Int? {
        guard tag.generation == generation, tag.number >= first, tag.number < first + UInt64(window.count) else { return nil }
        return Int(tag.number - first)
    }

    private mutating func trim() {
        while case .settled? = window.first {
            window.removeFirst()
            first += 1
        }
    }
}
