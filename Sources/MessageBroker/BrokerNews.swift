// Invariant: one thing that happens to the broker is told once, however many connections meet it and however often they try again.
// Bounds: one standing for each connection.

import Synchronization

/// What happened to one connection.
public enum ConnectionChange: Sendable, Hashable {
    /// It is in use, with the topology declared.
    case connected
    /// The broker takes no messages for now.
    case blocked(reason: String)
    /// It takes messages again.
    case unblocked
    /// It broke, or an attempt to connect failed.
    case failed(BrokerError)
}

/// Makes news of what happens to the connections of one program to its broker.
public struct BrokerNews: Sendable {
    /// What is worth a line in a log.
    public enum Item: Sendable, Hashable {
        /// All connections are there that could be.
        case connected(isBack: Bool)
        /// It cannot be reached.
        case away(why: String)
        /// It answers, and refuses what this program needs: rights, a password, a limit, a queue of another kind.
        case refused(why: String)
        /// It takes no messages for now.
        case blocked(why: String)
        /// It takes messages again.
        case unblocked

        /// Whether something does not work from now on.
        public var isTrouble: Bool {
            switch self {
            case .away, .refused, .blocked: true
            case .connected, .unblocked: false
            }
        }

        /// One sentence.
        public var text: String {
            switch self {
            case .connected(let isBack): isBack ? "the broker is back" : "connected to the broker"
            case .away: "the broker is away and is tried again"
            case .refused: "the broker refuses this server and is tried again"
            case .blocked: "the broker takes no messages for now"
            case .unblocked: "the broker takes messages again"
            }
        }

        /// The broker's or the library's own words, if there are some.
        public var why: String? {
            switch self {
            case .away(let why), .refused(let why), .blocked(let why): why
            case .connected, .unblocked: nil
            }
        }
    }

    private enum Standing: Hashable {
        case starting
        case up
        case blocked
        case away
        // Each refusal is one of its own: another must be mended then.
        case refused(String)
    }

    private var standings: [String: Standing]

    /// - Parameter ends: the connections' names
    public init(ends: [String]) {
        standings = Dictionary(ends.map { ($0, .starting) }) { first, _ in first }
    }

    /// A connection has changed.
    /// - Returns: what to tell; nil if it is known already, or if another connection is still as this one was
    public mutating func heard(_ change: ConnectionChange, from end: String) -> Item? {
        let before = standings[end] ?? .starting
        let now: Standing
        switch change {
        case .connected, .unblocked: now = .up
        case .blocked: now = .blocked
        case .failed(let error): now = error.isRefusal ? .refused(error.message) : .away
        }
        standings[end] = now
        guard now != before else { return nil }
        let others = standings.lazy.filter { $0.key != end }.map(\.value)
        switch change {
        case .connected: return others.contains(before) ? nil : .connected(isBack: before != .starting)
        case .unblocked: return others.contains(before) ? nil : .unblocked
        case .blocked(let reason): return others.contains(now) ? nil : .blocked(why: reason)
        case .failed(let error):
            if others.contains(now) { return nil }
            return error.isRefusal ? .refused(why: error.message) : .away(why: error.message)
        }
    }
}

/// The news of connections that live on threads of their own.
public final class BrokerJournal: Sendable {
    private let news: Mutex<BrokerNews>
    private let tell: @Sendable (BrokerNews.Item) -> Void

    /// - Parameters:
    ///   - ends: the connections' names
    ///   - tell: called on a connection's thread; it must be quick
    public init(ends: [String], tell: @escaping @Sendable (BrokerNews.Item) -> Void) {
        news = Mutex(BrokerNews(ends: ends))
        self.tell = tell
    }

    /// What a connection is given to report to.
    public func observer(of end: String) -> @Sendable (ConnectionChange) -> Void {
        { change in
            // Told under the lock, so that the lines stand in the order of what happened.
            self.news.withLock { news in
                if let item = news.heard(change, from: end) { self.tell(item) }
            }
        }
    }
}

extension BrokerError {
    /// The broker answers and refuses. What it says when it is stopped (320 CONNECTION_FORCED) is no refusal.
    var isRefusal: Bool {
        switch code {
        case .authenticationFailed, .topologyMismatch, .invalidConfiguration: true
        case .refused(let replyCode): replyCode != 320
        case .connectFailed, .connectionLost, .timedOut, .notConnected, .invalidMessage, .overloaded, .closed: false
        }
    }
}
