// Consumes one queue over one connection, with manual acknowledgement, in batches.
//
// Invariant: a delivery is given to one caller, and acknowledged only on the connection that it came from. When that connection ends, the broker delivers
//   unacknowledged messages again.
// Bounds: the prefetch bounds buffered and unacknowledged deliveries together, and with them the acknowledgements that wait to be written.
// Stop: `shutdown`, or the end of the last reference.

import BlockingThreads
import DequeModule
import Synchronization

/// Receives the messages of one queue, for any number of concurrent callers, over one connection and one thread.
public final class Consumer: Sendable {
    /// Where to begin reading a stream.
    public enum StreamOffset: Sendable, Hashable {
        /// At the oldest message.
        case first
        /// At the last chunk of messages.
        case last
        /// At the next message that is published.
        case next
        /// At the message with this offset, or the first one after it.
        case offset(UInt64)
    }

    private let control: ConnectionControl
    private let inbox: AsyncMonitor<ConsumerInbox>

    /// Starts the thread, which connects, declares the topology and consumes. It tries again for ever.
    ///
    /// - Parameters:
    ///   - prefetch: how many unacknowledged deliveries the broker may send, 1 to 65535
    ///   - streamOffset: for a stream: where to begin. After a reconnect, reading continues after the last offset up to which all messages were acknowledged.
    ///   - name: the thread's name, of which the system shows 15 bytes
    ///   - onChange: called with every change of the connection, on its thread
    /// - Throws: only if the system has no thread or descriptor left.
    public init(
        configuration: BrokerConfiguration,
        topology: Topology,
        queue: String,
        prefetch: Int = 512,
        streamOffset: StreamOffset? = nil,
        name: String = "consumer",
        onChange: @escaping @Sendable (ConnectionChange) -> Void = { _ in }
    ) throws(BrokerError) {
        let control = try ConnectionControl(onChange: onChange)
        let inbox = AsyncMonitor(ConsumerInbox(streamOffset: streamOffset))
        self.control = control
        self.inbox = inbox
        let prefetch = UInt16(clamping: max(1, prefetch))
        try ThreadUnavailable.translated(by: BrokerError.init) { () throws(ThreadUnavailable) in
            try BlockingThread.start(name: name) {
                let role = ConsumerRole(control, inbox, queue: queue, prefetch: prefetch)
                ConnectionLoop(configuration: configuration, topology: topology, control: control, role: role).run()
            }
        }
    }

    deinit { control.stop(at: .now) }

    /// The deliveries that are there, at most `max`. Waits only while there is none, also across reconnects.
    ///
    /// - Returns: an empty array if nothing came within `wait`, or if the task was cancelled
    /// - Throws: `closed`.
    public func nextBatch(max: Int, wait: Duration) async throws(BrokerError) -> [Delivery] {
        let batch = await inbox.wait(until: .now + wait) { inbox -> Result<[Delivery], BrokerError>? in
            if inbox.isClosed { return .failure(BrokerError(code: .closed, message: "the consumer was closed")) }
            if inbox.buffer.isEmpty { return nil }
            return .success(inbox.take(Swift.max(1, max)))
        }
        return try batch?.get() ?? []
    }

    /// Acknowledges deliveries, so that the broker forgets them. Returns at once; the thread writes the acknowledgements.
    ///
    /// - Returns: how many of them could still be acknowledged. Deliveries of an older connection, and those that were settled before, are ignored.
    @discardableResult
    public func acknowledge(_ deliveries: [Delivery]) -> Int {
        let count = inbox.withLock { $0.acknowledge(deliveries.lazy.map(\.tag)) }
        if count > 0 { control.wake.signal() }
        return count
    }

    /// Rejects a delivery. Returns at once; the thread writes the rejection.
    ///
    /// - Parameter requeue: true: the message is delivered again; false: it goes to the queue's dead-letter exchange, if there is one
    /// - Returns: false if the delivery could no longer be rejected, for the reasons given at ``acknowledge(_:)``
    @discardableResult
    public func reject(_ delivery: Delivery, requeue: Bool) -> Bool {
        let isRejected = inbox.withLock { $0.reject(delivery.tag, requeue: requeue) }
        if isRejected { control.wake.signal() }
        return isRejected
    }

    /// Waits until the consumer is connected and consuming.
    ///
    /// - Throws: the last failure: at once if it is permanent (topology, authentication), otherwise when the bound has passed. The thread goes on trying to
    ///   connect.
    public func waitUntilConnected(within bound: Duration) async throws(BrokerError) {
        try await control.waitUntilConnected(within: bound)
    }

    /// The connection's state and the counts.
    public func snapshot() -> BrokerSnapshot {
        var snapshot = control.status.withLock { $0.snapshot }
        inbox.withLock { inbox in
            snapshot.delivered = inbox.delivered
            snapshot.redelivered = inbox.redelivered
            snapshot.acknowledged = inbox.acknowledged
            snapshot.rejectedDeliveries = inbox.rejected
            snapshot.lateSettlements = inbox.late
            snapshot.buffered = inbox.buffer.count
            snapshot.unacknowledged = inbox.tracker.unsettled
        }
        return snapshot
    }

    /// Stops giving out deliveries, spends at most `bound` on writing the acknowledgements given so far, and closes the connection. Unsettled messages go back
    /// to the queue.
    public func shutdown(within bound: Duration = .seconds(5)) async {
        inbox.update { $0.isClosed = true }
        await control.shutdown(within: bound)
    }
}

/// What the consumer's callers share with its thread.
struct ConsumerInbox: Sendable {
    var buffer: Deque<Delivery> = []
    var tracker = SettlementTracker()
    /// Acknowledgements and rejections that wait to be written.
    var frames: [SettlementTracker.Frame] = []
    var isClosed = false
    var streamOffset: Consumer.StreamOffset?
    /// For a stream: the offsets of the deliveries, from the oldest unsettled one on.
    private var offsets: Deque<UInt64?> = []
    private let isStream: Bool

    private(set) var delivered = 0
    private(set) var redelivered = 0
    private(set) var acknowledged = 0
    private(set) var rejected = 0
    private(set) var late = 0

    init(streamOffset: Consumer.StreamOffset?) {
        self.streamOffset = streamOffset
        isStream = streamOffset != nil
    }

    mutating func take(_ maximum: Int) -> [Delivery] {
        let count = min(maximum, buffer.count)
        let taken = Array(buffer.prefix(count))
        buffer.removeFirst(count)
        return taken
    }

    mutating func acknowledge(_ tags: some Collection<DeliveryTag>) -> Int {
        let count = tracker.acknowledge(tags, &frames)
        acknowledged += count
        late += tags.count - count
        advance()
        return count
    }

    mutating func reject(_ tag: DeliveryTag, requeue: Bool) -> Bool {
        guard let frame = tracker.reject(tag, requeue: requeue) else {
            late += 1
            return false
        }
        frames.append(frame)
        rejected += 1
        advance()
        return true
    }

    /// Records a delivery. Returns false if the broker broke the protocol.
    mutating func arrived(_ number: UInt64, _ delivery: Delivery) -> Bool {
        guard tracker.delivered(number) else { return false }
        if isStream {
            let offset = delivery.streamOffset
            offsets.append(offset)
            // A stream is sent in chunks, and the first chunk may begin before the offset that was asked for.
            if case .offset(let wanted)? = streamOffset, let offset, offset < wanted {
                _ = tracker.acknowledge(CollectionOfOne(delivery.tag), &frames)
                advance()
                return true
            }
        }
        delivered += 1
        if delivery.isRedelivered { redelivered += 1 }
        buffer.append(delivery)
        return true
    }

    /// Handles a delivery whose body was too large to keep. It goes to the dead letters; in a stream it is skipped.
    mutating func arrivedOversized(_ tag: DeliveryTag) -> Bool {
        guard tracker.delivered(tag.number) else { return false }
        delivered += 1
        if isStream {
            offsets.append(nil)
            _ = acknowledge(CollectionOfOne(tag))
        } else {
            _ = reject(tag, requeue: false)
        }
        return true
    }

    /// The connection has ended.
    mutating func lost() {
        buffer.removeAll()
        frames.removeAll()
        offsets.removeAll()
        tracker.lost()
    }

    /// Moves the offset at which to resume after all deliveries that are settled.
    private mutating func advance() {
        guard isStream else { return }
        while offsets.count > tracker.unsettledSpan {
            if let offset = offsets.removeFirst() { streamOffset = .offset(max(offset &+ 1, streamOffset?.number ?? 0)) }
        }
    }
}

extension Consumer.StreamOffset {
    /// The consumer argument `x-stream-offset`.
    var argument: HeaderValue {
        switch self {
        case .first: "first"
        case .last: "last"
        case .next: "next"
        case .offset(let offset): .integer(Int64(clamping: offset))
        }
    }

    var number: UInt64? {
        if case .offset(let offset) = self { offset } else { nil }
    }
}

/// The part of the consumer that runs on the connection's thread.
final class ConsumerRole: ConnectionRole {
    private enum Arrival {
        case delivery(UInt64, Delivery)
        case oversized(UInt64)
    }

    private let control: ConnectionControl
    private let inbox: AsyncMonitor<ConsumerInbox>
    private let queue: String
    private let prefetch: UInt16
    private var arrivals: [Arrival] = []

    init(_ control: ConnectionControl, _ inbox: AsyncMonitor<ConsumerInbox>, queue: String, prefetch: UInt16) {
        self.control = control
        self.inbox = inbox
        self.queue = queue
        self.prefetch = prefetch
    }

    var isDrained: Bool { inbox.withLock { $0.frames.isEmpty } }

    func prepare(_ connection: AMQPConnection) throws(BrokerError) {
        let (generation, offset) = inbox.withLock { ($0.tracker.generation, $0.streamOffset) }
        connection.generation = generation
        try connection.consume(queue, prefetch: prefetch, arguments: offset.map { ["x-stream-offset": $0.argument] } ?? [:])
    }

    func ready() {}

    func turn(_ connection: AMQPConnection, now: ContinuousClock.Instant) throws(BrokerError) -> ContinuousClock.Instant? {
        let frames = inbox.withLock { inbox in
            if inbox.frames.isEmpty { return [SettlementTracker.Frame]() }
            defer { inbox.frames = [] }
            return inbox.frames
        }
        for frame in frames { try connection.append(frame) }
        return nil
    }

    func received(_ event: AMQPConnection.Event) throws(BrokerError) {
        switch event {
        case .delivered(let number, let delivery): arrivals.append(.delivery(number, delivery))
        case .oversized(let number): arrivals.append(.oversized(number))
        case .consumerCancelled:
            control.status.withLock { $0.snapshot.consumerCancels += 1 }
            // A new connection declares the queue again, and makes sure that no delivery of the old consumer is acknowledged on it.
            throw BrokerError(code: .connectionLost, message: "the broker ended the consumer of '\(queue)': the queue was deleted or moved")
        case .acknowledged, .refused, .returned, .blocked, .unblocked: return
        }
    }

    func endOfInput() throws(BrokerError) {
        if arrivals.isEmpty { return }
        let arrivals = arrivals
        self.arrivals.removeAll(keepingCapacity: true)
        let isInOrder = inbox.update { inbox in
            for arrival in arrivals {
                let isNext =
                    switch arrival {
                    case .delivery(let number, let delivery): inbox.arrived(number, delivery)
                    case .oversized(let number): inbox.arrivedOversized(DeliveryTag(generation: inbox.tracker.generation, number: number))
                    }
                if !isNext { return false }
            }
            return true
        }
        if !isInOrder { throw BrokerError(code: .connectionLost, message: "the broker's delivery tags do not follow each other") }
    }

    func ended(_ failure: BrokerError, retryAt: ContinuousClock.Instant?) {
        arrivals.removeAll()
        inbox.update { $0.lost() }
    }
}
