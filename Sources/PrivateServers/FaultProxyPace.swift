// When the bytes of one direction of a proxy may leave. A value without clock, connection or randomness of its own.
//
// Invariants
// - Jitter changes no order: bytes wait behind those that came before them on their connection.
// - With a bandwidth, no more bytes leave in any span than bandwidth × (the span + `catchUp`), plus one slice. All connections of the proxy share it, as they
//   would a line.
// Bounds: a slice is 5 ms of the bandwidth, so that what a large message delays is spread over time and over connections.

import NIOCore

/// Latency, jitter and bandwidth of one direction of a ``FaultProxy``.
struct FaultProxyPace {
    /// How long every byte is held.
    var latency = TimeAmount.zero
    /// How much longer a byte is held at most; how much of it is up to chance.
    var jitter = TimeAmount.zero
    /// Bytes a second; nil for as many as come. Above zero.
    var bandwidth: Int?
    /// When the line has sent what it was given.
    private var free = NIODeadline.uptimeNanoseconds(0)

    /// How much time of the line a late timer may make up for.
    static let catchUp = TimeAmount.milliseconds(50)

    init() {}

    /// When bytes that came at this time may leave.
    /// - Parameter chance: 0 to 1, drawn once for these bytes
    func due(came: NIODeadline, chance: Double) -> NIODeadline {
        came + latency + .nanoseconds(Int64(Double(jitter.nanoseconds) * min(max(chance, 0), 1)))
    }

    /// When the line takes further bytes; nil: now.
    func busyUntil(_ now: NIODeadline) -> NIODeadline? {
        bandwidth != nil && free > now ? free : nil
    }

    /// Gives the line so many of these bytes as it takes at once.
    /// - Returns: how many; all of them without a bandwidth, none while it is busy
    mutating func take(_ bytes: Int, at now: NIODeadline) -> Int {
        guard let bandwidth else { return bytes }
        guard free <= now else { return 0 }
        let taken = min(bytes, max(1, bandwidth / 200))
        // At most 2^63 ns, whatever the bandwidth: a slice is one byte or 5 ms of it.
        free = max(free, now - Self.catchUp) + .nanoseconds(Int64(Double(taken) / Double(bandwidth) * 1e9))
        return taken
    }
}
