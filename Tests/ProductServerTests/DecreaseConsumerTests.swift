import Eventually
import Foundation
import HTTPTypes
import Logging
import MessageBroker
import PostgresClient
import PrivateServers
import ServerMetrics
import NIOCore
import NIOPosix
import ServerKit
import StockContract
import StockGate
import StrictJSON
import Synchronization
import Testing

@testable import MessageBroker
@testable import ProductServer

/// The consumer on the real engine, Redis and PostgreSQL, with a broker that the test plays.
@Suite(.serialized, .timeLimit(.minutes(10)))
struct DecreaseConsumerTests {
    // MARK: Parts

    struct Result: Hashable {
        var order: Int64
        var outcome: String
        var reason: String?
        var remaining: Int64?
    }

    static func results(_ messages: [OutgoingMessage]) throws -> [Result] {
        try messages.flatMap { message -> [Result] in
            guard case .array(let results)? = try JSONDocument(message.body).value["results"] else { return [] }
            return results.map { result in
                var values = Result(order: 0, outcome: "")
                if case .int(let order)? = result["orderId"] { values.order = order }
                if case .string(let outcome)? = result["outcome"] { values.outcome = outcome }
                if case .string(let reason)? = result["reason"] { values.reason = reason }
                if case .int(let remaining)? = result["remainingStock"] { values.remaining = remaining }
                return values
            }
        }
    }

    static func command(_ id: Int, product: Int64, orders: some Sequence<Int>, quantity: Int = 1) -> String {
        let list = orders.map { #"{"orderId":\#($0),"key":"DEC-\#($0)","quantity":\#(quantity),"buyerId":"u-\#($0)"}"# }
        return StockCommandTests.body(
            messageID: "\"\(id)\"",
            product: String(product),
            time: "\"\(Timestamp.now)\"",
            orders: "[\(list.joined(separator: ","))]"
        )
    }

    /// A consumer that runs while `body` does.
    static func consuming(
        _ broker: ScriptedBroker,
        ids: ProductIDs? = nil,
        maximumOrders: Int = 8_192,
        giveUpAfter: Duration = .seconds(60),
        stopWithin: Duration = .seconds(5),
        registry: MetricsRegistry = MetricsRegistry(),
        decide: @escaping CommandDesk.Decide,
        _ body: (DecreaseConsumer) async throws -> Void
    ) async throws {
        let consumer = DecreaseConsumer(
            source: broker,
            sink: broker,
            registry: registry,
            ids: ids,
            eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
            prefetch: 64,
            maximumOrders: maximumOrders,
            giveUpAfter: giveUpAfter,
            stopWithin: stopWithin,
            prepared: PreparedLatch(isOpen: true),
            logger: Logger(label: "test")
        ) { request, isPatient, loop, completion in decide(request, isPatient, loop, completion) }
        let run = Task { try await consumer.run() }
        do {
            try await body(consumer)
        } catch {
            run.cancel()
            _ = await run.result
            throw error
        }
        run.cancel()
        try await run.value
    }

    static func decide(_ engine: StockEngine) -> CommandDesk.Decide {
        { request, isPatient, loop, completion in engine.decrease(request, on: loop, isPatient: isPatient, completion: completion) }
    }

    static func sold(_ server: ProductServerFixture, _ product: Int64) async throws -> (rows: Int64, stock: Int64, units: Int64) {
        let row = try await server.engine.ledger.pool.query(
            """
            select (select count(*) from stock_ledger where product_id = $1 and direction = 'OUT'), stock,
                (select coalesce(sum(quantity), 0)::bigint from stock_ledger where product_id = $1 and direction = 'OUT')
            from product_stock where product_id = $1
            """,
            [.int(product)]
        ).one()
        return (try row.decode(0, as: Int64.self), try row.decode(1, as: Int64.self), try row.decode(2, as: Int64.self))
    }

    // MARK: The usual way

    @Test func commandsAreCommittedAnsweredAndAcknowledged() async throws {
        try await ProductServerFixture.with { server in
            let id = try await server.addProduct(stock: 5)
            let broker = ScriptedBroker()
            let registry = MetricsRegistry()
            try await Self.consuming(broker, registry: registry, decide: Self.decide(server.engine)) { _ in
                broker.enqueue([Self.command(1, product: id, orders: 1...3), Self.command(2, product: id, orders: 4...7)])
                broker.enqueue([Self.command(3, product: 99, orders: [8])])
                try await eventually("all acknowledged") { broker.acknowledged == 3 }
            }
            #expect(broker.results.count == 3 && broker.requeued == 0)
            let results = try Self.results(broker.results).sorted { $0.order < $1.order }
            #expect(results.map(\.order) == Array(1...8))
            #expect(results.filter { $0.outcome == "COMMITTED" }.count == 5)
            #expect(results.filter { $0.reason == "INSUFFICIENT_STOCK" }.count == 2)
            #expect(results.last?.reason == "PRODUCT_NOT_FOUND")
            #expect(broker.deadLetters.map { $0.headers["reason"] } == ["PRODUCT_NOT_FOUND"])
            let sold = try await Self.sold(server, id)
            #expect(sold.rows == 5 && sold.stock == 0)
            let text = String(decoding: registry.exposition(), as: UTF8.self)
            #expect(text.contains("stockgate_commands_total 3\n"))
            #expect(text.contains(#"stockgate_command_orders_total{outcome="committed"} 5"#))
            #expect(text.contains("stockgate_command_seconds_count 3"))
            #expect(text.contains("stockgate_commands_in_hand 0\n"))
        }
    }

    // MARK: Repeats

    @Test func redeliveredAfterTheResultGivesTheSameResult() async throws {
        try await ProductServerFixture.with { server in
            let id = try await server.addProduct(stock: 2)
            let broker = ScriptedBroker()
            broker.loseAcknowledgements(true)
            try await Self.consuming(broker, decide: Self.decide(server.engine)) { _ in
                broker.enqueue([Self.command(1, product: id, orders: 1...2)])
                try await eventually("the first result") { broker.results.count == 1 }
                // The product is sold out by now: a first attempt would be turned away.
                broker.loseConnectionAndKeepAcknowledgements()
                try await eventually("acknowledged") { broker.acknowledged == 1 }
            }
            #expect(broker.results.count == 2)
            #expect(try Self.results([broker.results[0]]) == Self.results([broker.results[1]]))
            #expect(try Self.results(broker.results).allSatisfy { $0.outcome == "COMMITTED" })
            #expect(try await Self.sold(server, id).rows == 2)
        }
    }

    @Test func aServerThatDiesBetweenCommitAndPublishLosesNothing() async throws {
        try await ProductServerFixture.with { server in
            let id = try await server.addProduct(stock: 3)
            let broker = ScriptedBroker()
            let died = Atomic<Bool>(false)
            // The first server commits, and its answers reach nobody.
            let dying = ScriptedBroker(outcome: { _, _ throws(BrokerError) in .unsent })
            dying.enqueue([Self.command(1, product: id, orders: 1...3)])
            try await Self.consuming(dying, decide: Self.decide(server.engine)) { _ in
                try await eventually("committed") { try await Self.sold(server, id).rows == 3 }
                died.store(true, ordering: .relaxed)
            }
            #expect(died.load(ordering: .relaxed) && dying.results.isEmpty && dying.acknowledged == 0)
            // Another one gets the same message again.
            broker.enqueue([Self.command(1, product: id, orders: 1...3)], headers: ["x-delivery-count": 1])
            try await Self.consuming(broker, decide: Self.decide(server.engine)) { _ in
                try await eventually("acknowledged") { broker.acknowledged == 1 }
            }
            #expect(try Self.results(broker.results).map(\.outcome) == ["COMMITTED", "COMMITTED", "COMMITTED"])
            #expect(try await Self.sold(server, id).rows == 3)
        }
    }

    @Test func aRepeatIsNeverRejectedByTheGate() async throws {
        try await ProductServerFixture.with { server in
            let id = try await server.addProduct(stock: 10)
            // A gate that is wrong: it says sold out.
            _ = try server.redis.call(["SET", "sg:{\(id)}:stock", "0"])
            let broker = ScriptedBroker()
            try await Self.consuming(broker, decide: Self.decide(server.engine)) { _ in
                broker.enqueue([Self.command(1, product: id, orders: [1])])
                try await eventually("rejected") { broker.acknowledged == 1 }
                broker.enqueue([Self.command(2, product: id, orders: [2])], headers: ["attempt": 2])
                try await eventually("acknowledged") { broker.acknowledged == 2 }
            }
            let results = try Self.results(broker.results)
            #expect(results.map(\.outcome) == ["REFUSED", "COMMITTED"])
            #expect(try await Self.sold(server, id).rows == 1)
        }
    }

    // MARK: Poison

    /// Commands at their ends come in one delivery with innocent ones: each is refused to the dead letters alone, and the others are sold.
    @Test func aCommandAtItsEndsHarmsNobodyElse() async throws {
        try await ProductServerFixture.with { server in
            let id = try await server.addProduct(stock: 1000)
            let broker = ScriptedBroker()
            let times = ["300000-01-01T00:00:00Z", "+300000-01-01T00:00:00Z", "292277026596-12-04T15:30:07.999999Z"]
            try await Self.consuming(broker, decide: Self.decide(server.engine)) { consumer in
                var bodies: [String] = []
                for round in 0..<6 {
                    bodies.append(Self.command(round * 10, product: id, orders: round * 10 + 1...round * 10 + 3))
                    bodies.append(
                        StockCommandTests.body(
                            messageID: "\"bad-\(round)\"",
                            product: String(id),
                            time: "\"\(times[round % times.count])\"",
                            orders: #"[{"orderId":\#(9000 + round),"key":"DEC-\#(9000 + round)","quantity":1}]"#
                        )
                    )
                }
                bodies.append(
                    StockCommandTests.body(
                        messageID: #""ends""#,
                        product: "9223372036854775807",
                        time: #""0000-01-01T00:00:00Z""#,
                        orders: #"[{"orderId":9223372036854775807,"key":"DEC-9223372036854775807","quantity":1000000000}]"#
                    )
                )
                broker.enqueue(bodies, headers: ["attempt": .integer(.max), "x-delivery-count": .integer(.min)])
                try await eventually("all are settled") { broker.isDrained }
                #expect(broker.acknowledged == 13 && broker.requeued == 0)
                let results = try Self.results(broker.results)
                #expect(results.count { $0.outcome == "COMMITTED" } == 18)
                #expect(Set(results.filter { $0.reason == "VALIDATION_ERROR" }.map(\.order)) == Set((0..<6).map { 9000 + Int64($0) }))
                #expect(results.contains { $0.order == .max && $0.reason == "PRODUCT_NOT_FOUND" })
                let dead = broker.deadLetters.map { $0.messageID ?? "" }
                #expect(broker.deadLetters.count == 7, "\(dead)")
                _ = consumer
            }
            #expect(try await Self.sold(server, id).rows == 18)
        }
    }

    /// Whatever ends the process at one command ends it again and again; the broker gives each message twenty deliveries.
    @Test func aCommandThatEndsTheProcessTakesNobodyWithIt() async throws {
        let broker = ScriptedBroker()
        let harmful: Int64 = 666
        var lives = 0
        broker.enqueue((0..<40).map { Self.command($0, product: 1, orders: [$0 == 20 ? Int(harmful) : 1_000 + $0]) })
        // Until the harmful one alone is left.
        while broker.acknowledged < 39, lives < 25 {
            lives += 1
            let isDead = Atomic<Bool>(false)
            // The broker knows of the death, and may be opened for the next life.
            let isNoticed = Atomic<Bool>(false)
            try await Self.consuming(
                broker,
                stopWithin: .milliseconds(1),
                decide: { request, _, _, completion in
                    if isDead.load(ordering: .relaxed) { return }
                    if request.orderID == harmful {
                        isDead.store(true, ordering: .relaxed)
                        broker.consumerDied()
                        return isNoticed.store(true, ordering: .releasing)
                    }
                    completion(.sold(remaining: 1, replayed: false))
                }
            ) { _ in
                try await eventually("the process ends") { isNoticed.load(ordering: .acquiring) }
            }
            broker.reopen()
        }
        #expect(broker.acknowledged == 39, "after \(lives) lives")
        #expect(lives < 18, "each life costs every message in hand one of its twenty deliveries")
        print("CONSUMER 39 innocent commands beside one that ends the process: all settled in \(lives) lives")
    }

    @Test func aPoisonCommandPassesNoKeyOnThatIsNoOrdersOwn() async throws {
        let broker = ScriptedBroker()
        try await Self.consuming(broker, decide: { _, _, _, completion in completion(.sold(remaining: 1, replayed: false)) }) { _ in
            let orders =
                #"[{"orderId":7,"key":"DEC-8","quantity":0},{"orderId":8,"key":"DEC-8.2","quantity":1},{"orderId":9,"key":"x","quantity":1},{"orderId":10,"key":"DEC-10.1"}]"#
            broker.enqueue([StockCommandTests.body(orders: orders)])
            try await eventually("acknowledged") { broker.acknowledged == 1 }
        }
        let body = try #require(broker.results.first?.body)
        guard case .array(let results)? = try JSONDocument(body).value["results"] else { return #expect(Bool(false), "no results") }
        #expect(results.map { $0["key"] } == ["DEC-7", "DEC-8.2", "DEC-9", "DEC-10"])
    }

    @Test func poisonGoesToTheDeadLettersAndItsOrdersFail() async throws {
        try await ProductServerFixture.with { server in
            let id = try await server.addProduct(stock: 10)
            let broker = ScriptedBroker()
            try await Self.consuming(broker, decide: Self.decide(server.engine)) { _ in
                broker.enqueue(["{", StockCommandTests.body(version: "9", product: String(id))])
                broker.enqueue([Self.command(1, product: id, orders: [1])])
                try await eventually("acknowledged") { broker.acknowledged == 3 }
            }
            #expect(broker.deadLetters.count == 2)
            #expect(broker.deadLetters.allSatisfy { $0.headers["reason"] == "VALIDATION_ERROR" && $0.headers["detail"] != nil })
            let results = try Self.results(broker.results).sorted { $0.order < $1.order }
            #expect(results.map(\.outcome) == ["COMMITTED", "REFUSED"])
            #expect(results.last == Result(order: 7, outcome: "REFUSED", reason: "VALIDATION_ERROR"))
            #expect(try await Self.sold(server, id).rows == 1)
        }
    }

    // MARK: Faults

    @Test func theLedgerGoesAwayAndComesBack() async throws {
        try await ProductServerFixture.with(["ANSWER_WITHIN": "3s"]) { server in
            let id = try await server.addProduct(stock: 100)
            let broker = ScriptedBroker()
            let registry = MetricsRegistry()
            try await Self.consuming(broker, registry: registry, decide: Self.decide(server.engine)) { consumer in
                server.postgres.kill()
                broker.enqueue((0..<10).map { Self.command($0, product: id, orders: ($0 * 10 + 1)...($0 * 10 + 10)) })
                try await eventually("a round without an outcome") { consumer.metrics.waits.value > 0 }
                #expect(broker.acknowledged == 0 && broker.results.isEmpty && broker.unacknowledged == 10)
                try server.postgres.restart()
                try await eventually("acknowledged") { broker.acknowledged == 10 }
            }
            #expect(try Self.results(broker.results).filter { $0.outcome == "COMMITTED" }.count == 100)
            let sold = try await Self.sold(server, id)
            #expect(sold.rows == 100 && sold.stock == 0)
            #expect(String(decoding: registry.exposition(), as: UTF8.self).contains(#"outcome="unknown""#))
        }
    }

    @Test func withoutAnOutcomeInTimeAnotherServerGetsIt() async throws {
        let broker = ScriptedBroker()
        let asked = Mutex<[Bool]>([])
        // The ledger is back as soon as the command has been given back.
        let decide: CommandDesk.Decide = { request, _, _, completion in
            asked.withLock { $0.append(request.isRepeat) }
            completion(broker.requeued > 0 ? .sold(remaining: 1, replayed: false) : .unavailable(.ledgerDown))
        }
        let registry = MetricsRegistry()
        try await Self.consuming(broker, giveUpAfter: .milliseconds(300), registry: registry, decide: decide) { _ in
            broker.enqueue([Self.command(1, product: 1, orders: [1])])
            try await eventually("acknowledged") { broker.acknowledged == 1 }
        }
        #expect(broker.requeued == 1)
        #expect(asked.withLock { $0.first } == false)
        #expect(asked.withLock { $0.dropFirst().allSatisfy { $0 } })
        let text = String(decoding: registry.exposition(), as: UTF8.self)
        #expect(text.contains(#"stockgate_commands_requeued_total{reason="undecided"} 1"#))
        #expect(text.contains("stockgate_commands_redelivered_total 1"))
    }

    @Test func whatTheBrokerDoesNotConfirmIsPublishedAgain() async throws {
        try await ProductServerFixture.with { server in
            let id = try await server.addProduct(stock: 10)
            let broker = ScriptedBroker { _, number throws(BrokerError) in
                switch number {
                case 1: return .returned(code: 312, text: "NO_ROUTE")
                case 2: return .rejected
                case 3: return .unknown
                case 4: throw BrokerError(code: .notConnected, message: "gone")
                default: return .confirmed
                }
            }
            try await Self.consuming(broker, decide: Self.decide(server.engine)) { _ in
                broker.enqueue([Self.command(1, product: id, orders: [1])])
                try await eventually("acknowledged") { broker.acknowledged == 1 }
            }
            #expect(broker.publishes == 5 && broker.results.count == 1)
            #expect(try await Self.sold(server, id).rows == 1)
        }
    }

    // MARK: Disorder and load

    @Test func everyMessageTwiceInDisorderUnderLoad() async throws {
        try await ProductServerFixture.with { server in
            let (messages, size, stock) = (300, 10, 2_000)
            let id = try await server.addProduct(stock: stock)
            let broker = ScriptedBroker { _, number throws(BrokerError) in number.isMultiple(of: 7) ? .unknown : .confirmed }
            let commands = (0..<messages).map { Self.command($0, product: id, orders: ($0 * size + 1)...(($0 + 1) * size)) }
            try await Self.consuming(broker, decide: Self.decide(server.engine)) { _ in
                // The second copies come in reverse, and connections end in between.
                broker.enqueue(commands + commands.reversed())
                for _ in 0..<3 {
                    let before = broker.acknowledged
                    try await eventually("some") { broker.acknowledged > before + messages / 5 || broker.isDrained }
                    broker.loseConnection()
                }
                try await eventually("drained") { broker.isDrained }
            }
            #expect(broker.largestUnacknowledged <= 64)
            let sold = try await Self.sold(server, id)
            #expect(sold.rows == Int64(stock) && sold.units == Int64(stock) && sold.stock == 0)
            let results = try Self.results(broker.results)
            #expect(Set(results.map(\.order)).count == messages * size)
            let committed = Set(results.filter { $0.outcome == "COMMITTED" }.map(\.order))
            #expect(committed.count == stock)
            // Nobody was told yes and no.
            let both = committed.intersection(results.filter { $0.outcome == "REFUSED" }.map(\.order)).count
            #expect(both == 0)
            // Redis is told of the last commits behind their answers.
            var audit = try await server.ask(.get, "/admin/audit/products/\(id)", admin: true)
            try await eventually("nothing pending in Redis, and no drift") {
                audit = try await server.ask(.get, "/admin/audit/products/\(id)", admin: true)
                return audit["redisPending"] == 0 && audit["drift"] == 0
            }
            #expect(audit["sold"] == .int(Int64(stock)) && audit["databaseStock"] == 0, "\(audit.body)")
        }
    }

    // MARK: Bounds

    @Test func ordersInFlightAreBounded() async throws {
        let broker = ScriptedBroker()
        let open = Mutex<[(any EventLoop, (DecreaseAnswer) -> Void)]>([])
        let largest = Atomic<Int>(0)
        let decide: CommandDesk.Decide = { _, _, loop, completion in
            let answer = Completion(completion)
            let count = open.withLock { open in
                open.append((loop, { answer.body($0) }))
                return open.count
            }
            if count > largest.load(ordering: .relaxed) { largest.store(count, ordering: .relaxed) }
        }
        try await Self.consuming(broker, maximumOrders: 25, decide: decide) { consumer in
            broker.enqueue((0..<20).map { Self.command($0, product: 1, orders: ($0 * 10 + 1)...($0 * 10 + 10)) })
            // A command counts as held before its orders are sent. Those of two fit within the bound, and no third one's.
            try await eventually("as many orders as may are sent") {
                consumer.desk.commandsHeld == 20 && open.withLock { $0.count } >= 20
            }
            while !broker.isDrained {
                let answers = open.withLock { open in
                    defer { open = [] }
                    return open
                }
                for (loop, answer) in answers {
                    let answer = Completion(answer)
                    loop.execute { answer.body(.sold(remaining: 1, replayed: false)) }
                }
                try await Task.sleep(for: .milliseconds(1))
            }
        }
        #expect(broker.acknowledged == 20)
        #expect(largest.load(ordering: .relaxed) <= 25)
        #expect(largest.load(ordering: .relaxed) >= 20)
    }

    /// Carries a completion between threads; it is called on its own loop alone.
    final class Completion: @unchecked Sendable {
        let body: (DecreaseAnswer) -> Void
        init(_ body: @escaping (DecreaseAnswer) -> Void) { self.body = body }
    }

    /// As many as may wait in hand, the others to the queue of their own, as repeats; where that takes nothing more, all wait in hand.
    @Test(arguments: [false, true])
    func whatWaitsForALockedRowIsSetAside(_ isFull: Bool) async throws {
        let broker = ScriptedBroker { message, _ throws(BrokerError) in
            isFull && message.routingKey == StockGateTopology.asideRoutingKey ? .rejected : .confirmed
        }
        let isLocked = Atomic(true)
        let patient = Atomic(0)
        try await Self.consuming(
            broker,
            decide: { request, isPatient, _, completion in
                if isPatient { patient.wrappingAdd(1, ordering: .relaxed) }
                let waits = request.product.rawValue == 1 && isLocked.load(ordering: .relaxed)
                completion(waits ? .unavailable(.lockTimeout) : .sold(remaining: 1, replayed: false))
            }
        ) { consumer in
            broker.enqueue(
                (1...40).map { Self.command($0, product: 1, orders: [$0]) },
                headers: ["attempt": .integer(Int64.max), "x-death": "yes"]
            )
            broker.enqueue([Self.command(41, product: 2, orders: [41])])
            try await eventually("the other one is acknowledged") { broker.results.count == 1 }
            try await eventually("the rest waits") { consumer.metrics.blocked.load(ordering: .relaxed) == (isFull ? 40 : 16) }
            // They may be published beside the other one's result, by another task.
            var aside: [OutgoingMessage] = []
            try await eventually("as many as may not stay are set aside") {
                aside = broker.published.filter { $0.routingKey == StockGateTopology.asideRoutingKey }
                return aside.count >= (isFull ? 0 : 24)
            }
            #expect(aside.count == (isFull ? 0 : 24))
            #expect(
                aside.allSatisfy {
                    $0.headers["attempt"] == .integer(Int64.max) && $0.headers["x-death"] == nil && $0.headers["aside"] == "LOCK_TIMEOUT"
                }
            )
            // Counted where the broker's confirmation has reached the command's own event loop.
            try await eventually("counted") { consumer.metrics.aside.value == UInt64(aside.count) }
            isLocked.store(false, ordering: .relaxed)
            try await eventually("what stayed in hand is sold") { broker.results.count == 1 + (isFull ? 40 : 16) }
            try await eventually("nothing in hand") { consumer.desk.commandsHeld == 0 }
            #expect(consumer.metrics.blocked.load(ordering: .relaxed) == 0)
            // Only those that stay in hand wait for the row.
            #expect(patient.load(ordering: .relaxed) >= (isFull ? 40 : 16))
        }
    }

    /// It is rejected into the dead letters, with no result that could fail its orders; what the cell has goes on, and is set aside in the cell's own queue.
    @Test func aCommandForAnotherCellDecidesNothing() async throws {
        let broker = ScriptedBroker()
        let asked = Mutex<Set<Int64>>([])
        try await Self.consuming(
            broker,
            ids: try ProductIDs("1000-,!1005"),
            decide: { request, _, _, completion in
                asked.withLock { _ = $0.insert(request.product.rawValue) }
                completion(request.product.rawValue == 1_001 ? .unavailable(.lockTimeout) : .sold(remaining: 1, replayed: false))
            }
        ) { consumer in
            broker.enqueue([5, 1_000, 1_005].map { Self.command(Int($0), product: $0, orders: [Int($0)]) })
            try await eventually("all are settled") { broker.isDrained && consumer.desk.commandsHeld == 0 }
            #expect(broker.acknowledged == 1 && broker.requeued == 2 && broker.queued == 0)
            #expect(consumer.metrics.misdirected.value == 2)
            #expect(try Self.results(broker.results).map(\.order) == [1_000])
            #expect(broker.deadLetters.isEmpty && asked.withLock { $0 } == [1_000])
            broker.enqueue((1...20).map { Self.command(2_000 + $0, product: 1_001, orders: [2_000 + $0]) })
            try await eventually("some are set aside") {
                broker.published.contains { $0.routingKey == StockGateTopology.asideQueue(ofCell: "1000-") }
            }
            #expect(!broker.published.contains { $0.routingKey == StockGateTopology.asideQueue })
        }
    }

    @Test func aCommandBeyondTheBoundGoesAlone() async throws {
        let broker = ScriptedBroker()
        try await Self.consuming(
            broker,
            maximumOrders: 5,
            decide: { _, _, _, completion in completion(.sold(remaining: 1, replayed: false)) }
        ) {
            _ in
            broker.enqueue([Self.command(1, product: 1, orders: 1...50), Self.command(2, product: 1, orders: [51])])
            try await eventually("acknowledged") { broker.acknowledged == 2 }
        }
    }

    /// What is in hand is acknowledged before the consumer is closed, however long that takes: an acknowledgement after it would be lost.
    @Test(arguments: [false, true])
    func aStopEndsWhatIsInHandAndGivesBackTheRest(_ isSlow: Bool) async throws {
        let broker = ScriptedBroker()
        broker.setSlow(isSlow)
        let answers = Mutex<[(any EventLoop, Completion)]>([])
        let consumer = DecreaseConsumer(
            source: broker,
            sink: broker,
            registry: MetricsRegistry(),
            eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
            prefetch: 64,
            maximumOrders: 1,
            giveUpAfter: .seconds(60),
            // Longer than a busy machine keeps this test waiting: the stop ends with its work, not with its time.
            stopWithin: .seconds(60),
            prepared: PreparedLatch(isOpen: true),
            logger: Logger(label: "test")
        ) { _, _, loop, completion in
            let completion = Completion(completion)
            answers.withLock { $0.append((loop, completion)) }
        }
        let run = Task { try await consumer.run() }
        broker.enqueue((1...3).map { Self.command($0, product: 1, orders: [$0]) })
        try await eventually("the first is under way") { answers.withLock { $0.count } == 1 && consumer.desk.commandsHeld == 3 }
        run.cancel()
        try await eventually("the others are given back") { broker.requeued == 2 }
        for (loop, completion) in answers.withLock({ $0 }) { loop.execute { completion.body(.sold(remaining: 1, replayed: false)) } }
        try await run.value
        #expect(broker.acknowledged == 1 && broker.results.count == 1)
        #expect(broker.queued == 2 && consumer.desk.commandsHeld == 0)
    }

    // MARK: Readiness

    @Test func readinessNamesTheBroker() async throws {
        try await ProductServerFixture.with { server in
            let without = try await server.ask(.get, "/readyz?verbose")
            #expect(without.status == 200 && !without.body.contains("broker"))
            let broker = ScriptedBroker()
            var reader = SettingsReader(environment: ["AMQP_URL": "amqp://guest:secret@127.0.0.1:5672/"])
            let settings = try ProductServerConfiguration(from: &reader)
            #expect(!reader.givenText.contains("secret"))
            let routes = try ProductServerParts(settings, server.engine, broker: .init(source: broker, sink: broker))
            let with = ProductServerFixture(
                postgres: server.postgres,
                redis: server.redis,
                engine: server.engine,
                run: server.run,
                routes: routes
            )
            #expect(try await with.ask(.get, "/readyz?verbose").body.contains(#""broker":{"state":"UP""#))
            broker.setConnected(false)
            let down = try await with.ask(.get, "/readyz?verbose")
            #expect(down.status == 200 && down.body.contains(#""broker":{"state":"DEGRADED""#))
            #expect(down.body.contains(#""failure":"refused""#) && !down.body.contains("secret"))
            let metrics = try await with.ask(.get, "/metrics", admin: true)
            #expect(metrics.body.contains(#"stockgate_broker_connected{connection="consumer"} 0"#))
        }
    }
}
