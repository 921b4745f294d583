// In which order the hosts of an address are tried.
//
// Invariant: every attempt tries every host once. Hosts that have not failed since they last worked come first, the one that worked last at their head. Hosts
//   that have failed follow, the longest ago first. Therefore an attempt never begins with the host that failed last, if there is another.
// Bounds: two numbers for each host.

/// The order of the hosts, as a value. A host is named by its place in the address, from 0.
struct HostOrder: Hashable, Sendable {
    /// The host that worked last; nil until one has worked.
    private(set) var current: Int?
    /// For each host the number of its last failure; 0 if it has not failed since it last worked.
    private var failures: [UInt64]
    private var lastFailure: UInt64 = 0

    /// - Parameter count: how many hosts there are
    init(count: Int) { failures = Array(repeating: 0, count: count) }

    /// The hosts in the order in which the next attempt tries them.
    var attempt: [Int] {
        func rank(_ host: Int) -> (UInt64, Int, Int) { (failures[host], host == current ? 0 : 1, host) }
        return failures.indices.sorted { rank($0) < rank($1) }
    }

    /// A session was opened at this host.
    /// - Returns: whether that is another host than before
    mutating func worked(_ host: Int) -> Bool {
        guard failures.indices.contains(host) else { return false }
        failures[host] = 0
        defer { current = host }
        return current != host
    }

    /// This host refused a session, did not answer in time, or is not the kind of server that was asked for.
    mutating func failed(_ host: Int) {
        guard failures.indices.contains(host) else { return }
        lastFailure &+= 1
        failures[host] = lastFailure
    }
}
