// Takes the commands of `stock.decrease` from the broker and passes them to the engine: the same gate and the same group commit as for HTTP.
//
// Who suffers: commands that come for the first time go to the engine together. A command that came back twice may be what ended the processes that
// had it. Such suspects are read and decided one at a time, each after the one before it is acknowledged or has used up its time. So if one of them ends this
// process too, it takes few other deliveries with it, and drives none of them to the broker's delivery limit. Their order is random, so that none is always
// behind the harmful one.
//
// Bounds: twice the prefetch, because deliveries of a lost connection come again while their first copies are still in work. Beyond that nothing is taken.
//   `CommandLife` bounds a command's time, and `CommandDesk` the orders.

import APIErrors
import Logging
import MessageBroker
import ServerMetrics
import NIOCore
import ServerKit
import ServiceLifecycle
import StockContract
import StockGate
import Synchronization

/// The consumer's settings.
struct CommandConfiguration: Sendable {
    /// The broker's address. Its description hides the password.
    var broker: BrokerConfiguration
    /// How many commands may be delivered and not settled.
    var prefetch: Int
    /// How many orders may be between the engine and their result.
    var maximumOrders: Int
    /// How long a command is tried before it goes back to the queue.
    var giveUpAfter: Duration

    /// Reads the settings; nil without a broker.
    init?(from reader: inout SettingsReader) {
        let broker = reader.optionalAddress(
            "AMQP_URL",
            "the broker, amqp:// or amqps://user:password@host:port,host:port/vhost, any number of its nodes up to 16; without it no commands are consumed"
        ) { url throws(SettingsReader.Refusal) in
            do throws(BrokerError) { return try BrokerConfiguration(url: url) } catch { throw .init(error.message) }
        }
        reader.check("AMQP_URL", broker?.tls)
        prefetch = reader.int(
            "COMMAND_PREFETCH",
            default: 64,
            in: 1...4_096,
            "unacknowledged commands at most; a quarter of them may wait for rows that are locked"
        )
        maximumOrders = reader.int(
            "COMMAND_ORDERS",
            default: 8_192,
            in: 1...100_000,
            "orders of commands between the engine and their result at most"
        )
        giveUpAfter = reader.duration(
            "COMMAND_GIVE_UP",
            default: .seconds(60),
            in: .milliseconds(100)...(.seconds(1_200)),
            "how long a command without an outcome is tried before it goes back to the queue"
        )
        guard let broker else { return nil }
        self.broker = broker
        self.broker.connectionName = "product-server"
    }
}

struct DecreaseConsumer: Service, CustomStringConvertible {
    let source: any MessageReceiving
    let sink: any MessagePublishing
    let desk: CommandDesk
    let metrics: CommandMetrics
    private let prefetch: Int
    private let stopWithin: Duration
    private let logger: Logger
    private let ids: ProductIDs?
    private let misdirectedLog = LogThrottle()
    /// Opens when the engine can decide.
    private let prepared: PreparedLatch
    /// How long a suspect may delay the others: ten times as long as a commit usually takes.
    private static let suspectTime = Duration.milliseconds(50)

    var description: String { "consumer" }

    /// - Parameters:
    ///   - ids: the products of this server's cell; nil: all
    ///   - eventLoop: a loop of the engine's group
    ///   - isLocked: whether a product's row is known to be locked by another transaction
    ///   - stopWithin: the time for commands under way when the server stops
    init(
        source: any MessageReceiving,
        sink: any MessagePublishing,
        registry: MetricsRegistry,
        ids: ProductIDs? = nil,
        eventLoop: any EventLoop,
        prefetch: Int,
        maximumOrders: Int,
        giveUpAfter: Duration,
        stopWithin: Duration,
        prepared: PreparedLatch,
        logger: Logger,
        isLocked: @escaping @Sendable (Int64) -> Bool = { _ in false },
        decide: @escaping CommandDesk.Decide
    ) {
        self.source = source
        self.sink = sink
        self.metrics = CommandMetrics(registry: registry)
        desk = CommandDesk(
            eventLoop: eventLoop,
            source: source,
            sink: sink,
            metrics: metrics,
            maximumOrders: maximumOrders,
            // A quarter, so that most of what the broker sends can be decided at once, whoever waits.
            maximumBlocked: prefetch / 4,
            giveUpAfter: giveUpAfter,
            asideQueue: StockGateTopology.asideQueue(ofCell: ids?.name),
            isLocked: isLocked,
            decide: decide
        )
        self.ids = ids
        self.prefetch = prefetch
        self.stopWithin = stopWithin
        self.prepared = prepared
        self.logger = logger
        register(in: registry)
    }

    /// Takes commands until the server stops. Then it ends those under way within the bound, and gives the rest back.
    func run() async throws {
        await cancelWhenGracefulShutdown {
            await prepared.wait()
            await take()
        }
        await desk.shutdown(within: stopWithin)
        await source.shutdown(within: .seconds(1))
        await sink.shutdown(within: .seconds(1))
    }

    private func take() async {
        var seen = RecentMessages()
        while !Task.isCancelled {
            guard desk.commandsHeld < 2 * prefetch else {
                try? await Task.sleep(for: .milliseconds(5))
                continue
            }
            do throws(BrokerError) {
                let deliveries = try await source.nextBatch(max: prefetch, wait: .seconds(1))
                take(deliveries.filter { !$0.isSuspect }, &seen)
                for suspect in deliveries.filter(\.isSuspect).shuffled() {
                    await rest(within: Self.suspectTime)
                    take([suspect], &seen)
                }
            } catch {
                return logger.error("the consumer of commands has ended", metadata: ["why": "\(error)"])
            }
        }
    }

    private func take(_ deliveries: [Delivery], _ seen: inout RecentMessages) {
        let commands = deliveries.map { IncomingCommand($0, isCopy: { !seen.insert($0.identity) }) }.filter { !turnAway($0) }
        for command in commands {
            guard case .poison(let poison) = command.content else { continue }
            logger.warning(
                "a command cannot be read",
                metadata: [
                    "message": "\(command.delivery.messageID ?? "none")", "reason": "\(poison.reason.rawValue)",
                    "detail": "\(poison.detail)",
                ]
            )
        }
        desk.take(commands)
    }

    /// Gives a command to the dead letters whose product another cell has, undecided: only that cell knows its keys. The order server has its orders settled there
    /// over HTTP when no result has come.
    private func turnAway(_ command: IncomingCommand) -> Bool {
        guard let ids, case .command(let content) = command.content, !ids.contains(content.productID) else { return false }
        metrics.misdirected.add()
        misdirectedLog.log(
            .error,
            "a command is for a product of another cell: PRODUCT_IDS of this server and PRODUCT_SERVER_URL of the order servers differ",
            to: logger,
            metadata: ["product": "\(content.productID)", "message": "\(command.delivery.messageID ?? "none")"]
        )
        if !source.reject(command.delivery, requeue: false) { metrics.tooLate.add() }
        return true
    }

    /// Waits until no command is left. A cancelled task does not wait.
    private func rest(within bound: Duration) async {
        let end = ContinuousClock.now + bound
        while desk.commandsHeld > 0, ContinuousClock.now < end {
            guard (try? await Task.sleep(for: .milliseconds(1))) != nil else { return }
        }
    }
}
