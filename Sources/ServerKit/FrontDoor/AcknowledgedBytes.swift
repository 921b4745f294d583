import Glibc
import NIOCore

/// What the other end of a TCP connection has taken. A socket's buffer holds megabytes, so that what the buffer takes says little of what a slow client takes.
enum AcknowledgedBytes {
    /// `struct tcp_info` of Linux as words of 64 bits, as far as `tcpi_bytes_acked` (since Linux 4.1): eight bytes, 24 numbers of 32 bits, two of 64 bits, and it. The
    /// kernel fills as much as it is given.
    private struct Information: Sendable {
        var head: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0, 0, 0)
        var rest: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0, 0, 0, 0)
        var acknowledged: UInt64 = 0
    }

    /// Bytes that have been acknowledged since the connection began; nil: the channel is no TCP socket. Called on the channel's loop.
    static func of(_ channel: any Channel) -> UInt64? {
        guard let provider = channel as? any SocketOptionProvider else { return nil }
        let found: EventLoopFuture<Information> = provider.unsafeGetSocketOption(
            level: .tcp,
            name: NIOBSDSocket.Option(rawValue: TCP_INFO)
        )
        var acknowledged: UInt64?
        // On the channel's own loop the answer is there at once.
        found.assumeIsolated().whenSuccess { acknowledged = $0.acknowledged }
        return acknowledged
    }
}
