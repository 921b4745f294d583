import BlockingThreads
import NIOCore

/// When one event loop connects, hands its connection out and connects again, without sockets, clocks or randomness of its own.
///
/// Invariant: there is at most one connection or attempt at a time. Once a connection was wanted, the machine goes on until `close`.
/// Bounds: two attempts lie at least half of the current backoff apart, which doubles from `minimum` to `maximum`. The count of failures starts
/// again only after a connection has been ready for `maximum`, so a server that accepts and drops is not hammered either.
/// Stop: `closed` is final.
struct ReconnectStateMachine<Connection> {
    enum State {
        /// Nobody has asked yet. -> connecting, closed
        case idle
        /// The socket connects. -> preparing, backingOff, closed
        case connecting(failures: Int)
        /// `AUTH`, `SELECT` and the hook. -> ready, backingOff, closed
        case preparing(Connection, failures: Int)
        /// Handed out. -> backingOff, closed
        case ready(Connection, failures: Int, since: NIODeadline)
        /// Waits before the next attempt. -> connecting, closed
        case backingOff(failures: Int)
        /// Final.
        case closed
    }

    enum WantAction { case connect, wait }
    enum ConnectedAction<C> {
        case prepare(C)
        /// The client was closed meanwhile.
        case close(C)
    }
    enum PreparedAction {
        case handOut
        /// It was lost or closed meanwhile.
        case ignore
    }
    enum EndedAction {
        /// It had been handed out.
        case lost(retryAfter: TimeAmount)
        /// It never became ready.
        case failed(retryAfter: TimeAmount)
        case closed
    }
    enum CloseAction<C> {
        /// Nothing is open.
        case done
        /// The attempt that runs will report its end.
        case awaitAttempt
        case drain(C)
        case alreadyClosed
    }

    private(set) var state = State.idle
    private let backoff: Backoff

    init(minimum: TimeAmount, maximum: TimeAmount) {
        backoff = Backoff(minimum: Duration(minimum), maximum: Duration(maximum), jitter: 0.5)
    }

    var ready: Connection? {
        if case .ready(let connection, _, _) = state { connection } else { nil }
    }

    mutating func wanted() -> WantAction {
        guard case .idle = state else { return .wait }
        state = .connecting(failures: 0)
        return .connect
    }

    mutating func connected(_ connection: Connection) -> ConnectedAction<Connection> {
        switch state {
        case .connecting(let failures):
            state = .preparing(connection, failures: failures)
            return .prepare(connection)
        case .closed: return .close(connection)
        case .idle, .preparing, .ready, .backingOff: preconditionFailure("connected without an attempt")
        }
    }

    mutating func prepared(now: NIODeadline) -> PreparedAction {
        switch state {
        case .preparing(let connection, let failures):
            state = .ready(connection, failures: failures, since: now)
            return .handOut
        // The hook may finish after the connection ended.
        case .idle, .connecting, .ready, .backingOff, .closed: return .ignore
        }
    }

    /// The attempt failed or the connection ended.
    /// - Parameter random: from 0 to 1.
    mutating func ended(now: NIODeadline, random: Double) -> EndedAction {
        switch state {
        case .connecting(let failures), .preparing(_, let failures):
            state = .backingOff(failures: failures + 1)
            return .failed(retryAfter: backoff(failures: failures, random: random))
        case .ready(_, let failures, let since):
            let before = Duration(now - since) >= backoff.maximum ? 0 : failures
            state = .backingOff(failures: before + 1)
            return .lost(retryAfter: backoff(failures: before, random: random))
        case .closed: return .closed
        case .idle, .backingOff: preconditionFailure("nothing was open that could end")
        }
    }

    mutating func backoffElapsed() -> WantAction {
        guard case .backingOff(let failures) = state else { return .wait }
        state = .connecting(failures: failures)
        return .connect
    }

    mutating func close() -> CloseAction<Connection> {
        defer { state = .closed }
        switch state {
        case .idle, .backingOff: return .done
        case .connecting: return .awaitAttempt
        case .preparing(let connection, _), .ready(let connection, _, _): return .drain(connection)
        case .closed: return .alreadyClosed
        }
    }

    private func backoff(failures: Int, random: Double) -> TimeAmount {
        TimeAmount(self.backoff.wait(after: failures, random: random))
    }
}
