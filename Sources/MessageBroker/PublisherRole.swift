import BlockingThreads
import DequeModule

/// The part of the publisher that runs on the connection's thread.
final class PublisherRole: ConnectionRole {
    private struct Ticket {
        var batch: UInt64
        var index: Int
    }

    private struct Counts {
        var published = 0
        var confirmed = 0
        var returned = 0
        var rejected = 0
        var unknown = 0
        var unsent = 0
    }

    private let configuration: BrokerConfiguration
    private let topology: Topology
    private let control: ConnectionControl
    private let inbox: PublisherInbox
    private var confirms = ConfirmTracker<Ticket>()
    private var batches: [UInt64: PublishBatch] = [:]
    /// Batches in the order of their deadlines. An answered batch stays in the queue until it reaches the front.
    private var deadlines: Deque<UInt64> = []
    /// Batches that are not completely written.
    private var writing: Deque<UInt64> = []
    private var nextID: UInt64 = 0
    /// Batches that will be answered once the counts are reported.
    private var finished: [PublishBatch] = []
    private var isBlocked = false
    private var rejections: RejectionWatch
    /// The connection will be replaced: nothing more is written to it, and it ends when all that was written is answered.
    private(set) var isWornOut = false
    /// Whether the refusals have changed since they were last copied into the snapshot.
    private var isRefusalNew = false
    private var counts = Counts()
    private static let writtenAtOnce = 192 << 10

    init(_ configuration: BrokerConfiguration, _ topology: Topology, _ control: ConnectionControl, _ inbox: PublisherInbox) {
        self.configuration = configuration
        self.topology = topology
        self.control = control
        self.inbox = inbox
        rejections = RejectionWatch(patience: configuration.rejectionPatience)
    }

    var isDrained: Bool { batches.isEmpty && finished.isEmpty && inbox.isEmpty }

    func prepare(_ connection: AMQPConnection) throws(BrokerError) {
        try connection.selectConfirms()
    }

    func ready() {
        isBlocked = false
        isWornOut = false
        inbox.open()
    }

    func turn(_ connection: AMQPConnection, now: ContinuousClock.Instant) throws(BrokerError) -> ContinuousClock.Instant? {
        takeNew()
        try expire(now)
        // A blocked broker does not read. A message that is held back is certainly not stored.
        while !isBlocked, !isWornOut, confirms.inFlight < max(1, configuration.maximumInFlight), let id = writing.first {
            if connection.unwritten >= Self.writtenAtOnce {
                try connection.flush()
                if connection.unwritten > 0 { break }
                // Confirms that have come meanwhile are read before more is written.
                report()
                return now
            }
            write(id, to: connection)
        }
        report()
        return firstDeadline
    }

    var mustReplaceConnection: Bool { isWornOut && confirms.inFlight == 0 }

    private func takeNew() {
        for batch in inbox.takeAll() {
            nextID += 1
            batches[nextID] = batch
            deadlines.append(nextID)
            writing.append(nextID)
        }
    }

    private func write(_ id: UInt64, to connection: AMQPConnection) {
        guard var batch = batches.removeValue(forKey: id) else {
            writing.removeFirst()
            return
        }
        while batch.next < batch.messages.count, confirms.inFlight < max(1, configuration.maximumInFlight),
            connection.unwritten < Self.writtenAtOnce
        {
            if connection.append(batch.messages[batch.next], sequence: confirms.next) {
                _ = confirms.wrote(Ticket(batch: id, index: batch.next))
                counts.published += 1
            } else {
                batch.settle(batch.next, .unsent)
                counts.unsent += 1
            }
            batch.next += 1
        }
        if batch.next == batch.messages.count { writing.removeFirst() }
        if batch.remaining == 0 { finish(batch) } else { batches[id] = batch }
    }

    private var firstDeadline: ContinuousClock.Instant? {
        while let id = deadlines.first {
            if let batch = batches[id] { return batch.deadline }
            deadlines.removeFirst()
        }
        return nil
    }

    /// Answers the batches whose time has passed.
    /// - Throws: if such a batch has written messages, because the broker is stuck then. A broker that has reported itself as blocked is an exception: its
    ///   connection stays, and late confirms find no batch.
    private func expire(_ now: ContinuousClock.Instant) throws(BrokerError) {
        while let deadline = firstDeadline, deadline <= now {
            let id = deadlines.removeFirst()
            guard var batch = batches.removeValue(forKey: id) else { continue }
            giveUpUnwritten(&batch)
            if batch.remaining > 0, !isBlocked {
                batches[id] = batch
                throw BrokerError(code: .timedOut, message: "no confirm within \(configuration.confirmTimeout)")
            }
            counts.unknown += batch.remaining
            finish(batch)
        }
    }

    private func giveUpUnwritten(_ batch: inout PublishBatch) {
        while batch.next < batch.messages.count {
            batch.settle(batch.next, .unsent)
            counts.unsent += 1
            batch.next += 1
        }
    }

    private func finish(_ batch: PublishBatch) { finished.append(batch) }

    func received(_ event: AMQPConnection.Event) throws(BrokerError) {
        let answer: ConfirmTracker<Ticket>.Answer
        switch event {
        case .acknowledged(let tag, let multiple): answer = confirms.acknowledged(tag, multiple: multiple) { settle($0, $1) }
        case .refused(let tag, let multiple): answer = confirms.refused(tag, multiple: multiple) { settle($0, $1) }
        case .returned(let sequence, let code, let text):
            guard let sequence else { throw BrokerError(code: .connectionLost, message: "a message came back without its sequence number") }
            answer = confirms.returned(sequence, code: code, text: text)
        case .blocked:
            isBlocked = true
            return
        case .unblocked:
            isBlocked = false
            return
        case .delivered, .oversized, .consumerCancelled: return
        }
        if answer == .neverWritten {
            throw BrokerError(code: .connectionLost, message: "the broker answered a message that was never written")
        }
    }

    private func settle(_ ticket: Ticket, _ outcome: PublishOutcome) {
        guard let remaining = batches[ticket.batch]?.remaining else { return }
        switch outcome {
        case .confirmed:
            counts.confirmed += 1
            if !rejections.isEmpty, let route = route(of: ticket) { taken(route) }
        case .returned:
            counts.returned += 1
            // If this connection has declared a queue for the route, that or its binding is gone; a new connection declares them again.
            if let route = route(of: ticket), topology.hasBinding(exchange: route.exchange, routingKey: route.routingKey) { refused(route) }
        case .rejected:
            counts.rejected += 1
            if let route = route(of: ticket) { refused(route) }
        case .unknown: counts.unknown += 1
        case .unsent: counts.unsent += 1
        }
        if remaining > 1 {
            batches[ticket.batch]?.settle(ticket.index, outcome)
        } else if var batch = batches.removeValue(forKey: ticket.batch) {
            batch.settle(ticket.index, outcome)
            finish(batch)
        }
    }

    private func route(of ticket: Ticket) -> RejectionWatch.Route? {
        batches[ticket.batch].map {
            RejectionWatch.Route(exchange: $0.messages[ticket.index].exchange, routingKey: $0.messages[ticket.index].routingKey)
        }
    }

    private func refused(_ route: RejectionWatch.Route) {
        let finding = rejections.refused(route, at: .now)
        isRefusalNew = true
        guard case .replace(let isNews) = finding else { return }
        isWornOut = true
        if isNews { control.onChange(.refused(route: route.text)) }
    }

    private func taken(_ route: RejectionWatch.Route) {
        guard rejections.confirmed(route) else { return }
        isRefusalNew = true
        control.onChange(.taken(route: route.text))
    }

    func endOfInput() { report() }

    func ended(_ failure: BrokerError, retryAt: ContinuousClock.Instant?) {
        // The inbox is shut first. Batches that came before are given up below.
        inbox.shut(failure, retryAt: retryAt)
        takeNew()
        confirms.lost { settle($0, $1) }
        for id in writing {
            guard var batch = batches.removeValue(forKey: id) else { continue }
            giveUpUnwritten(&batch)
            finish(batch)
        }
        writing = []
        deadlines = []
        report()
    }

    /// Reports the counts, then the outcomes to the callers.
    private func report() {
        let counts = counts
        let inFlight = confirms.inFlight
        self.counts = Counts()
        let refused = isRefusalNew ? rejections.refused : nil
        isRefusalNew = false
        control.status.withLock { status in
            if let refused { status.snapshot.lastRefusals = refused }
            status.snapshot.published += counts.published
            status.snapshot.confirmed += counts.confirmed
            status.snapshot.returned += counts.returned
            status.snapshot.rejected += counts.rejected
            status.snapshot.unknown += counts.unknown
            status.snapshot.unsent += counts.unsent
            status.snapshot.inFlight = inFlight
        }
        if finished.isEmpty { return }
        inbox.answered(finished.reduce(0) { $0 + $1.messages.count })
        for batch in finished { batch.answer() }
        finished.removeAll(keepingCapacity: true)
    }
}
