/// Exchanges, queues and bindings, as a value. They are declared at every connect, which changes nothing if they exist already.
///
/// If one of them exists with other arguments, that is an error which names it (``BrokerError/Code/topologyMismatch(name:)``). Nothing is ever deleted.
public struct Topology: Sendable, Hashable {
    /// An exchange, to which messages are published.
    public struct Exchange: Sendable, Hashable {
        /// How an exchange chooses the queues of a message.
        public enum Kind: String, Sendable, Hashable {
            /// Queues bound with the message's routing key.
            case direct
            /// Queues bound with a pattern that matches the routing key.
            case topic
            /// All bound queues.
            case fanout
            /// Queues whose binding matches the message's headers.
            case headers
        }

        /// Its name.
        public var name: String
        /// How the exchange chooses queues.
        public var kind: Kind
        /// Whether the exchange survives a restart of the broker.
        public var isDurable: Bool

        /// Makes an exchange.
        public init(_ name: String, kind: Kind, isDurable: Bool = true) {
            self.name = name
            self.kind = kind
            self.isDurable = isDurable
        }
    }

    /// A durable queue, in which messages wait.
    public struct Queue: Sendable, Hashable {
        /// The `x-queue-type`.
        public enum Kind: String, Sendable, Hashable {
            /// Replicated by Raft. Messages are on disk before they are confirmed.
            case quorum
            /// An append-only log that each reader reads from an offset of its own.
            case stream
            /// A queue on one node.
            case classic
        }

        /// Its name.
        public var name: String
        /// The `x-queue-type`.
        public var kind: Kind
        /// Further arguments, such as `x-delivery-limit`.
        public var arguments: [String: HeaderValue]

        /// Makes a queue.
        public init(_ name: String, kind: Kind, arguments: [String: HeaderValue] = [:]) {
            self.name = name
            self.kind = kind
            self.arguments = arguments
        }

        /// A quorum queue.
        ///
        /// - Parameters:
        ///   - deliveryLimit: how often a message may come back before it goes to the dead-letter exchange
        ///   - deadLetterExchange: where rejected messages and those over the limit go. They stay in the queue if no queue is bound to it.
        ///   - maximumLength: how many messages the queue holds at most
        public static func quorum(
            _ name: String,
            deliveryLimit: Int? = nil,
            deadLetterExchange: String? = nil,
            maximumLength: Int? = nil
        ) -> Queue {
            var arguments: [String: HeaderValue] = [:]
            if let deliveryLimit { arguments["x-delivery-limit"] = .integer(Int64(deliveryLimit)) }
            if let maximumLength { arguments["x-max-length"] = .integer(Int64(maximumLength)) }
            // A full queue refuses new messages with a nack.
            if maximumLength != nil || deadLetterExchange != nil { arguments["x-overflow"] = "reject-publish" }
            if let deadLetterExchange {
                arguments["x-dead-letter-exchange"] = .string(deadLetterExchange)
                // With this strategy a dead letter leaves its queue only when the dead-letter queue has confirmed it. The broker offers it for this overflow only.
                arguments["x-dead-letter-strategy"] = "at-least-once"
            }
            return Queue(name, kind: .quorum, arguments: arguments)
        }

        /// A stream.
        ///
        /// - Parameters:
        ///   - maximumBytes: the size of the stream at most; beyond it the oldest segments are removed
        ///   - segmentBytes: the size of a segment, the unit of removal
        public static func stream(_ name: String, maximumBytes: Int, segmentBytes: Int? = nil) -> Queue {
            var arguments: [String: HeaderValue] = ["x-max-length-bytes": .integer(Int64(maximumBytes))]
            if let segmentBytes { arguments["x-stream-max-segment-size-bytes"] = .integer(Int64(segmentBytes)) }
            return Queue(name, kind: .stream, arguments: arguments)
        }

        /// The queue's type and all further arguments.
        var declaredArguments: [String: HeaderValue] {
            arguments.merging(["x-queue-type": .string(kind.rawValue)]) { own, _ in own }
        }
    }

    /// Which messages of an exchange go to a queue.
    public struct Binding: Sendable, Hashable {
        /// The exchange's name.
        public var exchange: String
        /// The queue's name.
        public var queue: String
        /// The routing key, or a pattern of it (`*` one word, `#` any number of words).
        public var routingKey: String

        /// Makes a binding.
        public init(exchange: String, queue: String, routingKey: String) {
            self.exchange = exchange
            self.queue = queue
            self.routingKey = routingKey
        }
    }

    /// Exchanges, which are declared first.
    public var exchanges: [Exchange]
    /// Queues, which are declared second.
    public var queues: [Queue]
    /// Bindings, which are declared last.
    public var bindings: [Binding]

    /// Makes a topology.
    public init(exchanges: [Exchange] = [], queues: [Queue] = [], bindings: [Binding] = []) {
        self.exchanges = exchanges
        self.queues = queues
        self.bindings = bindings
    }

    /// Whether a message of this exchange may reach a queue of the topology. Patterns and headers are not looked at: any binding of the exchange counts.
    func hasBinding(exchange: String, routingKey: String) -> Bool {
        let isDirect = exchanges.contains { $0.name == exchange && $0.kind == .direct }
        return bindings.contains { $0.exchange == exchange && (!isDirect || $0.routingKey == routingKey) }
    }
}
