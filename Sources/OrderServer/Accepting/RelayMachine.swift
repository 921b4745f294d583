// Invariant: a row is marked SENT only for its own confirm. Rows of one product are published in the order of their ids. If the attempt for a row failed, later
//   rows of its product wait until that row's pause is over; the query that finds rows ensures this. After a definite refusal the row then goes alone, as a
//   probe. Only in the batch in which a row fails for the first time may later rows of its product have been published, because a batch is pipelined.
//
// Bounds: one batch at a time, of `maximumRows` rows and about `maximumBytes`. After `maximumAttempts` attempts a row is DEAD; only attempts
//   with a connection are counted. Stops: at `stop`, after the present batch.

import MessageBroker

/// A row of the outbox that may be published now.
struct RelayRow: Sendable, Equatable {
    var id: Int64
    var topic: String
    /// The product; nil for an event. The order of events is irrelevant, because each carries its version.
    var productID: Int64?
    /// How many orders wait for the message: none for an event.
    var orders: Int
    var payload: String
    var traceparent: String?
    /// How many attempts were made before this one.
    var attempts: Int64
    /// Why the last attempt failed; nil if there was none.
    var error: String?
}

/// How a row is marked after an attempt.
enum RelayMark: Sendable, Equatable {
    /// The broker has the message.
    case sent(id: Int64, orders: Int)
    /// The row is tried again after a pause.
    case failed(id: Int64, after: Duration, error: String)
    /// The row is given up, and its orders go to recovery.
    case dead(id: Int64, orders: Int, error: String)
    /// The message was never written to the connection, so the attempt is not counted.
    case untouched(id: Int64)
}

/// Decides what the relay does next. It takes an event and returns an action; clock, connection and I/O are the caller's.
struct RelayMachine: Sendable, Equatable {
    struct Configuration: Sendable, Equatable {
        var maximumRows = 128
        var maximumBytes = 8 << 20
        var maximumAttempts: Int64 = 20
        /// The pauses between attempts for a row.
        var backoff = RetryPolicy(maximumAttempts: 20, initialBackoff: .milliseconds(100), maximumBackoff: .seconds(30))
        /// The longest pause between a batch and the next look. Rows that are written meanwhile go together, because a round costs the same for one message as
        /// for many. A message that finds the relay at rest goes at once.
        var pause: Duration = .milliseconds(8)
        /// The pause after a batch of events: nobody waits for them, and a round costs PostgreSQL and the broker as much as the orders of a group.
        var eventPause: Duration { pause * 3 }
        /// The pause for each order of the batch beyond the first ``ordersWithoutPause``. At a moderate rate batches are small and a short delay matters most;
        /// near the limit the cost matters most.
        var pausePerOrder: Duration = .microseconds(60)
        var ordersWithoutPause = 32
        /// How often the relay looks without being woken.
        var pollInterval: Duration = .seconds(1)
        /// How often the relay checks whether the broker is connected again.
        var connectionInterval: Duration = .milliseconds(50)
        /// The pause after a look that found lanes in the hands of another relay.
        var busyInterval: Duration = .milliseconds(5)
        /// The pause after trouble with the database.
        var troubleInterval: Duration = .milliseconds(200)
    }

    enum State: Sendable, Equatable {
        // -> looking, disconnected, stopped
        case asleep
        // -> looking, stopped
        case disconnected
        // -> publishing, asleep
        case looking
        // -> marking
        case publishing([RelayRow])
        // -> asleep, disconnected
        case marking(next: Next)
        // Final.
        case stopped
    }

    /// What the relay does after marking.
    enum Next: Sendable, Equatable {
        /// Pause, because there may be more rows already.
        case pause(Duration)
        case sleep(Duration)
        case reconnect
    }

    enum Event: Sendable, Equatable {
        /// The sleep has ended, by a wake or after its time.
        case woke(isConnected: Bool)
        /// The rows that are due, in the order of their ids. `isBusy`: another relay holds some lanes.
        case found([RelayRow], isBusy: Bool)
        /// The outcome for each row of the batch.
        case published([PublishOutcome])
        /// Nothing of the batch was sent.
        case notPublished(BrokerError.Code)
        case marked
        /// The database could not be read or written.
        case databaseFailed
        case stop
    }

    enum Action: Sendable, Equatable {
        /// Sleep until woken, or until the time is over.
        case sleep(Duration)
        /// Sleep until the time is over, even if woken. A stop ends the pause.
        case pause(Duration)
        /// Take lanes and look for rows.
        case look
        /// Publish these rows, whose attempts are counted already.
        case publish([RelayRow])
        case mark([RelayMark])
        case end
        /// Do nothing: the event belongs to no step that is under way.
        case ignore
    }

    private(set) var state = State.asleep
    let settings: Configuration

    init(settings: Configuration = Configuration()) { self.settings = settings }

    /// Takes an event and returns what to do.
    /// - Parameter random: returns 0 to 1, for the jitter of pauses
    mutating func handle(_ event: Event, random: () -> Double = { .random(in: 0...1) }) -> Action {
        switch (state, event) {
        case (.asleep, .woke(let isConnected)), (.disconnected, .woke(let isConnected)):
            return isConnected ? look() : disconnect()
        case (.asleep, .stop), (.disconnected, .stop):
            state = .stopped
            return .end

        case (.looking, .found(let rows, let isBusy)):
            let batch = self.batch(of: rows)
            if batch.isEmpty {
                if !isBusy { return sleep(settings.pollInterval) }
                // The other relay finds the rows of whoever wakes this one now, and earlier than this one could.
                state = .asleep
                return .pause(settings.busyInterval)
            }
            state = .publishing(batch)
            return .publish(batch)

        case (.publishing(let rows), .published(let outcomes)):
            return settle(rows, outcomes, random)
        case (.publishing(let rows), .notPublished(let code)):
            // `overloaded` means that there is a connection, and may soon be room.
            state = .marking(next: code == .overloaded ? .sleep(settings.connectionInterval) : .reconnect)
            return .mark(rows.map { .untouched(id: $0.id) })

        case (.marking(let next), .marked):
            switch next {
            case .pause(let duration):
                state = .asleep
                return .pause(duration)
            case .sleep(let duration): return sleep(duration)
            case .reconnect: return disconnect()
            }

        // Rows that were not marked are found again, and published as repeats.
        case (.looking, .databaseFailed), (.publishing, .databaseFailed), (.marking, .databaseFailed):
            return sleep(settings.troubleInterval)

        case (.asleep, _), (.disconnected, _), (.looking, _), (.publishing, _), (.marking, _), (.stopped, _):
            return .ignore
        }
    }

    private mutating func look() -> Action {
        state = .looking
        return .look
    }

    private mutating func sleep(_ duration: Duration) -> Action {
        state = .asleep
        return .sleep(duration)
    }

    private mutating func disconnect() -> Action {
        state = .disconnected
        return .sleep(settings.connectionInterval)
    }

    /// The rows to publish now, in their order.
    private func batch(of rows: [RelayRow]) -> [RelayRow] {
        var batch: [RelayRow] = []
        var bytes = 0
        /// Products whose first row must be published alone.
        var probed: Set<Int64> = []
        for row in rows.prefix(settings.maximumRows) {
            if let product = row.productID {
                if probed.contains(product) { continue }
                if row.error.map({ !$0.hasPrefix(RelayMachine.unknown) }) ?? false { probed.insert(product) }
            }
            bytes += row.payload.utf8.count
            if !batch.isEmpty, bytes > settings.maximumBytes { break }
            batch.append(row)
        }
        return batch
    }

    /// The pause before the next look. For events it is always the same.
    private func pause(after rows: [RelayRow]) -> Duration {
        if rows.contains(where: { $0.productID == nil }) { return settings.eventPause }
        let orders = rows.reduce(0) { $0 + $1.orders }
        return min(settings.pausePerOrder * max(0, orders - settings.ordersWithoutPause), settings.pause)
    }

    private static let unknown = "UNKNOWN"

    private mutating func settle(_ rows: [RelayRow], _ outcomes: [PublishOutcome], _ random: () -> Double) -> Action {
        var soonest: Duration?
        var isDisconnected = false
        var marks: [RelayMark] = []
        for (index, row) in rows.enumerated() {
            // The outcome is missing, and therefore unknown.
            let error: String
            switch index < outcomes.count ? outcomes[index] : .unknown {
            case .confirmed:
                marks.append(.sent(id: row.id, orders: row.orders))
                continue
            case .unsent:
                isDisconnected = true
                marks.append(.untouched(id: row.id))
                continue
            case .returned(let code, let text): error = "RETURNED \(code) \(text.prefix(200))"
            case .rejected: error = "REJECTED"
            case .unknown:
                isDisconnected = true
                error = RelayMachine.unknown
            }
            let attempts = row.attempts + 1
            if attempts >= settings.maximumAttempts {
                marks.append(.dead(id: row.id, orders: row.orders, error: error))
            } else {
                let wait = settings.backoff.backoff(failures: Int(clamping: attempts), retryAfter: nil, random: random())
                soonest = min(soonest ?? wait, wait)
                marks.append(.failed(id: row.id, after: wait, error: error))
            }
        }
        if isDisconnected {
            state = .marking(next: .reconnect)
        } else if let soonest {
            state = .marking(next: .sleep(min(soonest, settings.pollInterval)))
        } else {
            state = .marking(next: .pause(pause(after: rows)))
        }
        return .mark(marks)
    }
}
