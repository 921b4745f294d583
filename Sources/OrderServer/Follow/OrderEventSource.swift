/// One message of the stream.
struct StreamedMessage: Sendable {
    /// The message's position in the stream, from 0 and without gaps.
    var offset: UInt64
    var body: [UInt8]
}

/// Messages in the stream's order, and the function that tells the source not to send them again.
struct StreamedBatch: Sendable {
    var messages: [StreamedMessage]
    /// To be called once the messages are applied durably. Until then the source may hold further messages back, and sends these again after a reconnect.
    var acknowledge: @Sendable () -> Void = {}
}

/// The stream of the orders' events. It reconnects by itself whenever the connection is lost.
protocol OrderEventSource: Sendable {
    /// The messages that are there, at most `max`. Empty if none came within `wait`, or if the task was cancelled.
    /// - Throws: if the source was closed
    func nextBatch(max: Int, wait: Duration) async throws -> StreamedBatch
    /// Whether the source is connected now.
    var isConnected: Bool { get }
    /// How often the source has reconnected.
    var reconnects: Int { get }
    func shutdown() async
}

/// Where in the stream to begin.
enum StreamStart: Sendable, Equatable {
    /// At the oldest message that the stream still has.
    case first
    /// At this message, or the oldest one after it that the stream still has.
    case offset(UInt64)
}
