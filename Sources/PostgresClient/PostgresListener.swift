// Invariant: on every connection, `listening` comes before the first notification. A consumer that reads the state anew at each `listening` misses only what
//   the bounded buffer dropped, and that is counted.
//
// Bounds: `bufferSize` events wait for the consumer; beyond that the oldest is dropped. Pauses between attempts to connect double up to `maximumBackoff`.
//   Stopping takes at most one tick (200 ms), or `connectTimeout` while connecting.

import BlockingThreads
import CLibPQ
import Synchronization

/// Listens on channels, with a connection and a thread of its own. It connects again whenever the connection is lost.
public final class PostgresListener: Sendable {
    /// What a consumer sees.
    public enum Event: Sendable, Hashable {
        /// The listener listens on the channels from now on. If it did so before, notifications may have been missed in between.
        case listening
        case notification(channel: String, payload: String)
    }

    private let stopping = WakeSignal()
    private let isStopped = Atomic(false)
    private let onDrop: @Sendable () -> Void

    /// The events, for one consumer. The listener stops when the consumer ends.
    public let events: AsyncStream<Event>

    /// Starts to listen.
    /// - Parameter onDrop: called on the listener's thread for each event that is dropped because the consumer is too slow
    public init(
        configuration: PostgresConfiguration,
        channels: [String],
        bufferSize: Int = 256,
        onDrop: @escaping @Sendable () -> Void = {}
    ) throws(PostgresError) {
        self.onDrop = onDrop
        let (events, continuation) = AsyncStream.makeStream(of: Event.self, bufferingPolicy: .bufferingNewest(max(1, bufferSize)))
        self.events = events
        // The stream ends with its consumer or through `shutdown`. Both end the thread.
        continuation.onTermination = { [weak self] _ in self?.shutdown() }
        try ThreadUnavailable.translated(by: PostgresError.init) { () throws(ThreadUnavailable) in
            try BlockingThread.start(name: "pg-listener") { [self] in
                listen(configuration, channels, continuation)
                continuation.finish()
            }
        }
    }

    /// Stops listening and ends ``events``.
    public func shutdown() {
        isStopped.store(true, ordering: .releasing)
        stopping.signal()
    }

    private func listen(_ configuration: PostgresConfiguration, _ channels: [String], _ out: AsyncStream<Event>.Continuation) {
        let session = PostgresSession(configuration: configuration)
        let backoff = Backoff(minimum: configuration.minimumBackoff, maximum: configuration.maximumBackoff)
        var failures = 0
        while !isStopped.load(ordering: .acquiring) {
            do throws(PostgresError) {
                for channel in channels {
                    try session.execute(
                        script: "LISTEN \"\(channel.split(separator: "\"", omittingEmptySubsequences: false).joined(separator: "\"\""))\""
                    )
                }
                failures = 0
                emit(.listening, out)
                while !isStopped.load(ordering: .acquiring) {
                    try session.waitForNotifications(for: .milliseconds(200)) { channel, payload in
                        emit(.notification(channel: channel, payload: payload), out)
                    }
                }
            } catch {
                session.close()
                if stopping.wait(for: backoff.wholeWait(after: failures)) { break }
                failures += 1
            }
        }
        session.close()
    }

    private func emit(_ event: Event, _ out: AsyncStream<Event>.Continuation) {
        if case .dropped = out.yield(event) { onDrop() }
    }
}
