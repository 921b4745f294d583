import Eventually
@testable import MessageBroker
import Synchronization

@testable import OrderServer

/// A broker's publisher by script: what it is given is recorded, and each message's outcome is asked for.
final class ScriptedPublisher: MessagePublishing {
    struct State {
        var isConnected = true
        /// Why the broker takes nothing, while it does not.
        var blocked: String?
        var sent: [OutgoingMessage] = []
        var outcomes: @Sendable (OutgoingMessage) -> PublishOutcome = { _ in .confirmed }
        var failure: BrokerError?
        /// While it is set, calls wait before they answer.
        var isHeld = false
    }

    let state = Mutex(State())

    func publish(_ messages: [OutgoingMessage]) async throws(BrokerError) -> [PublishOutcome] {
        let (failure, isConnected) = self.state.withLock { ($0.failure, $0.isConnected) }
        if let failure { throw failure }
        guard isConnected else { throw BrokerError(code: .notConnected, message: "scripted") }
        let outcomes = self.state.withLock { state in
            state.sent += messages
            return messages.map(state.outcomes)
        }
        while self.state.withLock({ $0.isHeld }) { try? await Task.sleep(for: .milliseconds(1)) }
        return outcomes
    }

    func snapshot() -> BrokerSnapshot {
        var snapshot = BrokerSnapshot()
        let (isConnected, blocked) = state.withLock { ($0.isConnected, $0.blocked) }
        snapshot.state = !isConnected ? .connecting : blocked.map { .blocked(reason: $0) } ?? .connected
        return snapshot
    }

    func shutdown(within bound: Duration) async {}

    var sent: [OutgoingMessage] { state.withLock { $0.sent } }
    var commands: [OutgoingMessage] { sent.filter { $0.routingKey == "stock.decrease" } }
    func set(_ change: (inout State) -> Void) { state.withLock { change(&$0) } }
}

/// A queue by hand.
final class ScriptedResults: MessageReceiving {
    struct State {
        var waiting: [Delivery] = []
        /// While it is set, nothing is given out: what is put meanwhile comes together.
        var isHeld = false
        var acknowledged = 0
        /// The messages of each acknowledgement, as they were counted when they were put.
        var acknowledgements: [[UInt64]] = []
        var requeued = 0
        var next: UInt64 = 1
    }

    let state = Mutex(State())

    func put(_ bodies: String..., redelivered: Bool = false, headers: [String: HeaderValue] = [:]) {
        self.state.withLock { state in
            for body in bodies {
                state.waiting.append(
                    Delivery(
                        body: Array(body.utf8),
                        messageID: nil,
                        correlationID: nil,
                        type: nil,
                        contentType: nil,
                        timestamp: nil,
                        headers: headers,
                        exchange: "stock.results",
                        routingKey: "order.result",
                        isRedelivered: redelivered,
                        tag: DeliveryTag(generation: 1, number: state.next)
                    )
                )
                state.next += 1
            }
        }
    }

    func nextBatch(max: Int, wait: Duration) async throws(BrokerError) -> [Delivery] {
        let deadline = ContinuousClock.now + wait
        while ContinuousClock.now < deadline, !Task.isCancelled {
            let taken = state.withLock { state -> [Delivery] in
                if state.isHeld { return [] }
                defer { state.waiting.removeFirst(min(max, state.waiting.count)) }
                return Array(state.waiting.prefix(max))
            }
            if !taken.isEmpty { return taken }
            try? await Task.sleep(for: .milliseconds(1))
        }
        return []
    }

    func acknowledge(_ deliveries: [Delivery]) -> Int {
        self.state.withLock { state in
            state.acknowledged += deliveries.count
            if !deliveries.isEmpty { state.acknowledgements.append(deliveries.map(\.tag.number)) }
        }
        return deliveries.count
    }

    func reject(_ delivery: Delivery, requeue: Bool) -> Bool {
        self.state.withLock { state in
            state.requeued += 1
            if requeue { state.waiting.append(delivery) }
        }
        return true
    }

    func snapshot() -> BrokerSnapshot {
        var snapshot = BrokerSnapshot()
        snapshot.state = .connected
        return snapshot
    }

    func shutdown(within bound: Duration) async {}
    var acknowledged: Int { state.withLock { $0.acknowledged } }
    var requeued: Int { state.withLock { $0.requeued } }

    /// Waits until so many are acknowledged.
    func waitUntilAcknowledged(_ count: Int) async throws {
        try await eventually(
            "\(acknowledged) of \(count) acknowledged: \(state.withLock { $0.acknowledgements })",
            every: .milliseconds(1)
        ) { acknowledged >= count }
    }
}
