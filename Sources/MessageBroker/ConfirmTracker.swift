// The published messages of one connection that wait for their confirm.
//
// Invariant: tags are the numbers 1, 2, 3, … in the order of writing, as the broker counts them, and each tag is settled at most once. A returned message is
//   settled by the ack that follows, not by the return.
// Bound: the caller bounds `inFlight`. The window spans from the oldest unsettled tag to the newest.

import DequeModule

/// Matches confirms and returns to published messages. This value decides; the publisher's thread acts.
struct ConfirmTracker<Ticket> {
    /// The meaning of an answer from the broker.
    enum Answer: Hashable {
        /// The answer settled this many messages. Zero: all of them had been settled before.
        case settled(Int)
        /// The broker answered a tag that was never written, so the connection cannot be trusted.
        case neverWritten
    }

    private struct Entry {
        var ticket: Ticket
        var returned: (code: Int, text: String)?
        var isSettled = false
    }

    private var window: Deque<Entry> = []
    /// The tag of the window's first entry.
    private var first: UInt64 = 1
    /// Messages written and not yet settled.
    private(set) var inFlight = 0

    /// The tag that the next message gets.
    var next: UInt64 { first + UInt64(window.count) }

    /// Records a message that is written.
    mutating func wrote(_ ticket: Ticket) -> UInt64 {
        defer {
            window.append(Entry(ticket: ticket))
            inFlight += 1
        }
        return next
    }

    /// The broker returns a mandatory message. Its ack is still to come.
    mutating func returned(_ tag: UInt64, code: Int, text: String) -> Answer {
        guard tag > 0, tag < next else { return .neverWritten }
        guard tag >= first, !window[Int(tag - first)].isSettled else { return .settled(0) }
        window[Int(tag - first)].returned = (code, text)
        return .settled(0)
    }

    /// The broker acknowledges a message, or with `multiple` all messages up to it.
    mutating func acknowledged(_ tag: UInt64, multiple: Bool, _ settle: (Ticket, PublishOutcome) -> Void) -> Answer {
        answer(tag, multiple) { entry in
            settle(entry.ticket, entry.returned.map { .returned(code: $0.code, text: $0.text) } ?? .confirmed)
        }
    }

    /// The broker refuses a message, or with `multiple` all messages up to it.
    mutating func refused(_ tag: UInt64, multiple: Bool, _ settle: (Ticket, PublishOutcome) -> Void) -> Answer {
        answer(tag, multiple) { settle($0.ticket, .rejected) }
    }

    /// The connection has ended. Returned messages have that outcome, and all other unsettled ones are unknown. Tags begin at 1 again.
    mutating func lost(_ settle: (Ticket, PublishOutcome) -> Void) {
        for entry in window where !entry.isSettled {
            settle(entry.ticket, entry.returned.map { .returned(code: $0.code, text: $0.text) } ?? .unknown)
        }
        self = ConfirmTracker()
    }

    private mutating func answer(_ tag: UInt64, _ multiple: Bool, _ settle: (Entry) -> Void) -> Answer {
        // In the protocol, tag zero with `multiple` means all tags.
        let last = tag == 0 && multiple ? next - 1 : tag
        guard last < next, last > 0 || multiple else { return .neverWritten }
        guard last >= first else { return .settled(0) }
        let end = Int(last - first)
        var settled = 0
        for index in (multiple ? 0 : end)...end where !window[index].isSettled {
            window[index].isSettled = true
            settle(window[index])
            settled += 1
        }
        inFlight -= settled
        while let oldest = window.first, oldest.isSettled {
            window.removeFirst()
            first += 1
        }
        return .settled(settled)
    }
}
