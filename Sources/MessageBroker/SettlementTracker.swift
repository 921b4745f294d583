// Which deliveries of a consumer's connection are still to be acknowledged or rejected.
//
// Invariant: a tag is settled at most once, and only on the connection that delivered it: those of an older generation, and those settled before, change nothing.
// An acknowledgement with `multiple` covers only tags that are acknowledged by it or were settled before.
// Bound: the broker's prefetch bounds the unsettled tags; the window spans from the oldest of them to the newest.

import DequeModule

/// Decides what may be acknowledged and with how few frames. A value.
struct SettlementTracker {
    /// A frame to write.
    enum Frame: Sendable, Hashable {
        case acknowledge(UInt64, multiple: Bool)
        case reject(UInt64, requeue: Bool)
    }

    private enum Entry {
        /// Delivered. -> chosen, settled
        case open
        /// To be acknowledged by the call that runs. -> settled
        case chosen
        /// Final.
        case settled
    }

    /// Counts connections.
    private(set) var generation: UInt64 = 0
    private var window: Deque<Entry> = []
    /// The tag of the window's first entry.
    private var first: UInt64 = 1
    /// Deliveries not yet settled.
    private(set) var unsettled = 0

    /// From the oldest delivery that is not settled to the newest.
    var unsettledSpan: Int { window.count }

    /// The connection is over; whatever it delivered can no longer be settled.
    mutating func lost() {
        generation += 1
        window.removeAll(keepingCapacity: true)
        first = 1
        unsettled = 0
    }

    /// A delivery came. False: its tag is not the one that follows, so the broker broke its protocol.
    mutating func delivered(_ number: UInt64) -> Bool {
        guard number == first + UInt64(window.count) else { return false }
        window.append(.open)
        unsettled += 1
        return true
    }

    /// Acknowledges those that can be; the frames follow each other in the order of tags.
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

        // As far as nothing stays open below, one frame does for all.
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

    /// Rejects a delivery, if it still can be.
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
