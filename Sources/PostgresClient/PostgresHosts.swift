// Invariant: all sessions of one address share its `PostgresHosts`. So the first session that finds the server which may write leads the others there, and the
//   first one that waits in vain for a host spares the others that wait.
//
// Bounds: `maximum` hosts; for each the words of its last failure.

import Synchronization

/// The hosts of one address, and what its sessions have met there.
public final class PostgresHosts: Sendable {
    /// One host, for an operator. It holds no secret.
    public struct Snapshot: Hashable, Sendable {
        /// `host:port`, as in the address.
        public var name: String
        /// Whether the newest session was opened here.
        public var isCurrent: Bool
        /// Sessions that could not be opened here since the start, and calls that were not answered in time.
        public var failures: Int
        /// Why the last one failed; nil if none has failed since a session was opened here.
        public var trouble: String?
    }

    /// The newest session was opened at another host than the one before it.
    public struct Change: Hashable, Sendable {
        /// The host.
        public var host: String
        /// The host before; nil for the first session.
        public var before: String?
        /// What the host before has last met.
        public var trouble: String?
    }

    /// Sessions have reached another history of the data than before: a standby was promoted, or a backup restored. Commits of the one before may be lost.
    public struct HistoryChange: Hashable, Sendable {
        /// The history now.
        public var now: PostgresHistory
        /// The history before.
        public var before: PostgresHistory
    }

    /// Where one host is, in libpq's words. What is nil or empty is libpq's default.
    struct Host: Hashable, Sendable {
        var host: String?
        var address: String?
        var port: String?

        /// `host:port`; a host of the defaults has no name.
        var name: String {
            let place = [host, address].compactMap { $0 }.first { !$0.isEmpty } ?? "(default)"
            guard let port, !port.isEmpty else { return place }
            return "\(place):\(port)"
        }
    }

    private struct State {
        var order: HostOrder
        var failures: [Int]
        var troubles: [String?]
        var observer: (@Sendable (Change) -> Void)?
        var history = PostgresHistoryWatch()
        var historian: (@Sendable (HistoryChange) -> Void)?
        /// For each host whose sessions have left a process behind, by the host's place.
        var abandoned: [Int: AbandonedWaits] = [:]
        /// Processes for which no thread could be made.
        var abandonedWithoutThread = 0
    }

    /// More hosts in one address are refused.
    static let maximum = 16

    let hosts: [Host]
    private let state: Mutex<State>
    private let histories = Atomic<UInt64>(0)
    private let watchesHistory = Atomic<Bool>(false)

    init(_ hosts: [Host]) {
        self.hosts = hosts
        state = Mutex(
            State(
                order: HostOrder(count: hosts.count),
                failures: Array(repeating: 0, count: hosts.count),
                troubles: Array(repeating: nil, count: hosts.count)
            )
        )
    }

    /// How many hosts the address names.
    public var count: Int { hosts.count }

    /// The hosts, in the address' order.
    public func snapshot() -> [Snapshot] {
        state.withLock { state in
            hosts.indices.map { index in
                Snapshot(
                    name: hosts[index].name,
                    isCurrent: state.order.current == index,
                    failures: state.failures[index],
                    trouble: state.troubles[index]
                )
            }
        }
    }

    /// Sets who is told when sessions are opened at another host. It is called on the thread of a session, under no lock.
    public func onChange(_ observer: @escaping @Sendable (Change) -> Void) { state.withLock { $0.observer = observer } }

    /// Has every session learn, when it is opened, the history of its server's data, and sets who is told of a change. That costs each new session two round
    /// trips. When the history has changed, sessions that were opened before are replaced before their next call, except inside a transaction. A server that was
    /// replaced by a promoted one is not used any more.
    ///
    /// The observer is called on the thread of the session that found the change, before that session is used, and under no lock.
    public func watchHistory(_ observer: @escaping @Sendable (HistoryChange) -> Void) {
        state.withLock { $0.historian = observer }
        watchesHistory.store(true, ordering: .releasing)
    }

    /// The newest history; nil if none is known.
    public var history: PostgresHistory? { state.withLock { $0.history.current } }

    var isHistoryWatched: Bool { watchesHistory.load(ordering: .acquiring) }

    /// How often the history has changed.
    var generation: UInt64 { histories.load(ordering: .acquiring) }

    /// What is known of the history now. A session takes it before it asks a server.
    var historyMark: PostgresHistoryWatch.Mark { state.withLock { $0.history.mark } }

    /// A session was opened at a server with this history.
    /// - Returns: the number of the history to which the session belongs; and why the session must not be used, nil if it may
    func opened(
        _ history: PostgresHistory,
        at position: UInt64?,
        since mark: PostgresHistoryWatch.Mark
    ) -> (generation: UInt64, refusal: String?) {
        let (news, generation, observer) = state.withLock { state in
            let news = state.history.opened(history, at: position, since: mark)
            return (news, state.history.generation, state.historian)
        }
        switch news {
        case .none: return (generation, nil)
        case .changed(let before):
            observer?(HistoryChange(now: history, before: before))
            // Other sessions are replaced only when the observer has acted on the change. Another change may have been told meanwhile.
            histories.max(generation, ordering: .releasing)
            return (generation, nil)
        case .outdated(let current):
            let words = "the server has been replaced by another: it has \(history), and sessions have used \(current)"
            return (generation, words + " (if it was put back on purpose, restart this program)")
        }
    }

    /// Server processes that sessions gave up while the outcome of a commit was unknown: those whose wait for the synchronous standby was ended or that had ended
    /// by themselves, and those that were left alone.
    public var abandonedWaits: (ended: Int, dropped: Int) {
        let (hosts, without) = state.withLock { ($0.abandoned.values.map(\.counts), $0.abandonedWithoutThread) }
        return (hosts.reduce(0) { $0 + $1.ended }, hosts.reduce(without) { $0 + $1.dropped })
    }

    /// A session of this configuration has given up a process of this host, while the outcome of what it had sent is unknown.
    func abandoned(_ process: Int64, at host: Int, of configuration: PostgresConfiguration) {
        let waits = state.withLock { state -> AbandonedWaits? in
            if let waits = state.abandoned[host] { return waits }
            do throws(PostgresError) {
                let waits = try AbandonedWaits(configuration.leading(to: host))
                state.abandoned[host] = waits
                return waits
            } catch {
                state.abandonedWithoutThread += 1
                return nil
            }
        }
        waits?.add(process)
    }

    /// The hosts in the order in which the next attempt tries them.
    func attempt() -> [Int] { state.withLock { $0.order.attempt } }

    func worked(_ host: Int) {
        let (observer, change) = state.withLock { state in
            let before = state.order.current
            state.troubles[host] = nil
            guard state.order.worked(host) else { return (nil as (@Sendable (Change) -> Void)?, nil as Change?) }
            let change = Change(
                host: hosts[host].name,
                before: before.map { hosts[$0].name },
                trouble: before.flatMap { state.troubles[$0] }
            )
            return (state.observer, change)
        }
        if let change { observer?(change) }
    }

    func failed(_ host: Int, _ why: String) {
        state.withLock { state in
            state.order.failed(host)
            state.failures[host] += 1
            state.troubles[host] = why
        }
    }

    /// The hosts that these settings of an address name.
    /// - Throws: `invalidConfiguration` if libpq could not tell which port belongs to which host
    static func read(_ settings: [PostgresConfiguration.Setting]) throws(PostgresError) -> [Host] {
        func list(_ keyword: String) -> [String]? {
            settings.first { $0.keyword == keyword }?.value.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
        }
        func refusal(_ words: String) -> PostgresError { PostgresError(code: .invalidConfiguration, message: words) }
        let (names, addresses) = (list("host"), list("hostaddr"))
        if let names, let addresses, names.count != addresses.count {
            throw refusal("\(names.count) hosts and \(addresses.count) values of hostaddr do not go together")
        }
        let count = names?.count ?? addresses?.count ?? 1
        guard count <= maximum else { throw refusal("more than \(maximum) hosts") }
        let ports = list("port") ?? []
        guard ports.count <= 1 || ports.count == count else { throw refusal("\(count) hosts and \(ports.count) ports do not go together") }
        // A password with an unescaped / ends up here. libpq would name it.
        guard ports.allSatisfy({ $0.isEmpty || UInt16($0) != nil }) else { throw refusal("a port is not a number from 1 to 65535") }
        return (0..<count).map { index in
            Host(host: names?[index], address: addresses?[index], port: ports.count == 1 ? ports[0] : ports.isEmpty ? nil : ports[index])
        }
    }
}
