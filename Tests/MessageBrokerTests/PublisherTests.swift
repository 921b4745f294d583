import Eventually
import MessageBroker
import PrivateServers
import Synchronization
import Testing

extension BrokerTests {
    @Suite("Publisher")
    struct PublisherTests {
        @Test func aBatchIsConfirmedAndKeptInOrder() async throws {
            let names = Names()
            let publisher = try await names.publisher()
            let texts = (0..<300).map { "message \($0)" }
            #expect(try await publisher.publish(texts.map { names.message($0) }) == Array(repeating: .confirmed, count: 300))
            #expect(try await publisher.publish([]) == [])
            let consumer = try await names.consumer()
            #expect(try await consumer.deliveries(300).map(\.text) == texts)
            let snapshot = publisher.snapshot()
            #expect(snapshot.isConnected)
            #expect(snapshot.published == 300)
            #expect(snapshot.confirmed == 300)
            #expect(snapshot.queued == 0)
            #expect(snapshot.inFlight == 0)
            await consumer.shutdown()
            await publisher.shutdown()
            #expect(publisher.snapshot().state == .closed)
        }

        @Test func propertiesAndHeadersArrive() async throws {
            let names = Names()
            let publisher = try await names.publisher()
            let headers: [String: HeaderValue] = [
                "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "n": -5, "yes": true, "pi": .double(3.5),
                "raw": .bytes([0, 255]), "at": .timestamp(seconds: 9), "list": .list([1, "two", .null]),
                "table": .table(["a": .table(["b": 1])]),
            ]
            // Larger than a frame, so that it comes in several.
            let body = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            let message = OutgoingMessage(
                exchange: names.exchange,
                routingKey: "key",
                body: body,
                messageID: "id",
                correlationID: "order",
                type: "decrease.v1",
                timestamp: 1_700_000_000,
                headers: headers
            )
            #expect(try await publisher.publish([message]) == [.confirmed])
            let consumer = try await names.consumer()
            let delivery = try #require(try await consumer.deliveries(1).first)
            #expect(delivery.body == body)
            #expect(delivery.messageID == "id")
            #expect(delivery.correlationID == "order")
            #expect(delivery.type == "decrease.v1")
            #expect(delivery.contentType == "application/json")
            #expect(delivery.timestamp == 1_700_000_000)
            #expect(delivery.headers == headers)
            #expect(delivery.exchange == names.exchange)
            #expect(delivery.routingKey == "key")
            #expect(!delivery.isRedelivered)
            #expect(delivery.deliveryCount == 0)
            await consumer.shutdown()
            await publisher.shutdown()
        }

        @Test func onlyTheUnroutableOneComesBack() async throws {
            let names = Names()
            let publisher = try await names.publisher()
            var messages = (0..<50).map { names.message("\($0)") }
            messages[17] = names.message("lost", routingKey: "nowhere")
            var silent = names.message("silent", routingKey: "nowhere")
            silent.isMandatory = false
            messages[18] = silent
            let outcomes = try await publisher.publish(messages)
            #expect(outcomes[17] == .returned(code: 312, text: "NO_ROUTE"))
            #expect(outcomes.count { $0 == .confirmed } == 49)
            #expect(publisher.snapshot().returned == 1)
            await publisher.shutdown()
        }

        @Test func aFullQueueRejects() async throws {
            let names = Names(maximumLength: 5)
            let publisher = try await names.publisher()
            // The bound of a quorum queue is not exact: some more may get in.
            let outcomes = try await publisher.publish((0..<400).map { names.message("\($0)") })
            let again = try await publisher.publish((0..<10).map { names.message("\($0)") })
            #expect(outcomes.first == .confirmed)
            #expect(again == Array(repeating: .rejected, count: 10))
            #expect(publisher.snapshot().rejected >= 10)
            await publisher.shutdown()
        }

        /// A quorum queue of RabbitMQ 3.10 never tells a channel that it refused that the limit is gone.
        @Test func aLimitThatGoesAwayIsNoticed() async throws {
            let names = Names()
            let heard = Mutex<[ConnectionChange]>([])
            let publisher = try Publisher(
                configuration: try SharedBroker.configuration { $0.rejectionPatience = .milliseconds(300) },
                topology: names.topology,
                onChange: { change in heard.withLock { $0.append(change) } }
            )
            try await publisher.waitUntilConnected(within: .seconds(60))
            #expect(try await publisher.publish([names.message("first")]) == [.confirmed])
            let broker = try SharedBroker.server
            try await PrivateRabbitMQ.onThread {
                try broker.control(["set_policy", "limit", "^\(names.queue)$", #"{"max-length": 1}"#, "--apply-to", "queues"])
            }
            var outcomes: [PublishOutcome] = []
            /// Publishes until the last outcome is this; while the connection is being replaced nothing is sent.
            func publish(until wanted: @escaping () -> Bool) async throws -> Bool {
                try await eventually {
                    if let one = try? await publisher.publish([names.message("more"), names.message("more")]) { outcomes += one }
                    return wanted()
                }
            }
            #expect(try await publish { !publisher.snapshot().refusedRoutes.isEmpty && outcomes.last == .rejected })
            #expect(publisher.snapshot().refusedRoutes == ["\(names.exchange)/key"])
            // A limit that stays has it try again and again.
            #expect(try await publish { publisher.snapshot().replacements >= 3 })
            try await PrivateRabbitMQ.onThread { try broker.control(["clear_policy", "limit"]) }
            #expect(try await publish { outcomes.last == .confirmed })
            let snapshot = publisher.snapshot()
            #expect(snapshot.refusedRoutes.isEmpty)
            #expect(snapshot.unknown == 0 && !outcomes.contains(.unknown), "what was written before a replacement was answered")
            #expect(snapshot.lastFailure == nil, "a replacement is no failure")
            let route = "\(names.exchange)/key"
            #expect(heard.withLock { $0 } == [.connected, .refused(route: route), .taken(route: route)], "each is told once")
            await publisher.shutdown()
        }

        /// A queue that goes while the connection stays is declared again, and until then it is known that its route takes nothing.
        @Test func aRouteThatLosesItsQueueIsNoticedAndDeclaredAgain() async throws {
            let names = Names()
            let heard = Mutex<[ConnectionChange]>([])
            let publisher = try Publisher(
                configuration: try SharedBroker.configuration { $0.rejectionPatience = .milliseconds(300) },
                topology: names.topology,
                onChange: { change in heard.withLock { $0.append(change) } }
            )
            try await publisher.waitUntilConnected(within: .seconds(60))
            #expect(try await publisher.publish([names.message("first")]) == [.confirmed])
            let broker = try SharedBroker.server
            try await PrivateRabbitMQ.onThread { try broker.control(["delete_queue", names.queue]) }
            var outcomes: [PublishOutcome] = []
            let isTaken = try await eventually {
                if let one = try? await publisher.publish([names.message("more")]) { outcomes += one }
                return outcomes.last == .confirmed
            }
            #expect(isTaken)
            #expect(outcomes.first == .returned(code: 312, text: "NO_ROUTE"))
            let route = "\(names.exchange)/key"
            #expect(heard.withLock { $0 } == [.connected, .refused(route: route), .taken(route: route)])
            #expect(publisher.snapshot().refusedRoutes.isEmpty && publisher.snapshot().replacements >= 1)
            await publisher.shutdown()
        }

        @Test func severalCallersAndABoundOnWhatIsInFlight() async throws {
            let names = Names()
            let publisher = try await names.publisher {
                $0.maximumInFlight = 7
                $0.maximumQueued = 500
            }
            do throws(BrokerError) {
                _ = try await publisher.publish((0..<501).map { names.message("\($0)") })
                Issue.record("accepted over the bound")
            } catch { #expect(error.code == .overloaded) }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for caller in 0..<4 {
                    group.addTask {
                        let outcomes = try await publisher.publish((0..<100).map { names.message("\(caller) \($0)") })
                        #expect(outcomes == Array(repeating: .confirmed, count: 100))
                    }
                }
                try await group.waitForAll()
            }
            let consumer = try await names.consumer()
            let texts = try await consumer.deliveries(400).map(\.text)
            for caller in 0..<4 { #expect(texts.filter { $0.hasPrefix("\(caller) ") } == (0..<100).map { "\(caller) \($0)" }) }
            await consumer.shutdown()
            await publisher.shutdown()
        }

        @Test func anUnknownExchangeEndsTheConnectionAndItComesBack() async throws {
            let names = Names()
            let publisher = try await names.publisher()
            let outcome = try await publisher.publish([OutgoingMessage(exchange: "no such exchange", routingKey: "", body: [])])
            #expect(outcome == [.unknown])
            #expect(try await eventually { publisher.snapshot().reconnects == 1 })
            #expect(publisher.snapshot().lastFailure?.code == .refused(replyCode: 404))
            #expect(try await publisher.publish([names.message("after")]) == [.confirmed])
            await publisher.shutdown()
        }

        @Test func closedMeansClosed() async throws {
            let names = Names()
            let publisher = try await names.publisher()
            await publisher.shutdown()
            do throws(BrokerError) {
                _ = try await publisher.publish([names.message("late")])
                Issue.record("published after the end")
            } catch { #expect(error.code == .closed) }
            await publisher.shutdown()
        }
    }
}
