// What a connection may do next, as a value without clock, bytes or socket: the front door tells this machine what happens and does what it says.
//
// Invariant: at most one request is in work; the next is taken only after its answer is written, and only while the client takes answers. After the last
//   answer no request is taken. Every request that was taken gets its answer, unless the connection ends first.
// Stop: the end of the connection, in whatever state.

/// One connection, from its first byte to its end.
package struct ConnectionMachine: Sendable, Equatable {
    package enum State: Sendable, Equatable {
        /// The next request may be taken. -> working, ending, closed
        case reading
        /// A request is with the hot path or with the router. -> reading, ending, closed
        case working
        /// The last answer is written and the server's half is closed; what still comes is dropped. -> closed
        case ending
        /// Final.
        case closed
    }

    /// What to do after an event.
    package enum Step: Sendable, Equatable {
        /// Wait for the next event.
        case wait
        /// Look for the next request in what has come.
        case proceed
        /// Close the server's half, and drop what still comes for a short while.
        case end
        /// Close the connection.
        case close
    }

    package private(set) var state = State.reading
    /// Whether the answer to the request in work, or else the next answer, is the last one.
    package private(set) var isLast = false
    /// Whether the client sends no more.
    package private(set) var isInputClosed = false
    /// Whether the server's half is closed, after everything that it has sent.
    package private(set) var isOutputClosed = false
    /// Whether the server stops.
    package private(set) var isQuiescing = false

    /// A connection that has just begun.
    package init() {}

    /// Whether a request may be taken.
    package func mayTake(isWritable: Bool) -> Bool { state == .reading && isWritable }

    /// A request is handed on.
    /// - Parameter closes: whether it is the connection's last
    package mutating func took(closes: Bool) {
        guard state == .reading else { return }
        state = .working
        if closes { isLast = true }
    }

    /// The answer's head is about to be written: whether it has to say that the connection ends.
    /// - Parameters:
    ///   - hasMore: whether bytes wait that may be a further request
    ///   - isDraining: whether the server asks its clients to go elsewhere
    package mutating func answers(hasMore: Bool, isDraining: Bool) -> Bool {
        if isDraining || isQuiescing || (isInputClosed && !hasMore) { isLast = true }
        return isLast
    }

    /// The head of the answer in work says that the connection ends after it.
    package mutating func endAfterAnswer() { if state == .working { isLast = true } }

    /// The answer is written.
    package mutating func answered() -> Step {
        guard state == .working else { return .wait }
        if isLast {
            state = .ending
            return .end
        }
        state = .reading
        return .proceed
    }

    /// The bytes that have come make no whole request.
    /// - Parameter hasPart: whether they hold a part of one
    package mutating func needsMore(hasPart: Bool) -> Step {
        guard state == .reading, !hasPart, isInputClosed || isQuiescing else { return .wait }
        // The connection is not closed at once: earlier answers may still be on their way.
        state = .ending
        return .end
    }

    /// Whether a request was cut off: its client sends no more, and part of it is missing.
    package func isTruncated(hasPart: Bool) -> Bool { state == .reading && isInputClosed && hasPart }

    /// The bytes at hand are refused, and the refusal is written.
    package mutating func refused() -> Step {
        guard state == .reading else { return .wait }
        isLast = true
        state = .ending
        return .end
    }

    /// The client sends no more.
    package mutating func inputClosed() -> Step {
        isInputClosed = true
        switch state {
        case .reading: return .proceed
        case .ending: return isOutputClosed ? close() : .wait
        case .working, .closed: return .wait
        }
    }

    /// The server's half is closed. What still comes is dropped for a while, unless the client has closed its half as well.
    package mutating func outputClosed() -> Step {
        isOutputClosed = true
        return isInputClosed ? close() : .wait
    }

    /// The server stops.
    package mutating func quiesce() -> Step {
        isQuiescing = true
        switch state {
        case .reading: return .proceed
        case .working, .ending, .closed: return .wait
        }
    }

    /// The connection is to end, or has ended.
    @discardableResult
    package mutating func close() -> Step {
        guard state != .closed else { return .wait }
        state = .closed
        return .close
    }
}
