import HotPath
import NIOCore
import NIOTransportSecurity

/// What the front doors of one port share.
struct FrontDoorConfiguration: Sendable {
    var limits = RequestReader.Limits()
    var times = ConnectionTimes()
    /// Whether the server asks its clients to go elsewhere.
    var drain = ServerDrain()
    var metrics: FrontDoorMetrics?
    /// What the port shows of itself; nil: it speaks no TLS.
    var tls: TLSServerContexts?
    /// Bytes of answers that a channel's socket has not taken yet.
    var unsentBytes: @Sendable (any Channel) -> Int = { channel in
        (try? channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
    }
    /// Bytes that the client's end of a channel has taken so far; nil: the channel cannot tell. Called on the channel's loop.
    var takenBytes: @Sendable (any Channel) -> UInt64? = { AcknowledgedBytes.of($0) }
}

/// What a front door holds at most of what a client sends.
enum FrontDoorSizes {
    /// Room for the largest request, two reads of the socket, and what the kernel hands over when the client ends its half.
    static let maximumWaitingBytes = 1024 * 1024
    /// What the kernel holds for a connection, which it doubles for its own needs. Left to itself it would give a client that sends much and fast a buffer of
    /// megabytes, and all of that comes at once when the client ends its half.
    static let receiveBufferBytes = 256 * 1024
}
