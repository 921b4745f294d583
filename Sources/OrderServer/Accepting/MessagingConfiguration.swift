import MessageBroker
import ServerKit

/// Settings for orders over the broker.
struct MessagingConfiguration: Sendable {
    var broker: BrokerConfiguration
    var relay: RelayMachine.Configuration
    var results: ResultConsumer.Configuration
    /// How many unacknowledged result messages the consumer has at most.
    var prefetch: Int
    /// How many orders may wait in commands that are not sent.
    var maximumOrders: Int
    /// How many event rows may wait.
    var maximumEvents: Int
    /// How long a command may wait to be sent, and how long a sent command's orders may wait for their result, before recovery takes them up.
    var recoveryAge: Duration
    /// How long rows of sent messages are kept.
    var retention: Duration

    /// Reads the settings; nil without `AMQP_URL`.
    init?(from reader: inout SettingsReader) {
        let second = Duration.seconds(1)
        let broker = reader.optionalAddress(
            "AMQP_URL",
            "the broker, amqp:// or amqps://user:password@host:port,host:port/vhost, any number of its nodes up to 16; without it no order goes over the broker and no events are sent"
        ) { url throws(SettingsReader.Refusal) in
            do throws(BrokerError) { return try BrokerConfiguration(url: url) } catch { throw .init(error.message) }
        }
        reader.check("AMQP_URL", broker?.tls)
        relay = RelayMachine.Configuration()
        relay.maximumRows = reader.int("RELAY_BATCH", default: 128, in: 1...4_096, "messages published together at most")
        relay.pause = reader.duration(
            "RELAY_PAUSE",
            default: .milliseconds(8),
            in: .zero...second,
            "the longest pause between two batches of messages (60 us for each order beyond the first 32), in which further messages gather"
        )
        relay.pollInterval = reader.duration(
            "OUTBOX_POLL",
            default: second,
            in: .milliseconds(10)...second * 60,
            "time between two looks for messages when nothing wakes the relay"
        )
        let attempts = reader.int("OUTBOX_ATTEMPTS", default: 20, in: 1...1_000, "attempts to publish a message before it is DEAD")
        relay.maximumAttempts = Int64(attempts)
        relay.backoff = RetryPolicy(
            maximumAttempts: attempts,
            initialBackoff: reader.duration(
                "OUTBOX_BACKOFF",
                default: .milliseconds(100),
                in: .milliseconds(1)...second * 60,
                "the longest first wait between two attempts; it doubles with each attempt"
            ),
            maximumBackoff: reader.duration(
                "OUTBOX_BACKOFF_MAX",
                default: second * 30,
                in: .milliseconds(1)...second * 3_600,
                "the longest wait between two attempts"
            )
        )
        maximumOrders = reader.int(
            "OUTBOX_LIMIT",
            default: 100_000,
            in: 1...100_000_000,
            "accepted orders that may wait to be sent; more are OVERLOADED"
        )
        maximumEvents = reader.int(
            "EVENT_LIMIT",
            default: 100_000,
            in: 0...100_000_000,
            "event messages that may wait; more are dropped and counted; with 0 no events are sent"
        )
        recoveryAge = reader.duration(
            "ASYNC_RECOVERY_AGE",
            default: second * 60,
            in: .milliseconds(100)...second * 86_400,
            "how long an order may wait to be sent, and a sent one for its result, before recovery settles it over HTTP"
        )
        retention = reader.duration(
            "OUTBOX_RETENTION",
            default: second * 3_600,
            in: second...second * 2_592_000,
            "how long sent messages are kept"
        )
        results = ResultConsumer.Configuration()
        results.maximumMessages = reader.int("RESULT_BATCH", default: 64, in: 1...4_096, "result messages taken together at most")
        prefetch = reader.int("RESULT_PREFETCH", default: 512, in: 1...65_535, "unacknowledged result messages at most")
        guard let broker else { return nil }
        self.broker = broker
        self.broker.connectionName = "stockgate-order"
    }
}
