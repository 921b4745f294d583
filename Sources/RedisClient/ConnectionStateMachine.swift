import DequeModule
import NIOCore

/// What one connection does with commands, replies and time, without sockets, clocks or callbacks.
///
/// Invariant: `pending` holds, in the order in which they were encoded, all commands whose reply is still to come, with those that nobody waits for any more.
/// The n-th reply therefore always answers the first of them; a timeout or a cancellation only empties its entry.
/// Bounds: `maximumPending` entries, abandoned ones included. Silence with entries outstanding lasts at most `silenceLimit`.
/// Stop: `closed` is final. Whoever gets a list of failed commands completes each of them exactly once.
struct ConnectionStateMachine<Completion> {
    struct Entry {
        /// nil once it was timed out or cancelled: its reply will be dropped.
        var completion: Completion?
        var deadline: NIODeadline
    }

    struct Active {
        var pending: Deque<Entry> = []
        /// The number of the first entry of `pending`.
        var firstNumber: UInt64 = 0
        /// How many entries at the end of `pending` were not yet handed to the socket.
        var unsent = 0
        /// How many entries somebody waits for.
        var live = 0
        /// At least this many entries at the front are abandoned. Saves looking at them again at each deadline.
        var abandonedAtFront = 0
        /// The entries' deadlines are in the order of the entries.
        var deadlinesAscend = true
        var lastDeadline = NIODeadline.uptimeNanoseconds(0)
        /// When bytes last came, or when the first command went out after all had been answered.
        var lastProgress = NIODeadline.uptimeNanoseconds(0)
        /// When the shell will call `hitDeadline`. At most one such timer is armed.
        var armed: NIODeadline?
    }

    enum State {
        /// Not yet connected. -> active, closed
        case inactive
        /// Takes commands. -> draining, closed
        case active(Active)
        /// Takes no commands, and waits for the replies that somebody still wants. -> closed
        case draining(Active)
        /// Final.
        case closed(RedisError)
    }

    /// Commands that will get no reply, oldest first.
    struct Failed {
        /// These were handed to the socket: Redis may have run them.
        var sent: [Completion] = []
        /// These never reached the socket: Redis has not run them.
        var unsent: [Completion] = []

        var isEmpty: Bool { sent.isEmpty && unsent.isEmpty }
    }

    enum EnqueueAction {
        /// Encode the command. Schedule a flush if it is the first since the last; arm the timer if a time is given.
        case accept(RedisCommandID, scheduleFlush: Bool, arm: NIODeadline?)
        /// Complete it with this error. Nothing was changed.
        case reject(Completion, RedisError)
    }

    enum ReplyAction {
        /// Hand the reply over; then close the channel if it was the last of a draining connection.
        case complete(Completion, close: Bool)
        /// Nobody waits for this reply.
        case drop
        /// No command is outstanding that it could answer: close the channel and fail the rest, of which there is none.
        case unexpected
        /// The connection is closed; nothing it says counts any more.
        case ignore
    }

    enum DeadlineAction {
        /// Fail these as timed out; arm the timer again if a time is given; close the channel if a draining connection has nobody left.
        case expire(Failed, arm: NIODeadline?, close: Bool)
        /// The peer was silent for too long. The connection is closed now: close the channel, fail the first as timed out, the others as lost.
        case silent(expired: Failed, lost: Failed)
        /// Nothing: the connection is closed.
        case ignore
    }

    enum CancelAction {
        case complete(Completion, sent: Bool, close: Bool)
        /// It was answered, timed out or cancelled before, or never existed.
        case tooLate
    }

    enum DrainAction {
        case close
        case wait
        /// It is closed already.
        case ignore
    }

    private(set) var state = State.inactive
    let maximumPending: Int
    let silenceLimit: TimeAmount

    init(maximumPending: Int, silenceLimit: TimeAmount) {
        self.maximumPending = maximumPending
        self.silenceLimit = silenceLimit
    }

    /// Commands without a reply, those nobody waits for included.
    var pendingCount: Int {
        switch state {
        case .active(let active), .draining(let active): active.pending.count
        case .inactive, .closed: 0
        }
    }

    var isOpen: Bool {
        switch state {
        case .active, .draining: true
        case .inactive, .closed: false
        }
    }

    /// The connection is open. The channel and its maker both say so, in either order; the second call changes nothing.
    mutating func connected() {
        switch state {
        case .inactive: state = .active(Active())
        case .active, .draining: break
        // Closed by its owner while it was connecting.
        case .closed: break
        }
    }

    /// - Parameter hasRoom: whether the bytes that wait for the socket are below their bound.
    mutating func enqueue(_ completion: Completion, deadline: NIODeadline, now: NIODeadline, hasRoom: Bool) -> EnqueueAction {
        switch state {
        case .inactive: return .reject(completion, RedisError(.notConnected))
        case .draining: return .reject(completion, RedisError(.closed))
        case .closed(let error): return .reject(completion, error)
        case .active(var active):
            guard deadline > now else { return .reject(completion, RedisError(.timedOut(sent: false))) }
            guard hasRoom, active.pending.count < maximumPending else { return .reject(completion, RedisError(.queueFull)) }
            state = .inactive  // so that `active` is the only reference to its queue
            defer { state = .active(active) }
            if active.pending.isEmpty {
                active.lastProgress = now
                active.deadlinesAscend = true
            } else if deadline < active.lastDeadline {
                active.deadlinesAscend = false
            }
            active.lastDeadline = deadline
            let number = active.firstNumber + UInt64(active.pending.count)
            active.pending.append(Entry(completion: completion, deadline: deadline))
            active.unsent += 1
            active.live += 1
            var arm: NIODeadline?
            let wake = min(deadline, active.lastProgress + silenceLimit)
            if active.armed.map({ wake < $0 }) ?? true {
                active.armed = wake
                arm = wake
            }
            return .accept(RedisCommandID(number: number), scheduleFlush: active.unsent == 1, arm: arm)
        }
    }

    /// All that was encoded has been handed to the socket.
    mutating func flushed() {
        switch state {
        case .active(var active):
            state = .inactive
            active.unsent = 0
            state = .active(active)
        case .draining(var active):
            state = .inactive
            active.unsent = 0
            state = .draining(active)
        case .inactive, .closed: break
        }
    }

    mutating func receivedBytes(now: NIODeadline) {
        switch state {
        case .active(var active):
            state = .inactive
            active.lastProgress = now
            state = .active(active)
        case .draining(var active):
            state = .inactive
            active.lastProgress = now
            state = .draining(active)
        case .inactive, .closed: break
        }
    }

    mutating func receivedReply() -> ReplyAction {
        switch state {
        case .active(var active):
            state = .inactive
            defer { state = .active(active) }
            return Self.popReply(&active, draining: false)
        case .draining(var active):
            state = .inactive
            let action = Self.popReply(&active, draining: true)
            state = .draining(active)
            if case .complete(_, close: true) = action { state = .closed(RedisError(.closed)) }
            return action
        case .inactive, .closed: return .ignore
        }
    }

    private static func popReply(_ active: inout Active, draining: Bool) -> ReplyAction {
        // Where every pending command is still unsent, a reply belongs to none of them.
        guard active.pending.count > active.unsent, let entry = active.pending.popFirst() else { return .unexpected }
        active.firstNumber += 1
        if active.abandonedAtFront > 0 { active.abandonedAtFront -= 1 }
        guard let completion = entry.completion else { return .drop }
        active.live -= 1
        return .complete(completion, close: draining && active.live == 0)
    }

    mutating func cancel(_ id: RedisCommandID) -> CancelAction {
        switch state {
        case .active(var active):
            state = .inactive
            defer { state = .active(active) }
            return Self.abandon(id, &active, draining: false)
        case .draining(var active):
            state = .inactive
            let action = Self.abandon(id, &active, draining: true)
            state = .draining(active)
            if case .complete(_, _, close: true) = action { state = .closed(RedisError(.closed)) }
            return action
        case .inactive, .closed: return .tooLate
        }
    }

    private static func abandon(_ id: RedisCommandID, _ active: inout Active, draining: Bool) -> CancelAction {
        guard id.number >= active.firstNumber, id.number - active.firstNumber < UInt64(active.pending.count) else { return .tooLate }
        let index = Int(id.number - active.firstNumber)
        guard let completion = active.pending[index].completion else { return .tooLate }
        active.pending[index].completion = nil
        active.live -= 1
        let sent = index < active.pending.count - active.unsent
        return .complete(completion, sent: sent, close: draining && active.live == 0)
    }

    /// The armed timer fired.
    mutating func hitDeadline(now: NIODeadline) -> DeadlineAction {
        switch state {
        case .active(var active):
            state = .inactive
            let (expired, arm, silent) = expire(&active, now: now)
            guard !silent else {
                return .silent(expired: expired, lost: fail(active, RedisError(.connectionLost(sent: true), detail: "silent")))
            }
            state = .active(active)
            return .expire(expired, arm: arm, close: false)
        case .draining(var active):
            state = .inactive
            let (expired, arm, silent) = expire(&active, now: now)
            guard !silent else {
                return .silent(expired: expired, lost: fail(active, RedisError(.connectionLost(sent: true), detail: "silent")))
            }
            state = .draining(active)
            guard active.live > 0 else {
                state = .closed(RedisError(.closed))
                return .expire(expired, arm: nil, close: true)
            }
            return .expire(expired, arm: arm, close: false)
        case .inactive, .closed: return .ignore
        }
    }

    private func expire(_ active: inout Active, now: NIODeadline) -> (Failed, arm: NIODeadline?, silent: Bool) {
        var expired = Failed()
        active.armed = nil
        var next: NIODeadline?
        let sentCount = active.pending.count - active.unsent
        var index = active.abandonedAtFront
        // Whether every entry before `index` is abandoned.
        var contiguous = true
        while index < active.pending.count {
            let entry = active.pending[index]
            if let completion = entry.completion {
                if entry.deadline <= now {
                    if index < sentCount { expired.sent.append(completion) } else { expired.unsent.append(completion) }
                    active.pending[index].completion = nil
                    active.live -= 1
                } else {
                    next = next.map { min($0, entry.deadline) } ?? entry.deadline
                    // All that follow are due later.
                    if active.deadlinesAscend { break }
                    contiguous = false
                }
            }
            index += 1
            if contiguous { active.abandonedAtFront = index }
        }
        guard !active.pending.isEmpty else { return (expired, nil, false) }
        let silenceEnds = active.lastProgress + silenceLimit
        if silenceEnds <= now { return (expired, nil, true) }
        // At least a millisecond from now, so that one timer serves all commands that are due within it.
        let wake = max(min(next ?? silenceEnds, silenceEnds), now + .milliseconds(1))
        active.armed = wake
        return (expired, wake, false)
    }

    /// No further commands; close once nobody waits for a reply.
    mutating func drain() -> DrainAction {
        switch state {
        case .inactive:
            state = .closed(RedisError(.closed))
            return .close
        case .active(let active):
            if active.live == 0 {
                state = .closed(RedisError(.closed))
                return .close
            }
            state = .draining(active)
            return .wait
        case .draining: return .wait
        case .closed: return .ignore
        }
    }

    /// The channel closed, or must be closed for this reason. Late and repeated news change nothing.
    mutating func close(_ reason: RedisError) -> Failed {
        switch state {
        case .active(let active), .draining(let active): return fail(active, reason)
        case .inactive:
            state = .closed(reason.code == .closed ? reason : RedisError(.notConnected, detail: reason.detail))
            return Failed()
        case .closed: return Failed()
        }
    }

    /// Closes and returns everything that somebody still waits for.
    private mutating func fail(_ active: Active, _ reason: RedisError) -> Failed {
        state = .closed(reason.code == .closed ? reason : RedisError(.notConnected, detail: reason.detail))
        var failed = Failed()
        let sentCount = active.pending.count - active.unsent
        for (index, entry) in active.pending.enumerated() {
            guard let completion = entry.completion else { continue }
            if index < sentCount { failed.sent.append(completion) } else { failed.unsent.append(completion) }
        }
        return failed
    }
}
