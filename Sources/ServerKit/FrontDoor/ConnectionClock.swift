// How long a connection may wait for what. The front door looks at its connection at a steady beat and tells this clock what it sees, so that a request costs
// no timer.
//
// Invariant: nothing waits longer than its limit and one beat. A connection that is closed for its time has waited for its limit less one beat at least.

import NIOCore

/// The limits of a connection's waiting.
struct ConnectionTimes: Sendable, Equatable {
    /// From the first byte of a request to its last.
    var request: TimeAmount = .seconds(30)
    /// Without a byte of an answer taken by the client.
    var answer: TimeAmount = .seconds(30)
    /// Between requests.
    var idle: TimeAmount = .seconds(75)
    /// What still comes is dropped for so long after the last answer, so that the answer is not lost to a reset (RFC 9112, 9.6).
    var lingering: TimeAmount = .milliseconds(500)
    /// How long an idle connection stays open when a stopping server listens no more. A request may be on its way already, whose sender could not tell
    /// whether the server has read it. Such a request is still answered; meanwhile senders find that the port is closed.
    var stopIdle: TimeAmount = .zero
    /// A stopping server waits for so long for the rest of a request that has begun to come.
    var stopReading: TimeAmount = .milliseconds(300)
    /// A stopping server waits for so long for an answer that is in work.
    var stopWorking: TimeAmount = .seconds(8)
    /// A stopping server waits for so long for a client that takes nothing of the answers that it has.
    var stopTaking: TimeAmount = .milliseconds(500)

    /// The time between two looks.
    var beat: TimeAmount {
        let shortest = min(request, answer, idle).nanoseconds
        return .nanoseconds(max(5_000_000, min(shortest / 10, 3_000_000_000)))
    }
}

/// What one look at a connection shows.
struct ConnectionLook: Sendable, Equatable {
    enum Phase: Sendable, Equatable {
        /// Between requests.
        case idle
        /// Part of a request has come.
        case partial
        /// A request is in work.
        case working
    }

    var phase: Phase
    /// Requests taken and answers finished so far: another number means that something has happened.
    var progress: UInt64
    /// Bytes of answers that the socket has not taken.
    var unsent: Int
    /// Bytes of answers that the socket has taken so far.
    var sent: UInt64
}

/// Judges a connection by a row of looks.
struct ConnectionClock: Sendable {
    /// Why a connection is to be closed.
    enum Verdict: String, Sendable, CaseIterable {
        case idle
        case request
        case answer
    }

    private let times: ConnectionTimes
    private var last: ConnectionLook?
    private var since: NIODeadline = .uptimeNanoseconds(0)
    private var stalled: (sent: UInt64, since: NIODeadline)?

    init(times: ConnectionTimes) {
        self.times = times
    }

    /// Takes a look into account. Nil: the connection goes on.
    mutating func judge(_ look: ConnectionLook, at now: NIODeadline) -> Verdict? {
        if look.unsent == 0 {
            self.stalled = nil
        } else if let stalled, stalled.sent == look.sent {
            if now - stalled.since >= times.answer - times.beat { return .answer }
        } else {
            self.stalled = (look.sent, now)
        }
        guard let last, last.phase == look.phase, last.progress == look.progress else {
            self.last = look
            since = now
            return nil
        }
        // A client that still takes an answer counts as busy.
        if look.phase == .idle, look.unsent > 0 { since = now }
        let waited = now - since
        switch look.phase {
        case .idle: return waited >= times.idle - times.beat ? .idle : nil
        case .partial: return waited >= times.request - times.beat ? .request : nil
        case .working: return nil
        }
    }
}
