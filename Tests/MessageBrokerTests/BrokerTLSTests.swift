import Eventually
import Foundation
import MessageBroker
import PrivateServers
import Testing

extension BrokerTests {
    /// A broker behind TLS, and ends that are none.
    @Suite("TLS")
    struct BrokerTLSTests {
        private static let certificates = Result { try PrivateCertificates() }
        private static let started = Result {
            let certificates = try Self.certificates.get()
            return try PrivateRabbitMQ.start(
                tls: .init(try certificates.sign("broker"), authority: certificates.authority, asksClients: true)
            )
        }

        private func certificates() throws -> PrivateCertificates { try Self.certificates.get() }

        private func configuration(_ url: String) throws -> BrokerConfiguration {
            var configuration = try BrokerConfiguration(url: url)
            configuration.maximumBackoff = .milliseconds(500)
            configuration.connectTimeout = .seconds(30)
            configuration.callTimeout = .seconds(30)
            configuration.confirmTimeout = .seconds(60)
            return configuration
        }

        /// The broker's address with a host of one's own, the authority and this client's certificate.
        private func address(_ host: String = "localhost", _ certificates: PrivateCertificates? = nil, isShown: Bool = true) async throws
            -> String
        {
            let own = try self.certificates()
            let server = try await PrivateRabbitMQ.onThread { try Self.started.get() }
            let client = try own.sign("client-\(UUID().uuidString.prefix(8))")
            let url = try #require(server.tlsURL).replacing("127.0.0.1", with: host)
            let shown = isShown ? "&sslcert=\(client.certificate)&sslkey=\(client.key)" : ""
            return "\(url)?sslrootcert=\((certificates ?? own).authority)\(shown)"
        }

        /// Why an address leads to no connection.
        private func refusal(_ url: String, within bound: Duration = .seconds(2), _ change: (inout BrokerConfiguration) -> Void = { _ in })
            async throws -> String
        {
            var configuration = try self.configuration(url)
            change(&configuration)
            let publisher = try Publisher(configuration: configuration, topology: Names().topology)
            defer { Task { await publisher.shutdown() } }
            let isTold = try await eventually { publisher.snapshot().lastFailure != nil }
            #expect(isTold)
            let failure = publisher.snapshot().lastFailure
            #expect(failure?.code == .connectFailed && failure?.isPermanent == false, "\(String(describing: failure))")
            #expect(!publisher.snapshot().isConnected)
            let message = failure?.message ?? ""
            #expect(!message.contains("s3cret"))
            return message
        }

        @Test func messagesGoBothWays() async throws {
            for host in ["localhost", "127.0.0.1"] {
                let configuration = try self.configuration(try await address(host))
                let names = Names()
                let publisher = try Publisher(configuration: configuration, topology: names.topology)
                try await publisher.waitUntilConnected(within: .seconds(60))
                let consumer = try Consumer(configuration: configuration, topology: names.topology, queue: names.queue, prefetch: 2000)
                try await consumer.waitUntilConnected(within: .seconds(60))
                // Many small ones in one write, and some over many records of TLS and larger than the buffer of a read.
                let small = (0..<1000).map { names.message("small-\($0)") }
                #expect(try await publisher.publish(small).allSatisfy { $0 == .confirmed })
                let large = (0..<5).map { number in
                    var message = names.message("large-\(number)")
                    message.body = [UInt8](repeating: UInt8(number), count: 1 << 20)
                    return message
                }
                #expect(try await publisher.publish(large).allSatisfy { $0 == .confirmed })
                let deliveries = try await consumer.deliveries(1005)
                #expect(deliveries.prefix(1000).map(\.text) == (0..<1000).map { "small-\($0)" })
                #expect(deliveries.dropFirst(1000).map(\.body) == large.map(\.body))
                #expect(consumer.acknowledge(deliveries) == 1005)
                await publisher.shutdown()
                await consumer.shutdown()
            }
        }

        @Test func itLastsOverARestartAndThroughSilence() async throws {
            var configuration = try self.configuration(try await address())
            configuration.heartbeat = .seconds(1)
            let names = Names()
            var publisher = try Publisher(configuration: configuration, topology: names.topology)
            try await publisher.waitUntilConnected(within: .seconds(60))
            var isKept = false
            // Up to five times: a machine that is busy elsewhere may let an end sleep through its turn, and a connection without heartbeats is cut each time.
            for attempt in 1...5 {
                // Three heartbeat intervals without a message: both ends keep it alive.
                try await Task.sleep(for: .seconds(4))
                isKept = publisher.snapshot().connects == 1
                if isKept || attempt == 5 { break }
                await publisher.shutdown()
                publisher = try Publisher(configuration: configuration, topology: names.topology)
                try await publisher.waitUntilConnected(within: .seconds(60))
            }
            #expect(isKept)
            #expect(try await publisher.publish([names.message("one")]) == [.confirmed])
            await publisher.shutdown()
            // Behind it, a busy machine must not end a connection that is waited for.
            configuration.heartbeat = .seconds(60)
            publisher = try Publisher(configuration: configuration, topology: names.topology)
            try await publisher.waitUntilConnected(within: .seconds(60))
            let server = try Self.started.get()
            try await PrivateRabbitMQ.onThread { try server.restart() }
            let restarted = publisher
            #expect(try await eventually { restarted.snapshot().connects == 2 && restarted.snapshot().isConnected })
            #expect(try await publisher.publish([names.message("two")]) == [.confirmed])
            await publisher.shutdown()
        }

        @Test func aBrokerThatIsNotWhoItShouldBeIsNamed() async throws {
            let others = try PrivateCertificates()
            #expect(try await refusal(try await address("localhost", others)).contains("TLS: no trusted authority vouches"))
            let certificates = try self.certificates()
            let root = "sslrootcert=\(certificates.authority)"
            let expired = try await PrivateEnd.start(.tls(try certificates.sign("old", days: -1)))
            #expect(
                try await refusal("amqps://u:s3cret@localhost:\(expired.port)?\(root)").contains(
                    "TLS: the broker's certificate has expired"
                )
            )
            let named = try await PrivateEnd.start(.tls(try certificates.sign("named", subject: "DNS:broker.internal,IP:127.0.0.9")))
            for host in ["localhost", "127.0.0.1"] {
                let words = try await refusal("amqps://u:s3cret@\(host):\(named.port)?\(root)")
                #expect(words.contains("TLS: the broker's certificate is not for \(host)"), "\(words)")
            }
            #expect(expired.received == 0 && named.received == 0)
            // The name left out, the handshake is done and the login waits for an answer that does not come.
            let words = try await refusal("amqps://u:s3cret@localhost:\(named.port)?\(root)&sslmode=verify-ca") {
                $0.connectTimeout = .milliseconds(500)
            }
            #expect(!words.contains("TLS") && named.received > 0, "\(words)")
        }

        @Test func aClientWithoutACertificateIsTold() async throws {
            let words = try await refusal(try await address(isShown: false))
            #expect(
                words.contains("TLS: the broker ") && words.contains("does not accept this client's certificate, or misses one"),
                "\(words)"
            )
        }

        @Test func aBrokerWithoutTLSIsNamed() async throws {
            let root = "sslrootcert=\(try certificates().authority)"
            let plain = try await PrivateEnd.start(.plain("AMQP\0\0\u{9}\u{1}"))
            let words = try await refusal("amqps://u:s3cret@localhost:\(plain.port)?\(root)")
            #expect(words.contains("TLS: what answers does not speak TLS"), "\(words)")
            let silent = try await PrivateEnd.start(.silent)
            let late = try await refusal("amqps://u:s3cret@localhost:\(silent.port)?\(root)") { $0.connectTimeout = .milliseconds(300) }
            #expect(late.contains("TLS: no handshake in time"), "\(late)")
            // The real one, at its plain port.
            let server = try await PrivateRabbitMQ.onThread { try Self.started.get() }
            let real = try await refusal("amqps://u:s3cret@localhost:\(server.port)?\(root)")
            #expect(real.contains("a broker without TLS behind this address"), "\(real)")
        }
    }
}
