import Eventually
import Foundation
import PrivateServers
import Synchronization
import Testing

@testable import MessageBroker

@Suite("The order of a broker's addresses") struct AddressRoundsTests {
    /// Chance that can be repeated: SplitMix64.
    private struct Chance: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state &+= 0x9E37_79B9_7F4A_7C15
            var z = state
            z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
            z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
            return z ^ (z >> 31)
        }
    }

    @Test func oneAddressIsTriedAgainBehindEachPause() {
        var random = Chance(state: 1)
        var rounds = AddressRounds(count: 1)
        for _ in 0..<5 {
            #expect(rounds.next(using: &random) == 0)
            #expect(rounds.failed(wasProven: false) == .pause)
        }
        #expect(rounds.next(using: &random) == 0)
        #expect(rounds.failed(wasProven: true) == .pause)
    }

    @Test func eachIsTriedOnceBeforeAPause() {
        for seed in 0..<200 as Range<UInt64> {
            var random = Chance(state: seed)
            var rounds = AddressRounds(count: 3)
            var last: Int?
            for _ in 0..<5 {
                var tried: [Int] = []
                for attempt in 1...3 {
                    tried.append(rounds.next(using: &random))
                    #expect(tried.last != last, "never the one that just failed")
                    last = tried.last
                    #expect(rounds.failed(wasProven: false) == (attempt == 3 ? .pause : .goOn))
                }
                #expect(tried.sorted() == [0, 1, 2])
            }
        }
    }

    @Test func serversSpreadOverTheNodes() {
        var firsts = [0, 0, 0]
        for seed in 0..<300 as Range<UInt64> {
            var random = Chance(state: seed)
            var rounds = AddressRounds(count: 3)
            firsts[rounds.next(using: &random)] += 1
        }
        #expect(firsts.allSatisfy { $0 > 60 }, "\(firsts)")
    }

    /// A connection that lived for long begins a new round when it ends, whatever was tried before it; a short one does not.
    @Test func aConnectionThatEndsLeavesTheOthers() {
        for seed in 0..<100 as Range<UInt64> {
            var random = Chance(state: seed)
            var rounds = AddressRounds(count: 3)
            let first = rounds.next(using: &random)
            #expect(rounds.failed(wasProven: false) == .goOn)
            let second = rounds.next(using: &random)
            #expect(rounds.failed(wasProven: true) == .goOn, "of a connection that lived")
            let third = rounds.next(using: &random)
            #expect(third != second)
            #expect(rounds.failed(wasProven: false) == .goOn)
            let fourth = rounds.next(using: &random)
            #expect(Set([second, third, fourth]) == [0, 1, 2])
            #expect(rounds.failed(wasProven: false) == .pause)
            #expect([third, fourth].contains(first))
        }
    }

    @Test func connectionsThatAreDroppedAtOnceArePausedToo() {
        var random = Chance(state: 3)
        var rounds = AddressRounds(count: 2)
        var pauses = 0
        for _ in 0..<10 {
            _ = rounds.next(using: &random)
            if rounds.failed(wasProven: false) == .pause { pauses += 1 }
        }
        #expect(pauses == 5)
    }
}

extension BrokerTests {
    @Suite("Several addresses")
    struct AddressTests {
        private static func configuration(_ ports: [Int]) throws -> BrokerConfiguration {
            let server = try SharedBroker.server
            let hosts = ports.map { "127.0.0.1:\($0)" }.joined(separator: ",")
            var configuration = try BrokerConfiguration(url: server.url.replacing("127.0.0.1:\(server.port)", with: hosts))
            configuration.maximumBackoff = .milliseconds(500)
            // Whoever is silent costs this, and a busy machine may need some of it for the one that works.
            configuration.connectTimeout = .seconds(4)
            return configuration
        }

        private func confirms(_ publisher: Publisher, _ message: OutgoingMessage) async throws -> Bool {
            try await eventually { (try? await publisher.publish([message])) == [.confirmed] }
        }

        /// One address where nobody listens, one where somebody accepts and says nothing, one that works: whatever comes first, the last one is found, and the
        /// log has its name and no trouble.
        @Test func theOneThatWorksIsFound() async throws {
            let names = Names()
            let silent = try await PrivateEnd.start(.silent)
            defer { silent.stop() }
            let configuration = try Self.configuration([1, silent.port, try SharedBroker.server.port])
            for _ in 0..<6 {
                let items = Mutex<[BrokerNews.Item]>([])
                let journal = BrokerJournal(ends: ["only"]) { item in items.withLock { $0.append(item) } }
                let publisher = try Publisher(
                    configuration: configuration,
                    topology: names.topology,
                    onChange: journal.observer(of: "only")
                )
                try await publisher.waitUntilConnected(within: .seconds(60))
                #expect(publisher.snapshot().address?.port == (try SharedBroker.server.port))
                #expect(publisher.snapshot().failedConnects <= 2, "each is tried once before it")
                #expect(try await confirms(publisher, names.message("there")))
                await publisher.shutdown()
                #expect(items.withLock { $0 } == [.node(configuration.addresses[2], end: "only"), .connected(isBack: false)])
            }
        }

        /// A node that has taken a connection and neither confirms nor refuses, as one in a minority does: unknown after the confirm's time, and the connection
        /// leads to the other node then.
        @Test func theOneThatDoesNotConfirmIsLeft() async throws {
            let names = Names()
            let port = try SharedBroker.server.port
            let proxies = [try await FaultProxy.start(to: port), try await FaultProxy.start(to: port)]
            var configuration = try Self.configuration(proxies.map(\.port))
            configuration.confirmTimeout = .seconds(4)
            let publisher = try Publisher(configuration: configuration, topology: names.topology)
            try await publisher.waitUntilConnected(within: .seconds(60))
            for round in 1...3 {
                let used = try #require(publisher.snapshot().address?.port)
                let stuck = try #require(proxies.first { $0.port == used })
                try await stuck.stall()
                #expect(try await publisher.publish([names.message("unknown \(round)")]) == [.unknown])
                #expect(try await confirms(publisher, names.message("elsewhere \(round)")))
                #expect(publisher.snapshot().address?.port != used)
                #expect(publisher.snapshot().reconnects == round)
                try await stuck.heal()
            }
            await publisher.shutdown()
            for proxy in proxies { try await proxy.shutdown() }
        }

        @Test func aConsumerMovesAndGetsWhatItHadAgain() async throws {
            let names = Names()
            let port = try SharedBroker.server.port
            let proxies = [try await FaultProxy.start(to: port), try await FaultProxy.start(to: port)]
            let consumer = try Consumer(
                configuration: try Self.configuration(proxies.map(\.port)),
                topology: names.topology,
                queue: names.queue
            )
            try await consumer.waitUntilConnected(within: .seconds(60))
            let publisher = try await names.publisher()
            _ = try await publisher.publish([names.message("once")])
            let first = try await consumer.deliveries(1)
            let used = try #require(consumer.snapshot().address?.port)
            let lost = try #require(proxies.first { $0.port == used })
            try await lost.refuse()
            try await lost.reset()
            let again = try await consumer.deliveries(1)
            #expect(again.map(\.text) == ["once"] && again.first?.isRedelivered == true)
            #expect(consumer.snapshot().address?.port != used)
            #expect(consumer.acknowledge(first) == 0 && consumer.acknowledge(again) == 1)
            await consumer.shutdown()
            await publisher.shutdown()
            for proxy in proxies { try await proxy.shutdown() }
        }

        /// Two nodes that refuse for good and one that is away: told once, with the broker's words and without the password, however often they are asked.
        @Test func aRefusalIsToldOnce() async throws {
            let port = try SharedBroker.server.port
            let proxy = try await FaultProxy.start(to: port)
            var configuration = try BrokerConfiguration(
                url: "amqp://stockgate:very-secret@127.0.0.1:\(port),127.0.0.1:\(proxy.port),127.0.0.1:1/"
            )
            configuration.minimumBackoff = .milliseconds(1)
            configuration.maximumBackoff = .milliseconds(2)
            let items = Mutex<[BrokerNews.Item]>([])
            let journal = BrokerJournal(ends: ["only"]) { item in items.withLock { $0.append(item) } }
            let publisher = try Publisher(configuration: configuration, topology: Topology(), onChange: journal.observer(of: "only"))
            #expect(try await eventually { publisher.snapshot().failedConnects >= 12 })
            #expect(
                publisher.snapshot().lastFailure?.code == .authenticationFailed || publisher.snapshot().lastFailure?.code == .connectFailed
            )
            await publisher.shutdown()
            let told = items.withLock { $0 }
            #expect(told.count == 1)
            guard case .refused(let why)? = told.first else {
                Issue.record("\(told)")
                return
            }
            #expect(why.contains("127.0.0.1:\(port),127.0.0.1:\(proxy.port),127.0.0.1:1/") && !why.contains("secret"))
            try await proxy.shutdown()
        }
    }
}
