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
    }

    /// More hosts in one address are refused.
    static let maximum = 16

    let hosts: [Host]
    private let state: Mutex<State>

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
        return (0..<count).map { index in
            Host(host: names?[index], address: addresses?[index], port: ports.count == 1 ? ports[0] : ports.isEmpty ? nil : ports[index])
        }
    }
}
