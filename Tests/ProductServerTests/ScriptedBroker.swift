import Foundation
import MessageBroker
import StockContract
import Synchronization

@testable import MessageBroker
@testable import ProductServer

/// A broker that a test plays: one queue of commands with a prefetch, and a list of what was published.
final class ScriptedBroker: MessageReceiving, MessagePublishing {
    struct Message: Sendable {
        var body: [UInt8]
        var headers: [String: HeaderValue] = [:]
        var isRedelivered = false
        var deliveryCount = 0
    }

    private struct State {
        var queue: [Message] = []
        var unacknowledged: [UInt64: Message] = [:]
        var generation: UInt64 = 1
        var nextTag: UInt64 = 1
        var published: [OutgoingMessage] = []
        var publishes = 0
        var acknowledged = 0
        var requeued = 0
        var largestUnacknowledged = 0
        var isConnected = true
        var isClosed = false
        var losesAcknowledgements = false
        var isSlow = false
    }

    private let state = Mutex(State())
    private let prefetch: Int
    private let outcome: @Sendable (_ message: OutgoingMessage, _ number: Int) throws(BrokerError) -> PublishOutcome

    /// - Parameter outcome: what happens to the n-th message published; the default confirms.
    init(
        prefetch: Int = 64,
        outcome: @escaping @Sendable (OutgoingMessage, Int) throws(BrokerError) -> PublishOutcome = { _, _ throws(BrokerError) in .confirmed
        }
    ) {
        self.prefetch = prefetch
        self.outcome = outcome
    }

    // MARK: The test's side

    func enqueue(_ bodies: [String], headers: [String: HeaderValue] = [:]) {
        state.withLock { state in state.queue += bodies.map { Message(body: Array($0.utf8), headers: headers) } }
    }

    /// As after a lost connection: everything unacknowledged is delivered again, earlier tags are worth nothing.
    func loseConnection() { state.withLock { Self.loseConnection(&$0) } }

    /// As `loseConnection`, and acknowledgements are lost no more.
    func loseConnectionAndKeepAcknowledgements() {
        // In one step: an acknowledgement that is still on its way belongs to the connection that ends, and must not count in between.
        state.withLock { state in
            Self.loseConnection(&state)
            state.losesAcknowledgements = false
        }
    }

    private static func loseConnection(_ state: inout State) {
        state.generation += 1
        let again = state.unacknowledged.sorted { $0.key < $1.key }.map { entry in
            var message = entry.value
            message.isRedelivered = true
            message.deliveryCount += 1
            return message
        }
        state.unacknowledged = [:]
        state.queue = again + state.queue
    }

    /// As after the death of the consumer's process: nothing more is given to it, and nothing more is taken from it.
    func consumerDied() {
        // In one step: a consumer that asks in between would take what is for the next one.
        state.withLock { state in
            Self.loseConnection(&state)
            state.isClosed = true
        }
    }

    /// For the next consumer, after the one before was closed.
    func reopen() { state.withLock { $0.isClosed = false } }

    func setConnected(_ isConnected: Bool) { state.withLock { $0.isConnected = isConnected } }
    /// An acknowledgement takes 50 ms of its thread.
    func setSlow(_ isSlow: Bool) { state.withLock { $0.isSlow = isSlow } }
    func loseAcknowledgements(_ loses: Bool) { state.withLock { $0.losesAcknowledgements = loses } }

    /// Confirmed, in order.
    var published: [OutgoingMessage] { state.withLock { $0.published } }
    var results: [OutgoingMessage] { published.filter { $0.exchange == StockGateTopology.resultsExchange } }
    var deadLetters: [OutgoingMessage] { published.filter { $0.exchange == StockGateTopology.deadExchange } }
    var acknowledged: Int { state.withLock { $0.acknowledged } }
    var requeued: Int { state.withLock { $0.requeued } }
    var publishes: Int { state.withLock { $0.publishes } }
    var queued: Int { state.withLock { $0.queue.count } }
    var unacknowledged: Int { state.withLock { $0.unacknowledged.count } }
    var largestUnacknowledged: Int { state.withLock { $0.largestUnacknowledged } }
    /// Nothing waits and nothing is under way.
    var isDrained: Bool { state.withLock { $0.queue.isEmpty && $0.unacknowledged.isEmpty } }

    // MARK: The server's side

    func nextBatch(max: Int, wait: Duration) async throws(BrokerError) -> [Delivery] {
        let deadline = ContinuousClock.now + wait
        while true {
            let (deliveries, isClosed) = state.withLock { ($0.isClosed ? [] : take(max, &$0), $0.isClosed) }
            if isClosed { throw BrokerError(code: .closed, message: "closed") }
            if !deliveries.isEmpty || ContinuousClock.now >= deadline { return deliveries }
            do { try await Task.sleep(for: .milliseconds(1)) } catch { return [] }
        }
    }

    private func take(_ max: Int, _ state: inout State) -> [Delivery] {
        let count = min(max, prefetch - state.unacknowledged.count, state.queue.count)
        guard count > 0 else { return [] }
        let messages = state.queue.prefix(count)
        state.queue.removeFirst(count)
        let deliveries = messages.map { message in
            let tag = state.nextTag
            state.nextTag += 1
            state.unacknowledged[tag] = message
            return Delivery(message, tag: DeliveryTag(generation: state.generation, number: tag))
        }
        state.largestUnacknowledged = Swift.max(state.largestUnacknowledged, state.unacknowledged.count)
        return deliveries
    }

    func acknowledge(_ deliveries: [Delivery]) -> Int {
        if state.withLock({ $0.isSlow }) { usleep(50_000) }
        return state.withLock { state in
            guard !state.losesAcknowledgements else { return deliveries.count }
            let inTime = deliveries.filter {
                $0.tag.generation == state.generation && state.unacknowledged.removeValue(forKey: $0.tag.number) != nil
            }.count
            state.acknowledged += inTime
            return inTime
        }
    }

    func reject(_ delivery: Delivery, requeue: Bool) -> Bool {
        state.withLock { state in
            guard delivery.tag.generation == state.generation, var message = state.unacknowledged.removeValue(forKey: delivery.tag.number)
            else { return false }
            message.isRedelivered = true
            message.deliveryCount += 1
            if requeue { state.queue.append(message) }
            state.requeued += 1
            return true
        }
    }

    func publish(_ messages: [OutgoingMessage]) async throws(BrokerError) -> [PublishOutcome] {
        guard state.withLock({ $0.isConnected }) else { throw BrokerError(code: .notConnected, message: "not connected") }
        var outcomes: [PublishOutcome] = []
        for message in messages {
            let number = state.withLock { state in
                state.publishes += 1
                return state.publishes
            }
            let outcome = try outcome(message, number)
            if outcome == .confirmed { state.withLock { $0.published.append(message) } }
            outcomes.append(outcome)
        }
        return outcomes
    }

    func shutdown(within bound: Duration) async { state.withLock { $0.isClosed = true } }

    func snapshot() -> BrokerSnapshot {
        var snapshot = BrokerSnapshot()
        snapshot.state = state.withLock { $0.isConnected } ? .connected : .connecting
        if !snapshot.isConnected { snapshot.lastFailure = BrokerError(code: .connectFailed, message: "refused") }
        return snapshot
    }
}

extension Delivery {
    fileprivate init(_ message: ScriptedBroker.Message, tag: DeliveryTag) {
        var headers = message.headers
        if message.deliveryCount > 0 { headers["x-delivery-count"] = .integer(Int64(message.deliveryCount)) }
        self.init(message.body, headers: headers, isRedelivered: message.isRedelivered, tag: tag)
    }

    init(
        _ body: [UInt8],
        headers: [String: HeaderValue] = [:],
        isRedelivered: Bool = false,
        tag: DeliveryTag = .init(generation: 0, number: 0)
    ) {
        self.init(
            body: body,
            messageID: "m",
            correlationID: nil,
            type: "stock.decrease",
            contentType: "application/json",
            timestamp: nil,
            headers: headers,
            exchange: StockGateTopology.commandsExchange,
            routingKey: StockGateTopology.decreaseRoutingKey,
            isRedelivered: isRedelivered,
            tag: tag
        )
    }
}
