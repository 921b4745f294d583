/// The state of a ``Publisher`` or a ``Consumer``, and counts since it was made.
public struct BrokerSnapshot: Sendable, Hashable {
    /// What the connection does.
    public enum State: Sendable, Hashable {
        /// An attempt runs.
        case connecting
        /// Connected, with the topology declared.
        case connected
        /// Connected, but the broker takes no messages for now: memory or disk is short.
        case blocked(reason: String)
        /// Waits before the next attempt.
        case backingOff(retryAt: ContinuousClock.Instant)
        /// Closed for good.
        case closed
    }

    /// What the connection does.
    public var state = State.connecting
    /// Why the last connection or attempt ended.
    public var lastFailure: BrokerError?
    /// Where the connection leads, or the attempt that runs; where the last one led, while there is none.
    public var address: BrokerAddress?
    /// How often a connection became ready.
    public var connects = 0
    /// How often a connection became ready after an earlier one.
    public var reconnects: Int { max(0, connects - 1) }
    /// How often a connection was replaced because the broker refused what was published over it.
    public var replacements = 0
    /// Where the broker refuses what is published (`exchange/routing key`), and when it did so last. A refusal is listed once it has lasted for
    /// the configuration's `rejectionPatience`.
    public var lastRefusals: [String: ContinuousClock.Instant] = [:]
    /// Where the broker has refused what was published within the last minute, in the order of the names. A refusal is forgotten after a minute: only a confirmed
    /// message on its route would end it sooner, and perhaps none is sent.
    public var refusedRoutes: [String] {
        let now = ContinuousClock.now
        return lastRefusals.filter { now - $0.value < .seconds(60) }.keys.sorted()
    }
    /// Attempts that failed.
    public var failedConnects = 0

    /// Messages written.
    public var published = 0
    /// Messages confirmed.
    public var confirmed = 0
    /// Messages that reached no queue.
    public var returned = 0
    /// Messages that the broker refused with a nack.
    public var rejected = 0
    /// Messages whose outcome is unknown.
    public var unknown = 0
    /// Messages given up before they were written.
    public var unsent = 0
    /// Messages that wait or are in flight now.
    public var queued = 0
    /// Messages written and not yet answered now.
    public var inFlight = 0

    /// Messages received.
    public var delivered = 0
    /// Deliveries that had been delivered before.
    public var redelivered = 0
    /// Deliveries acknowledged.
    public var acknowledged = 0
    /// Deliveries rejected.
    public var rejectedDeliveries = 0
    /// Acknowledgements and rejections that came after their connection was lost, or twice.
    public var lateSettlements = 0
    /// How often the broker ended the consumer because its queue was deleted or moved.
    public var consumerCancels = 0
    /// Deliveries that wait for a caller now.
    public var buffered = 0
    /// Deliveries neither acknowledged nor rejected now.
    public var unacknowledged = 0

    /// Why the broker takes no messages over this connection now; nil if it takes them, or if there is no connection.
    public var blockedReason: String? { if case .blocked(let reason) = state { reason } else { nil } }

    /// Whether the connection is up, blocked or not.
    public var isConnected: Bool {
        switch state {
        case .connected, .blocked: true
        case .connecting, .backingOff, .closed: false
        }
    }
}
