import Eventually
import Foundation
import MessageBroker
import PrivateServers
import StockContract
import Synchronization
import Testing

extension BrokerTests {
    @Suite("Faults")
    struct FaultTests {
        @Test func aQueueWithOtherArgumentsIsNamed() async throws {
            let names = Names()
            let publisher = try await names.publisher()
            await publisher.shutdown()
            var changed = names.topology
            changed.queues[0].arguments["x-delivery-limit"] = 3
            let other = try Publisher(configuration: try SharedBroker.configuration(), topology: changed)
            do throws(BrokerError) {
                try await other.waitUntilConnected(within: .seconds(60))
                Issue.record("connected")
            } catch {
                #expect(error.code == .topologyMismatch(name: names.queue))
                #expect(error.message.contains("PRECONDITION_FAILED"))
                #expect(error.message.contains("queue '\(names.queue)'"))
                #expect(error.isPermanent)
            }
            await other.shutdown()

            changed = names.topology
            changed.exchanges[0].kind = .topic
            let third = try Publisher(configuration: try SharedBroker.configuration(), topology: changed)
            do throws(BrokerError) {
                try await third.waitUntilConnected(within: .seconds(60))
                Issue.record("connected")
            } catch {
                #expect(error.code == .topologyMismatch(name: names.exchange))
                #expect(error.message.contains("exchange '\(names.exchange)'"))
            }
            await third.shutdown()
        }

        @Test func theSharedTopologiesAreDeclaredTwice() async throws {
            for _ in 0..<2 {
                let publisher = try Publisher(configuration: try SharedBroker.configuration(), topology: .events)
                let results = try Publisher(configuration: try SharedBroker.configuration(), topology: .stock)
                try await publisher.waitUntilConnected(within: .seconds(60))
                try await results.waitUntilConnected(within: .seconds(60))
                let event = OutgoingMessage(
                    exchange: StockGateTopology.orderEventsExchange,
                    routingKey: OrderEvent.Kind.created.rawValue,
                    body: []
                )
                #expect(try await publisher.publish([event]) == [.confirmed])
                await publisher.shutdown()
                await results.shutdown()
            }
        }

        @Test(arguments: [("amqp://stockgate:very-secret@", ""), ("", "no-such-host")])
        func aWrongPasswordOrVirtualHost(_ user: String, _ virtualHost: String) async throws {
            let server = try SharedBroker.server
            let url = user.isEmpty ? server.url + virtualHost : "\(user)127.0.0.1:\(server.port)/"
            let publisher = try Publisher(configuration: try BrokerConfiguration(url: url), topology: Topology())
            do throws(BrokerError) {
                try await publisher.waitUntilConnected(within: .seconds(60))
                Issue.record("connected")
            } catch {
                #expect(error.code == .authenticationFailed)
                #expect(!"\(error)".contains("secret"))
                #expect("\(publisher.snapshot())".contains("secret") == false)
            }
            await publisher.shutdown()
        }

        @Test func aMissingBrokerIsTriedAgainUntilTheEnd() async throws {
            // Port 1 of loopback: nothing listens there.
            var configuration = try BrokerConfiguration(url: "amqp://user:secret@127.0.0.1:1/")
            configuration.minimumBackoff = .milliseconds(20)
            configuration.maximumBackoff = .milliseconds(50)
            let publisher = try Publisher(configuration: configuration, topology: .stock)
            let consumer = try Consumer(configuration: configuration, topology: .stock, queue: StockGateTopology.decreaseQueue)
            #expect(try await eventually { publisher.snapshot().failedConnects >= 3 && consumer.snapshot().failedConnects >= 3 })
            do throws(BrokerError) {
                _ = try await publisher.publish([OutgoingMessage(exchange: "", routingKey: "", body: [])])
                Issue.record("published")
            } catch {
                #expect(error.code == .notConnected)
                #expect(!"\(error)".contains("secret"))
            }
            await #expect(throws: BrokerError.self) { try await publisher.waitUntilConnected(within: .milliseconds(50)) }
            #expect(try await consumer.nextBatch(max: 1, wait: .milliseconds(20)).isEmpty)
            let began = ContinuousClock.now
            await publisher.shutdown()
            await consumer.shutdown()
            #expect(ContinuousClock.now - began < .seconds(20))
            #expect(consumer.snapshot().state == .closed)
        }

        @Test func heartbeatsKeepAnIdleConnection() async throws {
            // Up to five times: a machine that is busy elsewhere may let an end sleep through its turn, and a connection without heartbeats is cut each time.
            var isKept = false
            for _ in 0..<5 where !isKept {
                let names = Names()
                let publisher = try await names.publisher { $0.heartbeat = .seconds(2) }
                let consumer = try await names.consumer { $0.heartbeat = .seconds(2) }
                // More than two intervals, in which nobody asks for anything: the time itself is what is tested.
                try await Task.sleep(for: .milliseconds(6500))
                isKept = publisher.snapshot().connects == 1 && consumer.snapshot().connects == 1
                if isKept {
                    #expect(try await publisher.publish([names.message("after")]) == [.confirmed])
                    #expect(try await consumer.deliveries(1).map(\.text) == ["after"])
                }
                await consumer.shutdown()
                await publisher.shutdown()
            }
            #expect(isKept)
        }

        @Test func aDeletedQueueIsDeclaredAgain() async throws {
            let names = Names()
            let publisher = try await names.publisher()
            let consumer = try await names.consumer()
            _ = try await publisher.publish([names.message("old")])
            let old = try await consumer.deliveries(1)
            try SharedBroker.server.control(["delete_queue", names.queue])
            #expect(
                try await eventually {
                    consumer.snapshot().consumerCancels == 1 && consumer.snapshot().reconnects == 1 && consumer.snapshot().isConnected
                }
            )
            #expect(consumer.acknowledge(old) == 0)
            #expect(try await publisher.publish([names.message("new")]) == [.confirmed])
            let new = try await consumer.deliveries(1)
            #expect(new.map(\.text) == ["new"])
            #expect(consumer.acknowledge(new) == 1)
            await consumer.shutdown()
            await publisher.shutdown()
        }

        @Test func aBlockedBrokerIsToldAndGivenNothing() async throws {
            let names = Names()
            let publisher = try await names.publisher { $0.confirmTimeout = .seconds(3) }
            let server = try SharedBroker.server
            _ = try await publisher.publish([names.message("before")])
            try server.control(["set_vm_memory_high_watermark", "absolute", "1MB"])
            // The broker says so at the first message that comes; it does not answer that one.
            var outcomes: [PublishOutcome] = []
            #expect(
                try await eventually {
                    outcomes += (try? await publisher.publish([names.message("while blocked")])) ?? []
                    if case .blocked = publisher.snapshot().state { return true }
                    return false
                }
            )
            #expect(outcomes.last == .unknown)
            #expect(try await publisher.publish([names.message("kept back")]) == [.unsent])
            #expect(publisher.snapshot().isConnected)
            #expect(publisher.snapshot().reconnects == 0)
            try server.control(["set_vm_memory_high_watermark", "absolute", "512MB"])
            #expect(try await eventually { publisher.snapshot().state == .connected })
            #expect(try await publisher.publish([names.message("after")]) == [.confirmed])
            await publisher.shutdown()
        }

        @Test func aPausedBrokerIsNoticedInTime() async throws {
            let names = Names()
            let publisher = try await names.publisher {
                $0.confirmTimeout = .milliseconds(700)
                $0.connectTimeout = .seconds(1)
            }
            let consumer = try await names.consumer {
                $0.heartbeat = .seconds(1)
                $0.connectTimeout = .seconds(1)
            }
            let server = try SharedBroker.server
            try server.pause()
            let began = ContinuousClock.now
            let outcomes = try await publisher.publish((0..<20).map { names.message("\($0)") })
            #expect(outcomes == Array(repeating: .unknown, count: 20))
            // Its own bound: a confirm waits a minute otherwise, and a busy machine is late.
            let noticed = ContinuousClock.now - began
            #expect(noticed >= .milliseconds(700) && noticed < .seconds(30))
            #expect(try await eventually { !consumer.snapshot().isConnected })
            // Two intervals of a second, not of a minute; a busy machine is late.
            #expect(ContinuousClock.now - began < .seconds(60))
            #expect(publisher.snapshot().unknown == 20)
            try server.resume()
            #expect(try await eventually { publisher.snapshot().isConnected && consumer.snapshot().isConnected })
            // Sent again where a broker that has just come back was too slow for this publisher.
            #expect(try await eventually { (try? await publisher.publish([names.message("after")])) == [.confirmed] })
            // The twenty may be there or not, the last one is.
            var last = ""
            while last != "after" {
                let batch = try await consumer.nextBatch(max: 100, wait: .seconds(60))
                try #require(!batch.isEmpty)
                consumer.acknowledge(batch)
                last = batch.last?.text ?? ""
            }
            await consumer.shutdown()
            await publisher.shutdown()
        }

        @Test func closingIsBoundedWhileTheBrokerIsPaused() async throws {
            let names = Names()
            let publisher = try await names.publisher()
            let consumer = try await names.consumer()
            let server = try SharedBroker.server
            try server.pause()
            async let outcomes = publisher.publish([names.message("stuck")])
            #expect(try await eventually { publisher.snapshot().inFlight == 1 })
            let began = ContinuousClock.now
            await publisher.shutdown(within: .milliseconds(300))
            await consumer.shutdown(within: .milliseconds(300))
            #expect(ContinuousClock.now - began < .seconds(30), "neither the minute of a confirm, nor the heartbeat's")
            #expect(try await outcomes == [.unknown])
            try server.resume()
        }

        @Test func whatIsConfirmedSurvivesACrash() async throws {
            let names = Names()
            // A broker that has just come back may be slow with its confirms: that ends no connection here.
            let publisher = try await names.publisher { $0.confirmTimeout = .seconds(60) }
            let consumer = try await names.consumer()
            _ = try await publisher.publish([names.message("unacknowledged")])
            let old = try await consumer.deliveries(1)
            let server = try SharedBroker.server

            struct Tally: Sendable {
                var confirmed: Set<String> = []
                var unsent: Set<String> = []
                var unknown = 0
                var isStopped = false
            }
            let tally = Mutex(Tally())
            let sending = Task {
                var number = 0
                while !tally.withLock({ $0.isStopped }) {
                    let texts = (0..<50).map { "\(number + $0)" }
                    guard let outcomes = try? await publisher.publish(texts.map { names.message($0) }) else {
                        // Not connected: nothing was sent.
                        try await Task.sleep(for: .milliseconds(5))
                        continue
                    }
                    number += 50
                    tally.withLock { tally in
                        for (text, outcome) in zip(texts, outcomes) {
                            switch outcome {
                            case .confirmed: tally.confirmed.insert(text)
                            case .unsent: tally.unsent.insert(text)
                            default: tally.unknown += 1
                            }
                        }
                    }
                }
            }
            #expect(try await eventually { tally.withLock { $0.confirmed.count } >= 500 })
            try server.kill()
            #expect(try await eventually { !publisher.snapshot().isConnected && !consumer.snapshot().isConnected })
            #expect(consumer.acknowledge(old) == 0)
            let before = tally.withLock { $0.confirmed.count }
            try server.restart()
            #expect(try await eventually { tally.withLock { $0.confirmed.count } >= before + 500 })
            tally.withLock { $0.isStopped = true }
            try await sending.value
            #expect(publisher.snapshot().reconnects == 1)

            let (confirmed, unsent) = tally.withLock { ($0.confirmed, $0.unsent) }
            var received: Set<String> = []
            // As long as something comes; what is confirmed may take a slow broker its time.
            let patience = Duration.seconds(30)
            while true {
                let isWhole = confirmed.isSubset(of: received) && received.contains("unacknowledged")
                let batch = try await consumer.nextBatch(max: 512, wait: isWhole ? .seconds(1) : patience)
                if batch.isEmpty { break }
                consumer.acknowledge(batch)
                received.formUnion(batch.map(\.text))
            }
            #expect(confirmed.isSubset(of: received))
            #expect(unsent.isDisjoint(with: received))
            #expect(received.contains("unacknowledged"))
            await consumer.shutdown()
            await publisher.shutdown()
        }
    }
}
