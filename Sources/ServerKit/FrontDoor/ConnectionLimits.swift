// How many connections a port keeps, in all and for each address, so that one client cannot take the places of all others.
//
// Invariant: every connection that was let in is let out once, when it has ended.
// Bounds: `maximumPerAddress` connections of an address, and `maximum` in all. Where its address or the server is full, a connection is kept only for what must
//   always be answered: health, and the reserved routes of the port. There are `reserve` places for such connections behind `maximum`, and of one address at
//   most `reservePerAddress` are kept, so that nobody takes the whole reserve. Beyond that a connection is closed as soon as it is accepted. So the kernel's
//   queue stays empty, and those that must be answered are accepted at once.

import CNIOLinux
import HotPath
import ServerMetrics
import NIOCore
import Synchronization

/// What a connection may ask for.
enum ConnectionPass: Sendable, Equatable {
    /// Each of its requests is worked on.
    case ordinary
    /// What must be answered while the server is full, by path: `true` for the paths that keep the connection, `false` for those that end it.
    case reserve([String: Bool])

    /// Whether the request may be worked on.
    func admits(_ head: RequestHead) -> Bool {
        switch self {
        case .ordinary: true
        case .reserve(let paths): paths[head.pathWithoutQuery] != nil
        }
    }

    /// Whether the request is the last of its connection.
    func endsAfter(_ head: RequestHead, status: Int = 200) -> Bool {
        switch self {
        case .ordinary: false
        // A connection of the reserve whose request is refused gives its place back.
        case .reserve(let paths): paths[head.pathWithoutQuery] != true || status >= 400
        }
    }

    /// A connection of the reserve that asks for nothing gives its place back soon, before a call that waits for a place is given up.
    func times(_ times: ConnectionTimes) -> ConnectionTimes {
        guard case .reserve = self else { return times }
        var times = times
        times.idle = min(times.idle, .milliseconds(500))
        times.request = min(times.request, .milliseconds(500))
        return times
    }
}

/// Counts the connections of one port.
final class ConnectionLimits: Sendable {
    struct Bounds: Sendable {
        var maximum = 10_000
        var maximumPerAddress = 5_000
        var reserve = 64
        /// Half of the reserve: whoever takes that again and again leaves the other half to the others.
        var reservePerAddress = 32
        /// See ``ConnectionPass/reserve(_:)``.
        var reservedPaths: [String: Bool] = ["/livez": false, "/readyz": false]
    }

    /// The connections of one address.
    private struct Share {
        var ordinary = 0
        var reserved = 0
    }

    private struct State {
        var total = 0
        var byAddress: [[UInt8]: Share] = [:]
    }

    let bounds: Bounds
    private let metrics: FrontDoorMetrics?
    private let state = Mutex(State())

    init(_ bounds: Bounds, metrics: FrontDoorMetrics?) {
        self.bounds = bounds
        self.metrics = metrics
    }

    /// Connections that are let in now.
    var count: Int { state.withLock { $0.total } }

    /// Lets a connection in; nil: it is to be closed.
    func enter(_ address: SocketAddress?) -> ConnectionPass? {
        let key = ConnectionLimits.key(address)
        let (pass, reason) = self.state.withLock { state -> (ConnectionPass?, FrontDoorMetrics.Full?) in
            var share = state.byAddress[key] ?? Share()
            let isFull = state.total >= bounds.maximum
            let isAddressFull = share.ordinary >= bounds.maximumPerAddress
            let reason: FrontDoorMetrics.Full? = isAddressFull ? .address : isFull ? .total : nil
            if reason != nil {
                // The sum cannot overflow: `maximum` is a setting of a million at most, and `reserve` a constant.
                if state.total >= bounds.maximum + bounds.reserve { return (nil, .total) }
                if share.reserved >= bounds.reservePerAddress { return (nil, .address) }
                share.reserved += 1
            } else {
                share.ordinary += 1
            }
            state.total += 1
            state.byAddress[key] = share
            return (reason == nil ? .ordinary : .reserve(bounds.reservedPaths), reason)
        }
        if let reason { metrics?.full(reason, isClosed: pass == nil) }
        return pass
    }

    /// A connection that was let in has ended.
    func leave(_ address: SocketAddress?, _ pass: ConnectionPass) {
        let key = ConnectionLimits.key(address)
        self.state.withLock { state in
            state.total -= 1
            guard var share = state.byAddress[key] else { return }
            if pass == .ordinary { share.ordinary -= 1 } else { share.reserved -= 1 }
            state.byAddress[key] = share.ordinary > 0 || share.reserved > 0 ? share : nil
        }
    }

    /// What counts as one client: an IPv4 address, or the /64 of an IPv6 address, of which one client has all.
    static func key(_ address: SocketAddress?) -> [UInt8] {
        switch address {
        case .v4(let address): withUnsafeBytes(of: address.address.sin_addr) { Array($0) }
        case .v6(let address):
            withUnsafeBytes(of: address.address.sin6_addr) { bytes in
                // ::ffff:a.b.c.d is the IPv4 address that it names.
                let isMapped = bytes[0..<10].allSatisfy { $0 == 0 } && bytes[10] == 0xFF && bytes[11] == 0xFF
                return isMapped ? Array(bytes[12..<16]) : Array(bytes[0..<8])
            }
        default: []
        }
    }
}

/// What the front doors of one port count.
final class FrontDoorMetrics: Sendable {
    /// What was full when a connection came.
    enum Full: String, CaseIterable, Sendable {
        case total
        case address
    }

    /// `public` or `admin`.
    let port: String
    private let refusals: [RequestRefusal: Counter]
    private let closes: [ConnectionClock.Verdict: Counter]
    private let closed: [Full: Counter]
    private let reserved: Counter
    private let handshakes: Counter
    private let left: Counter

    init(_ registry: MetricsRegistry, port: String) {
        self.port = port
        func counters<Key: CaseIterable & Hashable & RawRepresentable>(
            _ name: String,
            _ help: String,
            _ label: String,
            of type: Key.Type
        ) -> [Key: Counter] where Key.RawValue == String {
            Dictionary(
                uniqueKeysWithValues: Key.allCases.map {
                    ($0, registry.counter(name, help: help, labels: [("port", port), (label, $0.rawValue)]))
                }
            )
        }
        refusals = counters(
            "stockgate_http_requests_refused_total",
            "Requests refused before any route saw them, which ends their connection.",
            "reason",
            of: RequestRefusal.self
        )
        closes = counters(
            "stockgate_http_connections_timed_out_total",
            "Connections closed for waiting too long: for the rest of a request, for their answer to be taken, or for a request.",
            "waited_for",
            of: ConnectionClock.Verdict.self
        )
        closed = counters(
            "stockgate_http_connections_refused_total",
            "Connections closed as soon as they came, because the server or their address had too many.",
            "full",
            of: Full.self
        )
        reserved = registry.counter(
            "stockgate_http_connections_reserved_total",
            help: "Connections kept only for health and the reserved routes, because the server or their address had too many.",
            labels: [("port", port)]
        )
        handshakes = registry.counter(
            "stockgate_tls_handshakes_failed_total",
            help: "Connections that ended before their TLS handshake did.",
            labels: [("port", port)]
        )
        left = registry.counter(
            "stockgate_http_connections_left_total",
            help: "Connections that nobody had accepted when the port was closed, which resets them.",
            labels: [("port", port)]
        )
    }

    /// The port is closed while so many clients wait to be accepted.
    func closedBefore(_ clients: Int) { left.add(UInt64(clamping: clients)) }

    func handshakeFailed() { handshakes.add() }

    func refused(_ refusal: RequestRefusal) { refusals[refusal]?.add() }
    func closed(_ verdict: ConnectionClock.Verdict) { closes[verdict]?.add() }
    func full(_ full: Full, isClosed: Bool) { (isClosed ? closed[full] : reserved)?.add() }
}
