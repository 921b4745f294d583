import Eventually
import MessageBroker
import PrivateServers
import StockContract
import Testing

extension BrokerTests {
    @Suite("Consumer")
    struct ConsumerTests {
        @Test func batchesAsLargeAsWhatIsThere() async throws {
            let names = Names()
            let publisher = try await names.publisher()
            let consumer = try await names.consumer(prefetch: 100)
            #expect(try await consumer.nextBatch(max: 10, wait: .milliseconds(20)).isEmpty)
            _ = try await publisher.publish((0..<250).map { names.message("\($0)") })
            #expect(try await eventually { consumer.snapshot().buffered == 100 })
            let first = try await consumer.nextBatch(max: 64, wait: .seconds(60))
            #expect(first.count == 64)
            let second = try await consumer.nextBatch(max: 64, wait: .seconds(60))
            #expect(second.count == 36)
            // The prefetch is used up: nothing more until an acknowledgement.
            #expect(try await consumer.nextBatch(max: 64, wait: .milliseconds(50)).isEmpty)
            #expect(consumer.acknowledge(first + second) == 100)
            var rest: [Delivery] = []
            while rest.count < 150 {
                let batch = try await consumer.nextBatch(max: 256, wait: .seconds(60))
                try #require(!batch.isEmpty)
                consumer.acknowledge(batch)
                rest += batch
            }
            #expect((first + second + rest).map(\.text) == (0..<250).map { "\($0)" })
            let snapshot = consumer.snapshot()
            #expect(snapshot.delivered == 250)
            #expect(snapshot.acknowledged == 250)
            #expect(snapshot.unacknowledged == 0)
            await consumer.shutdown()
            // What was acknowledged is gone.
            let next = try await names.consumer()
            #expect(try await next.nextBatch(max: 1, wait: .milliseconds(200)).isEmpty)
            await next.shutdown()
            await publisher.shutdown()
        }

        @Test func whatIsNotAcknowledgedComesAgain() async throws {
            let names = Names()
            let publisher = try await names.publisher()
            let first = try await names.consumer()
            _ = try await publisher.publish((0..<10).map { names.message("\($0)") })
            let deliveries = try await first.deliveries(10)
            #expect(first.acknowledge(Array(deliveries.prefix(4))) == 4)
            #expect(first.acknowledge(Array(deliveries.prefix(4))) == 0)
            #expect(first.snapshot().lateSettlements == 4)
            await first.shutdown()
            #expect(first.acknowledge(deliveries) == 0)
            let second = try await names.consumer()
            let again = try await second.deliveries(6)
            #expect(again.map(\.text).sorted() == (4..<10).map { "\($0)" })
            #expect(again.allSatisfy { $0.isRedelivered && $0.deliveryCount == 1 })
            #expect(second.snapshot().redelivered == 6)
            await second.shutdown()
            await publisher.shutdown()
        }

        @Test func aRejectedMessageGoesToTheDeadLetters() async throws {
            let names = Names()
            let publisher = try await names.publisher()
            let consumer = try await names.consumer()
            let dead = try await names.consumer(names.deadQueue)
            _ = try await publisher.publish([names.message("good"), names.message("bad")])
            let deliveries = try await consumer.deliveries(2)
            #expect(consumer.reject(deliveries[1], requeue: false))
            #expect(!consumer.reject(deliveries[1], requeue: false))
            #expect(consumer.acknowledge(deliveries) == 1)
            let letter = try #require(try await dead.deliveries(1).first)
            #expect(letter.text == "bad")
            #expect(death(letter, "reason") == "rejected")
            #expect(death(letter, "queue") == .string(names.queue))
            #expect(consumer.snapshot().rejectedDeliveries == 1)
            for consumer in [consumer, dead] { await consumer.shutdown() }
            await publisher.shutdown()
        }

        @Test func theDeliveryLimitEndsARound() async throws {
            let names = Names(deliveryLimit: 2)
            let publisher = try await names.publisher()
            let consumer = try await names.consumer()
            let dead = try await names.consumer(names.deadQueue)
            _ = try await publisher.publish([names.message("poison")])
            var counts: [Int] = []
            for _ in 0..<3 {
                let delivery = try #require(try await consumer.deliveries(1).first)
                counts.append(delivery.deliveryCount)
                consumer.reject(delivery, requeue: true)
            }
            #expect(counts == [0, 1, 2])
            let letter = try #require(try await dead.deliveries(1).first)
            #expect(death(letter, "reason") == "delivery_limit")
            #expect(try await consumer.nextBatch(max: 1, wait: .milliseconds(100)).isEmpty)
            for consumer in [consumer, dead] { await consumer.shutdown() }
            await publisher.shutdown()
        }

        @Test func aMessageOverTheBoundGoesToTheDeadLetters() async throws {
            let names = Names()
            let publisher = try await names.publisher()
            let consumer = try await names.consumer { $0.maximumBodyBytes = 1000 }
            let dead = try await names.consumer(names.deadQueue)
            _ = try await publisher.publish(
                [names.message(String(repeating: "x", count: 200)), names.message("small")].map {
                    var message = $0
                    if message.body.count > 100 { message.body += [UInt8](repeating: 0, count: 1000) }
                    return message
                }
            )
            #expect(try await consumer.deliveries(1).map(\.text) == ["small"])
            #expect(try await dead.deliveries(1).first?.body.count == 1200)
            #expect(consumer.snapshot().rejectedDeliveries == 1)
            for consumer in [consumer, dead] { await consumer.shutdown() }
            await publisher.shutdown()
        }

        @Test func aDeadLetterWithAReason() async throws {
            let names = Names()
            let publisher = try await names.publisher()
            let consumer = try await names.consumer()
            let dead = try await names.consumer(names.deadQueue)
            _ = try await publisher.publish([names.message("bad")])
            let delivery = try #require(try await consumer.deliveries(1).first)
            var letter = OutgoingMessage.deadLetter(
                delivery,
                to: StockGateTopology.deadExchange,
                reason: "unknown product",
                header: StockGateTopology.deadReasonHeader
            )
            letter.exchange = names.deadQueue
            #expect(try await publisher.publish([letter]) == [.confirmed])
            #expect(consumer.acknowledge([delivery]) == 1)
            let received = try #require(try await dead.deliveries(1).first)
            #expect(received.headers[StockGateTopology.deadReasonHeader] == "unknown product")
            #expect(received.messageID == "bad")
            for consumer in [consumer, dead] { await consumer.shutdown() }
            await publisher.shutdown()
        }

        @Test func waitingEndsWithTheTaskAndWithTheConsumer() async throws {
            let names = Names()
            let consumer = try await names.consumer()
            let waiting = Task { try await consumer.nextBatch(max: 1, wait: .seconds(300)) }
            let began = ContinuousClock.now
            waiting.cancel()
            #expect(try await waiting.value.isEmpty)
            let other = Task { try await consumer.nextBatch(max: 1, wait: .seconds(300)) }
            await consumer.shutdown()
            await #expect(throws: BrokerError.self) { try await other.value }
            #expect(ContinuousClock.now - began < .seconds(60), "with the task and the consumer, not after the five minutes")
        }

        // MARK: Streams

        @Test func aStreamIsReadFromAnywhere() async throws {
            var names = Names()
            names.topology = Topology(
                exchanges: [.init(names.exchange, kind: .topic)],
                queues: [.stream(names.queue, maximumBytes: 100 << 20, segmentBytes: 1 << 20)],
                bindings: [.init(exchange: names.exchange, queue: names.queue, routingKey: "order.#")]
            )
            let publisher = try await names.publisher()
            let texts = (0..<100).map { "event \($0)" }
            let outcomes = try await publisher.publish(
                texts.map { names.message($0, routingKey: OrderEvent.Kind.created.rawValue) }
            )
            #expect(outcomes == Array(repeating: .confirmed, count: 100))
            func reader(_ offset: Consumer.StreamOffset) throws -> Consumer {
                try Consumer(
                    configuration: try SharedBroker.configuration(),
                    topology: names.topology,
                    queue: names.queue,
                    prefetch: 30,
                    streamOffset: offset
                )
            }
            func read(_ consumer: Consumer, _ count: Int) async throws -> [Delivery] {
                var all: [Delivery] = []
                while all.count < count {
                    let batch = try await consumer.nextBatch(max: 25, wait: .seconds(60))
                    try #require(!batch.isEmpty)
                    consumer.acknowledge(batch)
                    all += batch
                }
                return all
            }
            let fromFirst = try reader(.first)
            let all = try await read(fromFirst, 100)
            #expect(all.map(\.text) == texts)
            #expect(all.map(\.streamOffset) == (0..<100).map { UInt64($0) })
            // Reading takes nothing away.
            let fromSixty = try reader(.offset(60))
            #expect(try await read(fromSixty, 40).map(\.text) == Array(texts[60...]))

            // After its connection ended it goes on where it was, and misses nothing that came meanwhile.
            try SharedBroker.server.control(["close_all_connections", "test"])
            #expect(try await eventually { fromFirst.snapshot().reconnects == 1 && publisher.snapshot().reconnects == 1 })
            _ = try await publisher.publish([names.message("new", routingKey: OrderEvent.Kind.failed.rawValue)])
            #expect(try await read(fromFirst, 1).map(\.text) == ["new"])
            for consumer in [fromFirst, fromSixty] { await consumer.shutdown() }
            await publisher.shutdown()
        }

        /// What the broker wrote about the first time it gave a message up.
        private func death(_ letter: Delivery, _ key: String) -> HeaderValue? {
            guard case .list(let deaths)? = letter.headers["x-death"], case .table(let first)? = deaths.first else { return nil }
            return first[key]
        }
    }
}
