// Consumes one queue over one connection, with manual acknowledgement, in batches.
//
// Invariant: a delivery is given to one caller, and acknowledged only on the connection it came from; what is not acknowledged when that ends comes again.
// Bounds: the prefetch bounds what is buffered and what is unacknowledged together, so also the acknowledgements that wait to be written.
// Stop: `close`, or the end of the last reference.

import BlockingThreads
import DequeModule
import Synchronization

/// Receives the messages of one queue. Any number of callers at once; one connection, one thread.
public final class Consumer: Sendable {
    /// Where to begin to read a stream.
    public enum StreamOffset: Sendable, Hashable {
        /// The oldest message there is.
        case first
        /// The last chunk of messages.
        case last
        /// What is published from now on.
        case next
        /// The message with this offset, or the oldest after it.
        case offset(UInt64)
    }

    private let control: ConnectionControl
    private let inbox: AsyncMonitor<ConsumerInbox>

    /// Starts the thread, which connects, declares the topology, consumes, and keeps on trying for ever.
    ///
    /// - Parameters:
    ///   - prefetch: how many unacknowledged deliveries the broker may send, 1 to 65535.
    ///   - streamOffset: for a stream: where to begin. After a reconnect it goes on behind the last offset up to which all was acknowledged.
    ///   - name: the thread's name, of which the system shows 15 bytes.
    ///   - onChange: hears of every change of the connection, on its thread.
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

    /// Everything that is there, up to `max` deliveries; waits only while there is nothing, also across reconnects.
    ///
    /// - Returns: none if nothing came within `wait`, or the task was cancelled.
    /// - Throws: `closed`.
    public func nextBatch(max: Int, wait: Duration) async throws(BrokerError) -> [Delivery] {
        let batch = await inbox.wait(until: .now + wait) { inbox -> Result<[Delivery], BrokerError>? in
            if inbox.isClosed { return .failure(BrokerError(code: .closed, message: "the consumer was closed")) }
            if inbox.buffer.isEmpty { return nil }
            return .success(inbox.take(Swift.max(1, max)))
        }
        return try batch?.get() ?? []
    }

    /// Acknowledges deliveries: the broker forgets them. Returns at once; the thread writes it.
    ///
    /// - Returns: how many of them could still be acknowledged. Those of an older connection, and those settled before, are ignored.
    @discardableResult
    public func acknowledge(_ deliveries: [Delivery]) -> Int {
        let count = inbox.withLock { $0.acknowledge(deliveries.lazy.map(\.tag)) }
        if count > 0 { control.wake.signal() }
        return count
    }

    /// Rejects a delivery. Returns at once; the thread writes it.
    ///
    /// - Parameter requeue: true: it is delivered again; false: it goes to the queue's dead-letter exchange, if it has one.
    /// - Returns: false if it could no longer be rejected, as for ``acknowledge(_:)``.
    @discardableResult
    public func reject(_ delivery: Delivery, requeue: Bool) -> Bool {
        let isRejected = inbox.withLock { $0.reject(delivery.tag, requeue: requeue) }
        if isRejected { control.wake.signal() }
        return isRejected
    }

    /// Waits until connected and consuming.
    ///
    /// - Throws: the last failure: at once if it is permanent (topology, authentication), else when the bound has passed. The connection goes on trying.
    public func waitUntilConnected(within bound: Duration) async throws(BrokerError) {
        try await control.waitUntilConnected(within: bound)
    }

    /// The connection's state and the counts.
    public var snapshot: BrokerSnapshot {
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

    /// Gives out nothing more, writes the acknowledgements given so far, at most that long, and closes the connection. The rest goes back to the queue.
    public func close(within bound: Duration = .seconds(5)) async {
        inbox.update { $0.isClosed = true }
        await control.close(within: bound)
    }
}

/// What the consumer's callers and its thread share.
struct ConsumerInbox: Sendable {
    var buffer: Deque<Delivery> = []
    var tracker = SettlementTracker()
    /// Acknowledgements and rejections to be written.
    var frames: [SettlementTracker.Frame] = []
    var isClosed = false
    var streamOffset: Consumer.StreamOffset?
    /// Offsets of the deliveries from the oldest unsettled one on, of a stream.
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

    /// A delivery came. False: the broker broke its protocol.
    mutating func arrived(_ number: UInt64, _ delivery: Delivery) -> Bool {
        guard tracker.delivered(number) else { return false }
        if isStream {
            let offset = delivery.streamOffset
            offsets.append(offset)
            // A stream is sent in chunks: the first one may begin before the offset that was asked for.
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

    /// A delivery came whose body was too large to keep: to the dead letters, or past it in a stream.
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

    /// The connection is over.
    mutating func lost() {
        buffer.removeAll()
        frames.removeAll()
        offsets.removeAll()
        tracker.lost()
    }

    /// Moves the offset to resume from behind all that is settled.
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

/// The consumer's part of the connection's thread.
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
            // A new connection declares the queue again, and makes sure that nothing of the old one is acknowledged on it.
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
