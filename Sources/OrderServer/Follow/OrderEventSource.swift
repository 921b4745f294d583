/// One message of the stream.
struct StreamedMessage: Sendable {
    /// Its place in the stream, from 0 and without gaps.
    var offset: UInt64
    var body: [UInt8]
}

/// Messages in the stream's order, and how the source learns that they need not come again.
struct StreamedBatch: Sendable {
    var messages: [StreamedMessage]
    /// To be called when they are applied durably; until then a source may hold further ones back, and brings these again after it was connected anew.
    var acknowledge: @Sendable () -> Void = {}
}

/// The stream of the orders' events. It connects again by itself whenever the connection is lost.
protocol OrderEventSource: Sendable {
    /// Everything that is there, at most `max`; empty if nothing came within `wait` or the task was cancelled.
    /// - Throws: when it was closed
    func nextBatch(max: Int, wait: Duration) async throws -> StreamedBatch
    /// Whether it is connected now.
    var isConnected: Bool { get }
    /// How often a connection was lost and made again.
    var reconnects: Int { get }
    func close() async
}

/// Where in the stream to begin.
enum StreamStart: Sendable, Equatable {
    /// With the oldest message that the stream still has.
    case first
    /// With this message, or with the oldest one behind it that the stream still has.
    case offset(UInt64)
}
