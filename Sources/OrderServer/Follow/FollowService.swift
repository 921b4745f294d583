// Invariant: each order of the replica is in a state that the original had, and never goes back to an older one. The replica moves past a message only when its
//   content is durable here together with the position, or when it cannot be read. So messages may come repeatedly and in any order, and this process may end
//   at any time.
//
// Bounds: one batch of at most `batch` messages, and one statement at a time. A batch that the database does not take is tried again until it does, with the
//   pauses of `backoff`. Messages that cannot be read are logged at most once a minute.
// Stops: at shutdown, after the present statement. The remaining messages come again.

import APIErrors
import BlockingThreads
import Logging
import PostgresClient
import ServerKit
import ServerMetrics
import ServiceLifecycle
import StockContract
import StrictJSON

/// Builds a replica of the orders from the stream of their events.
struct FollowService: Service, CustomStringConvertible {
    struct Configuration: Sendable {
        var batch = 64
        /// How long no message must come for the replica to count as complete.
        var wait: Duration = .milliseconds(200)
        /// How many such periods in a row make a replica complete that has just been started. The stream does not say where it ends, and its first message may
        /// take a while.
        var quietRounds = 3
        var backoff = Backoff(minimum: .milliseconds(50), maximum: .seconds(2))
        /// How often the database is told that the replica is complete.
        var noteInterval: Duration = .seconds(10)
        /// How often messages that cannot be read are logged at most.
        var logInterval: Duration = .seconds(60)
    }

    let settings: Configuration
    let store: FollowStore
    let changes: OrderWatch
    let metrics: FollowMetrics
    let logger: Logger
    let open: @Sendable (StreamStart) throws -> any OrderEventSource
    /// Opens once the tables exist.
    private let prepared: PreparedLatch

    var description: String { "follow" }

    init(
        settings: Configuration = Configuration(),
        store: FollowStore,
        changes: OrderWatch,
        metrics: FollowMetrics,
        prepared: PreparedLatch = PreparedLatch(),
        logger: Logger,
        open: @escaping @Sendable (StreamStart) throws -> any OrderEventSource
    ) {
        self.settings = settings
        self.store = store
        self.changes = changes
        self.metrics = metrics
        self.prepared = prepared
        self.logger = logger
        self.open = open
    }

    func run() async throws {
        await cancelWhenGracefulShutdown {
            await prepared.wait()
            await follow()
        }
    }

    /// Follows until the task is cancelled.
    func follow() async {
        var failures = 0
        var anew: FollowPosition?
        // The loop ends by cancellation. Each round uses one source.
        while !Task.isCancelled {
            do {
                let (stored, completeAt) = try await store.load()
                let position = anew ?? stored
                anew = nil
                metrics.change { view in
                    view.position = position
                    view.completeUntil = view.completeUntil ?? completeAt
                    view.hadCaughtUp = completeAt != nil
                    view.isWriting = true
                }
                let source = try open(position.start)
                metrics.use(source)
                logger.info(
                    "following the stream of orders' events",
                    metadata: ["stream": "\(store.stream)", "from": "\(position.start)"]
                )
                do {
                    anew = try await read(source, position)
                } catch {
                    await source.shutdown()
                    throw error
                }
                await source.shutdown()
                failures = 0
            } catch {
                if Task.isCancelled { return }
                metrics.change { $0.isWriting = false }
                logger.warning("following the stream was interrupted and is tried again", metadata: ["error": "\(error)"])
                try? await Task.sleep(for: settings.backoff.wholeWait(after: failures))
                failures += 1
            }
        }
    }

    /// Reads one source until it is closed or the task is cancelled.
    /// - Returns: the position from which to read another source; nil at the end
    private func read(_ source: any OrderEventSource, _ position: FollowPosition) async throws -> FollowPosition? {
        var position = position
        var poison = PoisonLog(interval: settings.logInterval)
        var noted = ContinuousClock.now - settings.noteInterval
        var quiet = 0
        while !Task.isCancelled {
            let asked = Timestamp.now
            // Silence counts only if the same connection was up the whole time.
            let (wasConnected, reconnects) = (source.isConnected, source.reconnects)
            let batch = try await source.nextBatch(max: settings.batch, wait: settings.wait)
            if Task.isCancelled { return nil }
            guard !batch.messages.isEmpty else {
                // No message came although the connection was up, so everything up to the time of asking is here.
                guard wasConnected, source.isConnected, source.reconnects == reconnects else {
                    quiet = 0
                    continue
                }
                let isFirst = !metrics.snapshot().hasCaughtUp
                quiet += 1
                if isFirst, quiet < settings.quietRounds { continue }
                metrics.change { view in
                    view.completeUntil = max(view.completeUntil ?? asked, asked)
                    view.hasCaughtUp = true
                }
                if isFirst { logger.info("the replica is complete", metadata: ["offset": "\(position.last.map(String.init) ?? "-")"]) }
                if isFirst || ContinuousClock.now - noted >= settings.noteInterval {
                    noted = .now
                    // Only a later start of the server reads this value.
                    try? await store.noteComplete(at: asked)
                }
                continue
            }
            quiet = 0
            metrics.messages.add(UInt64(batch.messages.count))
            let gaps = position.gaps
            switch position.received(batch.messages.map(\.offset)) {
            case .apply: break
            case .startOver:
                logger.warning("the stream was made anew; it is read from its beginning", metadata: ["stream": "\(store.stream)"])
                return position
            }
            if position.gaps > gaps {
                logger.error(
                    "messages were cut from the stream before this replica saw them; orders that do not change any more are missing or old here",
                    metadata: ["missed": "\(position.missed)", "offset": "\(position.last ?? 0)"]
                )
            }
            let time = try await self.apply(batch, position, &poison)
            batch.acknowledge()
            let reached = position
            metrics.change { view in
                view.position = reached
                if let time { view.completeUntil = max(view.completeUntil ?? time, time) }
            }
        }
        return nil
    }

    /// Applies a batch, and repeats that until the database has taken it.
    /// - Returns: the time of the batch's newest event
    /// - Throws: when the task is cancelled
    private func apply(_ batch: StreamedBatch, _ position: FollowPosition, _ poison: inout PoisonLog) async throws -> Timestamp? {
        var events: [OrderEvent] = []
        for message in batch.messages {
            do throws(APIError) {
                events.append(try OrderEvent(message.body))
            } catch {
                leaveOut(message.offset, "\(error.code.rawValue) \(error.details)", &poison)
            }
        }
        metrics.batches.record(UInt64(batch.messages.count))
        do throws(PostgresError) {
            try await write(events, position)
        } catch {
            // The database has refused a value. Each message is written alone, so that a bad one does not stop the others. The position goes with the last one.
            for event in events {
                do throws(PostgresError) {
                    try await write([event], nil)
                } catch {
                    leaveOut(position.last ?? 0, "\(error)", &poison)
                }
                try Task.checkCancellation()
            }
            try? await write([], position)
        }
        try Task.checkCancellation()
        return events.map(\.time).max()
    }

    /// Writes events, and repeats that while the database is in passing trouble.
    /// - Throws: what the database refuses for good
    private func write(_ events: [OrderEvent], _ position: FollowPosition?) async throws(PostgresError) {
        // Only the newest version of an order in the batch is written, because one statement cannot write a row twice.
        var newest: [Int64: VersionedOrder] = [:]
        var count = 0
        for event in events {
            for order in event.orders.map(VersionedOrder.init(event:)) {
                count += 1
                if let known = newest[order.order.id], known.version >= order.version { continue }
                newest[order.order.id] = order
            }
        }
        var failures = 0
        // The loop ends when the events are written or refused, or when the task is cancelled.
        while true {
            do throws(PostgresError) {
                let changed = try await store.apply(Array(newest.values), position ?? metrics.snapshot().position)
                metrics.change { $0.isWriting = true }
                metrics.applied.add(UInt64(changed.count))
                metrics.stale.add(UInt64(count - changed.count))
                changes.changed(changed)
                return
            } catch {
                if Task.isCancelled { throw error }
                if case .server = error.code, !error.isTransient { throw error }
                metrics.change { $0.isWriting = false }
                logger.warning("the replica's database did not take a batch", metadata: ["error": "\(error)"])
                guard (try? await Task.sleep(for: settings.backoff.wholeWait(after: failures))) != nil else { throw error }
                failures += 1
            }
        }
    }

    private func leaveOut(_ offset: UInt64, _ reason: String, _ poison: inout PoisonLog) {
        metrics.poison.add()
        guard let count = poison.add(now: .now) else { return }
        logger.error(
            "messages of the stream cannot be read and are left out",
            metadata: ["count": "\(count)", "offset": "\(offset)", "reason": "\(reason.prefix(500))"]
        )
    }
}

/// Decides when to log messages that were left out: the first one at once, and those of an interval together, with the first one after it.
struct PoisonLog {
    let interval: Duration
    private var last: ContinuousClock.Instant?
    private var count = 0

    init(interval: Duration) { self.interval = interval }

    /// Adds one message.
    /// - Returns: how many messages to log now; nil for none
    mutating func add(now: ContinuousClock.Instant) -> Int? {
        count += 1
        if let last, now - last < interval { return nil }
        defer { count = 0 }
        self.last = now
        return count
    }
}
