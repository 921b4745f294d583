// Invariant: an event at the broker is reported once, however many connections it affects and however often they try again.
// Bounds: one standing for each connection.

import Synchronization

/// A change of one connection.
public enum ConnectionChange: Sendable, Hashable {
    /// The connection that becomes ready now leads to this address. Reported right before `connected`, and only for a broker with several addresses.
    case reached(BrokerAddress)
    /// The connection is in use, and the topology is declared.
    case connected
    /// The broker takes no messages over the connection for now.
    case blocked(reason: String)
    /// The broker takes messages again.
    case unblocked
    /// The broker refuses what is published to this exchange and routing key, and has done so for a while.
    case refused(route: String)
    /// The broker takes what is published there again.
    case taken(route: String)
    /// The connection broke or an attempt to connect failed, and every address of the broker has been tried since the connection before.
    case failed(BrokerError)
}

/// Turns the changes of a program's connections to one broker into news, each told once.
public struct BrokerNews: Sendable {
    /// What is worth a line in a log.
    public enum Item: Sendable, Hashable {
        /// Every connection that was not up for this reason is up.
        case connected(isBack: Bool)
        /// The broker cannot be reached.
        case away(why: String)
        /// The broker answers, but refuses something that this program needs: rights, a password, a limit, a queue of another kind.
        case refused(why: String)
        /// The broker takes no messages for now.
        case blocked(why: String)
        /// The broker takes messages again.
        case unblocked
        /// The broker refuses what is published to this exchange and routing key: its queue is full, most likely by an operator's limit.
        case messagesRefused(route: String)
        /// The broker takes what is published there again.
        case messagesTaken(route: String)
        /// A connection leads to another node of the broker than before.
        case node(BrokerAddress, end: String)

        /// Whether this news tells of a trouble that begins.
        public var isTrouble: Bool {
            switch self {
            case .away, .refused, .blocked, .messagesRefused: true
            case .connected, .unblocked, .messagesTaken, .node: false
            }
        }

        /// The news in one sentence.
        public var text: String {
            switch self {
            case .connected(let isBack): isBack ? "the broker is back" : "connected to the broker"
            case .away: "the broker is away and is tried again"
            case .refused: "the broker refuses this server and is tried again"
            case .blocked: "the broker takes no messages for now"
            case .unblocked: "the broker takes messages again"
            case .messagesRefused(let route): "the broker refuses messages for \(route): its queue is full or has no leader"
            case .messagesTaken(let route): "the broker takes messages for \(route) again"
            case .node(let address, let end): "the connection for \(end) leads to the broker's node at \(address)"
            }
        }

        /// The words of the broker or of the library, if there are any.
        public var why: String? {
            switch self {
            case .away(let why), .refused(let why), .blocked(let why): why
            case .connected, .unblocked, .messagesRefused, .messagesTaken, .node: nil
            }
        }
    }

    private enum Standing: Hashable {
        case starting
        case up
        case blocked
        case away
        // Refusals with different words are different states, because each needs a mending of its own.
        case refused(String)
    }

    private var standings: [String: Standing]
    /// Where each connection led last.
    private var nodes: [String: BrokerAddress] = [:]

    /// - Parameter ends: the connections' names
    public init(ends: [String]) {
        standings = Dictionary(ends.map { ($0, .starting) }) { first, _ in first }
    }

    /// Records a change of a connection.
    /// - Returns: the news to report; nil if it is known already, or if another connection is still in the state that this one has left
    public mutating func heard(_ change: ConnectionChange, from end: String) -> Item? {
        let before = standings[end] ?? .starting
        let now: Standing
        switch change {
        case .reached(let address): return nodes.updateValue(address, forKey: end) == address ? nil : .node(address, end: end)
        // A publisher tells each of these once, and no other connection publishes to the same place.
        case .refused(let route): return .messagesRefused(route: route)
        case .taken(let route): return .messagesTaken(route: route)
        case .connected, .unblocked: now = .up
        case .blocked: now = .blocked
        case .failed(let error): now = error.isRefusal ? .refused(error.message) : .away
        }
        standings[end] = now
        guard now != before else { return nil }
        let others = standings.lazy.filter { $0.key != end }.map(\.value)
        switch change {
        case .reached, .refused, .taken: return nil
        case .connected: return others.contains(before) ? nil : .connected(isBack: before != .starting)
        case .unblocked: return others.contains(before) ? nil : .unblocked
        case .blocked(let reason): return others.contains(now) ? nil : .blocked(why: reason)
        case .failed(let error):
            if others.contains(now) { return nil }
            return error.isRefusal ? .refused(why: error.message) : .away(why: error.message)
        }
    }
}

/// The news of connections that run on threads of their own.
public final class BrokerJournal: Sendable {
    private let news: Mutex<BrokerNews>
    private let tell: @Sendable (BrokerNews.Item) -> Void

    /// - Parameters:
    ///   - ends: the connections' names
    ///   - tell: called on a connection's thread, and must be quick
    public init(ends: [String], tell: @escaping @Sendable (BrokerNews.Item) -> Void) {
        news = Mutex(BrokerNews(ends: ends))
        self.tell = tell
    }

    /// The function to which a connection reports its changes.
    public func observer(of end: String) -> @Sendable (ConnectionChange) -> Void {
        { change in
            // `tell` is called under the lock, so that the news keeps the order of the events.
            self.news.withLock { news in
                if let item = news.heard(change, from: end) { self.tell(item) }
            }
        }
    }
}

extension BrokerError {
    /// Whether the broker answers and refuses. The message of a broker that is being stopped (320 CONNECTION_FORCED) is no refusal.
    var isRefusal: Bool {
        switch code {
        case .authenticationFailed, .topologyMismatch, .invalidConfiguration: true
        case .refused(let replyCode): replyCode != 320
        case .connectFailed, .connectionLost, .timedOut, .notConnected, .invalidMessage, .overloaded, .closed: false
        }
    }
}
