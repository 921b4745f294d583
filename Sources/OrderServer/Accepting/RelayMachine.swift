// Invariant: a row is marked SENT only for a confirm of its own. Rows of one product go out in the order of their ids: behind one whose attempt failed nothing of
// that product goes until its wait is over (the query that finds rows sees to it), and after a definite refusal it then goes alone, as a probe.
// In the batch in which it fails for the first time, later ones may have been taken: a batch is pipelined.
//
// Bounds: one batch at a time, of `maximumRows` rows and about `maximumBytes`; `maximumAttempts` attempts of a row, then it is DEAD. Attempts for which there was no
// connection are not counted. Stops: at `stop`, after the batch in hand.

import MessageBroker

/// A row of the outbox that may be published.
struct RelayRow: Sendable, Equatable {
    var id: Int64
    var topic: String
    /// Nil for events: their order does not matter, since each carries its version.
    var productID: Int64?
    /// How many orders wait for it: none for an event.
    var orders: Int
    var payload: String
    var traceparent: String?
    /// Attempts before this one.
    var attempts: Int64
    /// Why the last attempt failed; nil if there was none.
    var error: String?
}

/// What becomes of a row after an attempt.
enum RelayMark: Sendable, Equatable {
    /// The broker has it.
    case sent(id: Int64, orders: Int)
    /// Again after a wait.
    case failed(id: Int64, after: Duration, error: String)
    /// Never again; its orders go to recovery.
    case dead(id: Int64, orders: Int, error: String)
    /// It was never written: the attempt does not count.
    case untouched(id: Int64)

    var id: Int64 {
        switch self {
        case .sent(let id, _), .failed(let id, _, _), .dead(let id, _, _), .untouched(let id): id
        }
    }
}

/// What the relay does next: an event in, an action out. It holds no clock, no connection and does no I/O.
struct RelayMachine: Sendable, Equatable {
    struct Configuration: Sendable, Equatable {
        var maximumRows = 128
        var maximumBytes = 8 << 20
        var maximumAttempts: Int64 = 20
        /// Waits between a row's attempts.
        var backoff = RetryPolicy(maximumAttempts: 20, initialBackoff: .milliseconds(100), maximumBackoff: .seconds(30))
        /// Between a batch and the next look at most, so that what is written meanwhile goes together: a round costs the same for one message as for many.
        /// A message that comes to a relay at rest goes at once.
        var pause: Duration = .milliseconds(8)
        /// The pause for each order of the batch beyond the first ``ordersWithoutPause``. At a moderate rate batches are small and the delay is what counts;
        /// near the limit it is the cost.
        var pausePerOrder: Duration = .microseconds(60)
        var ordersWithoutPause = 32
        /// Looks without being woken.
        var pollInterval: Duration = .seconds(1)
        /// Looks for the broker's connection.
        var connectionInterval: Duration = .milliseconds(50)
        /// The next look after one that found lanes in another relay's hands.
        var busyInterval: Duration = .milliseconds(5)
        /// The next look after trouble with the database.
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

    /// What follows a mark.
    enum Next: Sendable, Equatable {
        /// There may be more already.
        case pause(Duration)
        case sleep(Duration)
        case reconnect
    }

    enum Event: Sendable, Equatable {
        /// The sleep is over, by a wake or by its time.
        case woke(isConnected: Bool)
        /// The rows that are due, by id. `isBusy`: another relay holds some lanes.
        case found([RelayRow], isBusy: Bool)
        /// What became of each row of the batch.
        case published([PublishOutcome])
        /// Nothing of the batch was sent.
        case notPublished(BrokerError.Code)
        /// The marks are written.
        case marked
        /// The database could not be read, or not be written.
        case databaseFailed
        case stop
    }

    enum Action: Sendable, Equatable {
        /// Until woken, or the time is over.
        case sleep(Duration)
        /// Until the time is over, whoever wakes; a stop ends it.
        case pause(Duration)
        /// Take lanes and look for rows.
        case look
        /// Count the attempts, then publish.
        case publish([RelayRow])
        case mark([RelayMark])
        case end
        /// The event belongs to nothing that is going on.
        case ignore
    }

    private(set) var state = State.asleep
    let settings: Configuration

    init(settings: Configuration = Configuration()) { self.settings = settings }

    /// Takes an event.
    /// - Parameter random: gives 0 to 1, for the jitter of waits
    mutating func handle(_ event: Event, random: () -> Double = { .random(in: 0...1) }) -> Action {
        switch (self.state, event) {
        case (.asleep, .woke(let isConnected)), (.disconnected, .woke(let isConnected)):
            return isConnected ? self.look() : self.disconnect()
        case (.asleep, .stop), (.disconnected, .stop):
            self.state = .stopped
            return .end

        case (.looking, .found(let rows, let isBusy)):
            let batch = self.batch(of: rows)
            if batch.isEmpty {
                if !isBusy { return self.sleep(self.settings.pollInterval) }
                // Whoever wakes now has written what the other relay finds before this one would.
                self.state = .asleep
                return .pause(self.settings.busyInterval)
            }
            self.state = .publishing(batch)
            return .publish(batch)

        case (.publishing(let rows), .published(let outcomes)):
            return self.settle(rows, outcomes, random)
        case (.publishing(let rows), .notPublished(let code)):
            // Overloaded: the connection is there, and so may be room soon.
            self.state = .marking(next: code == .overloaded ? .sleep(self.settings.connectionInterval) : .reconnect)
            return .mark(rows.map { .untouched(id: $0.id) })

        case (.marking(let next), .marked):
            switch next {
            case .pause(let duration):
                self.state = .asleep
                return .pause(duration)
            case .sleep(let duration): return self.sleep(duration)
            case .reconnect: return self.disconnect()
            }

        // What was not marked is found again, as a repeat.
        case (.looking, .databaseFailed), (.publishing, .databaseFailed), (.marking, .databaseFailed):
            return self.sleep(self.settings.troubleInterval)

        case (.asleep, _), (.disconnected, _), (.looking, _), (.publishing, _), (.marking, _), (.stopped, _):
            return .ignore
        }
    }

    private mutating func look() -> Action {
        self.state = .looking
        return .look
    }

    private mutating func sleep(_ duration: Duration) -> Action {
        self.state = .asleep
        return .sleep(duration)
    }

    private mutating func disconnect() -> Action {
        self.state = .disconnected
        return .sleep(self.settings.connectionInterval)
    }

    /// The rows to publish now, in their order.
    private func batch(of rows: [RelayRow]) -> [RelayRow] {
        var batch: [RelayRow] = []
        var bytes = 0
        /// Products whose first row goes alone.
        var probed: Set<Int64> = []
        for row in rows.prefix(self.settings.maximumRows) {
            if let product = row.productID {
                if probed.contains(product) { continue }
                if row.error.map({ !$0.hasPrefix(RelayMachine.unknown) }) ?? false { probed.insert(product) }
            }
            bytes += row.payload.utf8.count
            if !batch.isEmpty, bytes > self.settings.maximumBytes { break }
            batch.append(row)
        }
        return batch
    }

    /// Nobody waits for events: they always take the longest.
    private func pause(after rows: [RelayRow]) -> Duration {
        if rows.contains(where: { $0.productID == nil }) { return self.settings.pause }
        let orders = rows.reduce(0) { $0 + $1.orders }
        return min(self.settings.pausePerOrder * max(0, orders - self.settings.ordersWithoutPause), self.settings.pause)
    }

    private static let unknown = "UNKNOWN"

    private mutating func settle(_ rows: [RelayRow], _ outcomes: [PublishOutcome], _ random: () -> Double) -> Action {
        var soonest: Duration?
        var isDisconnected = false
        var marks: [RelayMark] = []
        for (index, row) in rows.enumerated() {
            // An outcome that is missing is not known.
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
            if attempts >= self.settings.maximumAttempts {
                marks.append(.dead(id: row.id, orders: row.orders, error: error))
            } else {
                let wait = self.settings.backoff.backoff(failures: Int(clamping: attempts), retryAfter: nil, random: random())
                soonest = min(soonest ?? wait, wait)
                marks.append(.failed(id: row.id, after: wait, error: error))
            }
        }
        if isDisconnected {
            self.state = .marking(next: .reconnect)
        } else if let soonest {
            self.state = .marking(next: .sleep(min(soonest, self.settings.pollInterval)))
        } else {
            self.state = .marking(next: .pause(self.pause(after: rows)))
        }
        return .mark(marks)
    }
}
