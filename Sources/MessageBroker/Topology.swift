/// Exchanges, queues and bindings, as a value: declared at every connect, which changes nothing if they are there already.
///
/// One that exists with other arguments is an error that names it (``BrokerError/Code/topologyMismatch(name:)``); nothing is ever deleted.
public struct Topology: Sendable, Hashable {
    /// Where messages are published to. Survives a restart of the broker.
    public struct Exchange: Sendable, Hashable {
        /// How an exchange chooses queues.
        public enum Kind: String, Sendable, Hashable {
            /// By the same routing key.
            case direct
            /// By a pattern of the routing key.
            case topic
            /// All bound queues.
            case fanout
            /// By headers.
            case headers
        }

        /// Its name.
        public var name: String
        /// How it chooses queues.
        public var kind: Kind
        /// Survives a restart of the broker.
        public var isDurable: Bool

        /// Makes an exchange.
        public init(_ name: String, kind: Kind, isDurable: Bool = true) {
            self.name = name
            self.kind = kind
            self.isDurable = isDurable
        }
    }

    /// Where messages wait. Durable.
    public struct Queue: Sendable, Hashable {
        /// The `x-queue-type`.
        public enum Kind: String, Sendable, Hashable {
            /// Replicated by Raft; messages are on disk before their confirm.
            case quorum
            /// An append-only log that each reader reads from an offset of its own.
            case stream
            /// The queue of one node.
            case classic
        }

        /// What happens to a message that finds the queue full.
        public enum Overflow: String, Sendable, Hashable {
            /// The oldest one goes to the dead-letter exchange.
            case dropHead = "drop-head"
            /// The new one is answered by a nack.
            case rejectPublish = "reject-publish"
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
        ///   - deliveryLimit: deliveries that came back before a message goes to the dead-letter exchange.
        ///   - deadLetterExchange: where rejected messages and those over the limit go; a queue must be bound to it, or they stay.
        ///   - maximumLength: bound on its messages.
        public static func quorum(
            _ name: String,
            deliveryLimit: Int? = nil,
            deadLetterExchange: String? = nil,
            maximumLength: Int? = nil,
            overflow: Overflow = .rejectPublish
        ) -> Queue {
            var arguments: [String: HeaderValue] = [:]
            if let deliveryLimit { arguments["x-delivery-limit"] = .integer(Int64(deliveryLimit)) }
            if let maximumLength { arguments["x-max-length"] = .integer(Int64(maximumLength)) }
            if maximumLength != nil || deadLetterExchange != nil { arguments["x-overflow"] = .string(overflow.rawValue) }
            if let deadLetterExchange {
                arguments["x-dead-letter-exchange"] = .string(deadLetterExchange)
                // A dead letter leaves its queue only when the dead-letter queue has confirmed it; the broker offers that with this overflow alone.
                if overflow == .rejectPublish { arguments["x-dead-letter-strategy"] = "at-least-once" }
            }
            return Queue(name, kind: .quorum, arguments: arguments)
        }

        /// A stream.
        ///
        /// - Parameters:
        ///   - maximumBytes: bound on its size; the oldest segments go first.
        ///   - segmentBytes: size of a segment, the unit of removal.
        public static func stream(_ name: String, maximumBytes: Int, segmentBytes: Int? = nil) -> Queue {
            var arguments: [String: HeaderValue] = ["x-max-length-bytes": .integer(Int64(maximumBytes))]
            if let segmentBytes { arguments["x-stream-max-segment-size-bytes"] = .integer(Int64(segmentBytes)) }
            return Queue(name, kind: .stream, arguments: arguments)
        }

        /// All arguments, the queue's type among them.
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

    /// Declared first.
    public var exchanges: [Exchange]
    /// Declared second.
    public var queues: [Queue]
    /// Declared last.
    public var bindings: [Binding]

    /// Makes a topology.
    public init(exchanges: [Exchange] = [], queues: [Queue] = [], bindings: [Binding] = []) {
        self.exchanges = exchanges
        self.queues = queues
        self.bindings = bindings
    }
}
