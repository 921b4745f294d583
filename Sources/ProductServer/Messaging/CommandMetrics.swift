import MessageBroker
import ServerKit
import ServerMetrics
import StockContract
import StockGate
import StrictJSON
import Synchronization

/// Counts of the consumer of `stock.decrease`.
final class CommandMetrics: Sendable {
    let commands: Counter
    let redelivered: Counter
    let republished: Counter
    let repeated: Counter
    let poison: Counter
    let deadLetters: Counter
    let waits: Counter
    let unconfirmed: Counter
    let tooLate: Counter
    let aside: Counter
    let misdirected: Counter
    private let seconds: Histogram
    private let requeues: [CommandLife.Unfinished: Counter]
    private let committed: Counter
    private let duplicates: Counter
    private let insufficient: Counter
    private let refused: Counter
    private let unknown: Counter
    /// Orders that were sent to the engine and have no result yet.
    let ordersInFlight = Atomic<Int>(0)
    /// Commands in hand that wait for a locked row.
    let blocked = Atomic<Int>(0)

    init(registry: MetricsRegistry) {
        commands = registry.counter("stockgate_commands_total", help: "Commands delivered from the queue of commands.")
        redelivered = registry.counter("stockgate_commands_redelivered_total", help: "Commands that the broker delivered again.")
        republished = registry.counter("stockgate_commands_republished_total", help: "Commands that their sender had published before.")
        repeated = registry.counter(
            "stockgate_commands_repeated_total",
            help: "Commands decided as repeats: delivered or published again, or seen before."
        )
        poison = registry.counter("stockgate_commands_poison_total", help: "Commands that cannot be read.")
        deadLetters = registry.counter("stockgate_dead_letters_total", help: "Copies confirmed in the queue of dead letters.")
        waits = registry.counter("stockgate_command_waits_total", help: "Waits before orders or results were tried again.")
        unconfirmed = registry.counter("stockgate_results_unconfirmed_total", help: "Results and copies that the broker did not confirm.")
        tooLate = registry.counter(
            "stockgate_command_settlements_late_total",
            help: "Deliveries whose connection had ended when they were settled; they are delivered again."
        )
        aside = registry.counter(
            "stockgate_commands_aside_total",
            help: "Commands set aside because their product's row is locked; they are delivered again."
        )
        misdirected = registry.counter(
            "stockgate_commands_misdirected_total",
            help: "Commands for products of another cell, given to the dead letters undecided."
        )
        seconds = registry.histogram("stockgate_command_seconds", help: "From a command's time to its confirmed result.")
        requeues = Dictionary(
            uniqueKeysWithValues: CommandLife.Unfinished.allCases.map { why in
                let labels = [(name: "reason", value: why.rawValue)]
                let help = "Commands given back to the queue."
                return (why, registry.counter("stockgate_commands_requeued_total", help: help, labels: labels))
            }
        )
        func outcome(_ name: String) -> Counter {
            registry.counter("stockgate_command_orders_total", help: "Orders in commands, by outcome.", labels: [("outcome", name)])
        }
        committed = outcome("committed")
        duplicates = outcome("duplicate")
        insufficient = outcome("insufficient")
        refused = outcome("refused")
        unknown = outcome("unknown")
    }

    func received(_ command: IncomingCommand) {
        commands.add()
        if command.delivery.isRedelivered || command.delivery.deliveryCount > 0 { redelivered.add() }
        if (command.delivery.headers["attempt"]?.integer ?? 1) > 1 { republished.add() }
        if command.isRepeat { repeated.add() }
        if case .poison = command.content { poison.add() }
    }

    func decided(_ answer: DecreaseAnswer) {
        switch answer {
        case .sold(_, replayed: false): committed.add()
        case .sold(_, replayed: true): duplicates.add()
        case .insufficient: insufficient.add()
        case .keyClosed, .keyReused, .notOnSale, .productMissing: refused.add()
        case .unavailable: unknown.add()
        }
    }

    func requeued(_ why: CommandLife.Unfinished) { requeues[why]?.add() }

    /// The result of a command is confirmed.
    func finished(_ command: IncomingCommand) {
        guard case .command(let command) = command.content else { return }
        // The clocks of two machines may differ, so a negative time counts as zero.
        seconds.record(.microseconds(max(0, Timestamp.now.microseconds(since: command.time))))
    }
}

extension DecreaseConsumer {
    /// Registers the values that are read when metrics are asked for.
    func register(in registry: MetricsRegistry) {
        let (desk, source, sink, metrics) = (self.desk, self.source, self.sink, self.metrics)
        registry.gauge("stockgate_commands_in_hand", help: "Commands delivered and not settled.") { Double(desk.commandsHeld) }
        registry.gauge("stockgate_command_orders_in_flight", help: "Orders of commands without a confirmed result.") {
            Double(metrics.ordersInFlight.load(ordering: .relaxed))
        }
        registry.gauge("stockgate_commands_blocked", help: "Commands in hand that wait for a product's locked row.") {
            Double(metrics.blocked.load(ordering: .relaxed))
        }
        registry.register(broker: "connection") { Self.snapshots(source, sink) }
    }

    /// The state of both connections to the broker, by their names.
    private static func snapshots(
        _ source: any MessageReceiving,
        _ sink: any MessagePublishing
    ) -> [(name: String, snapshot: BrokerSnapshot)] {
        [("consumer", source.snapshot()), ("publisher", sink.snapshot())]
    }

    /// Degraded while the broker is away, because sales over HTTP go on.
    var healthCheck: HealthCheck {
        let (desk, source, sink) = (self.desk, self.source, self.sink)
        return HealthCheck("broker", timeoutState: .degraded) {
            let snapshots = Self.snapshots(source, sink)
            // While the broker takes no messages, results cannot be published, and orders over the broker wait.
            let isUp = snapshots.allSatisfy { $0.1.isConnected && $0.1.blockedReason == nil && $0.1.refusedRoutes.isEmpty }
            return HealthReport(
                isUp ? .up : .degraded,
                detail: .object(
                    snapshots.map { name, snapshot in
                        let failure = snapshot.isConnected ? nil : snapshot.lastFailure
                        return JSONMember(
                            name,
                            [
                                "connected": .bool(snapshot.isConnected),
                                "node": snapshot.isConnected ? snapshot.address.map { .string("\($0)") } ?? .null : .null,
                                "blocked": snapshot.blockedReason.map { .string($0) } ?? .null,
                                "refused": .array(snapshot.refusedRoutes.map { .string($0) }),
                                "failure": failure.map { .string(Redaction.masked($0.message)) } ?? .null,
                            ]
                        )
                    } + [JSONMember("commandsInHand", .int(Int64(desk.commandsHeld)))]
                )
            )
        }
    }
}
