import Eventually
import NIOCore
import NIOPosix
import NIOTransportSecurity
import PrivateServers
import Synchronization
import Testing

@testable import RedisClient

/// Against a real Redis with TLS.
@Suite(.timeLimit(.minutes(10)))
struct RedisTLSTests {
    /// A client of an address, closed at the end, and what it was told of TLS.
    private func with(
        _ url: String,
        settings change: (inout RedisConfiguration) -> Void = { _ in },
        onConnect: RedisClient.ConnectHook? = nil,
        _ body: (RedisClient, Told) async throws -> Void
    ) async throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        var settings = try RedisConfiguration(url: url)
        settings.commandTimeout = .seconds(30)
        settings.silenceLimit = .seconds(30)
        settings.preparationTimeout = .seconds(30)
        settings.connectTimeout = .seconds(30)
        change(&settings)
        let told = Told()
        let client = RedisClient(configuration: settings, eventLoopGroup: group, onConnect: onConnect, onTLSFailure: { told.add($0) })
        try await thenShutdown(group, client.shutdown) { try await body(client, told) }
    }

    private final class Told: Sendable {
        private let failures = Mutex<[TLSFailure]>([])
        func add(_ failure: TLSFailure) { failures.withLock { $0.append(failure) } }
        var all: [TLSFailure] { failures.withLock { $0 } }
    }

    /// What an address of a server that is not trusted comes to: no connection, whatever is tried, and the reason.
    private func refusal(_ url: String, _ change: (inout RedisConfiguration) -> Void = { _ in }) async throws -> TLSFailure? {
        var found: TLSFailure?
        try await with(url, settings: change) { client, told in
            let error = await #expect(throws: RedisError.self) { try await client.send(.ping, timeout: .seconds(2)) }
            #expect(error?.code == .notConnected && error?.isOutcomeUnknown == false, "\(String(describing: error))")
            try await eventually("told of it") { told.all.count > 1 }
            found = told.all.first
            #expect(client.snapshot().ready == 0 && client.snapshot().connects == 0)
        }
        return found
    }

    @Test func commandsGoOverTLS() async throws {
        let certificates = try PrivateCertificates()
        let server = try PrivateRedis.start(
            options: ["--requirepass", "s3cret"],
            tls: .init(try certificates.sign(), authority: certificates.authority)
        )
        defer { server.kill() }
        let port = try #require(server.tlsPort)
        for host in ["localhost", "127.0.0.1"] {
            try await with("rediss://:s3cret@\(host):\(port)/3?sslrootcert=\(certificates.authority)") { client, told in
                try await client.waitUntilConnected(timeout: .seconds(60))
                #expect(try await client.send(RedisCommand("CLIENT", "INFO")).string?.contains(" db=3 ") == true)
                // Larger than a record of TLS, both ways, and many in one write.
                let large = [UInt8](repeating: 7, count: 1 << 20)
                #expect(try await client.send(RedisCommand("ECHO", .bytes(large))).bytes == large)
                let outcomes = try await RedisClientIntegrationTests.pipeline(
                    client,
                    (0..<10_000).map { RedisCommand("ECHO", .integer($0)) }
                )
                #expect(try outcomes.map { try $0.get().int } == (0..<10_000).map { $0 })
                #expect(told.all.isEmpty && client.snapshot().connects == 1)
            }
        }
    }

    @Test func aClientShowsItsCertificateWhereItIsAskedFor() async throws {
        let certificates = try PrivateCertificates()
        let server = try PrivateRedis.start(
            tls: .init(try certificates.sign(), authority: certificates.authority, asksClients: true)
        )
        defer { server.kill() }
        let port = try #require(server.tlsPort)
        let client = try certificates.sign("client")
        let address = "rediss://localhost:\(port)?sslrootcert=\(certificates.authority)"
        try await with(address + "&sslcert=\(client.certificate)&sslkey=\(client.key)") { client, _ in
            let pong = try await client.send(.ping, timeout: .seconds(60))
            #expect(pong.string == "PONG")
        }
        // With TLS 1.3 the refusal comes behind the handshake: what is sent first, here by the hook, meets it.
        try await with(address, onConnect: { connection in connection.send(.ping).map { $0 as any Sendable } }) { client, told in
            let error = await #expect(throws: RedisError.self) { try await client.send(.ping, timeout: .seconds(2)) }
            #expect(error?.code == .notConnected)
            try await eventually("told of it") { told.all.count > 1 }
            #expect(told.all.first?.kind == .refused, "\(told.all)")
        }
    }

    @Test func aServerThatIsNotWhoItShouldBeGetsNothing() async throws {
        let (certificates, others) = (try PrivateCertificates(), try PrivateCertificates())
        let server = try PrivateRedis.start(tls: .init(try certificates.sign(), authority: certificates.authority))
        defer { server.kill() }
        let port = try #require(server.tlsPort)
        #expect(try await refusal("rediss://u:s3cret@localhost:\(port)?sslrootcert=\(others.authority)")?.kind == .untrusted)
        let expired = try certificates.sign("old", days: -1)
        let reply = try server.call(["CONFIG", "SET", "tls-cert-file", expired.certificate, "tls-key-file", expired.key])
        #expect(reply == "+OK\r\n")
        #expect(try await refusal("rediss://u:s3cret@localhost:\(port)?sslrootcert=\(certificates.authority)")?.kind == .expired)
        let named = try certificates.sign("named", subject: "DNS:cache.internal")
        #expect(try server.call(["CONFIG", "SET", "tls-cert-file", named.certificate, "tls-key-file", named.key]) == "+OK\r\n")
        let address = "rediss://localhost:\(port)?sslrootcert=\(certificates.authority)"
        #expect(try await refusal(address)?.kind == .otherName)
        try await with(address + "&sslmode=verify-ca") { client, _ in
            let pong = try await client.send(.ping, timeout: .seconds(60))
            #expect(pong.string == "PONG")
        }
        try await with("rediss://localhost:\(port)?sslmode=require") { client, _ in
            let pong = try await client.send(.ping, timeout: .seconds(60))
            #expect(pong.string == "PONG")
        }
    }

    @Test func aServerWithoutTLSIsNamed() async throws {
        let certificates = try PrivateCertificates()
        let server = try PrivateRedis.start()
        defer { server.kill() }
        let address = "rediss://:s3cret@localhost:\(server.port)?sslrootcert=\(certificates.authority)"
        let failure = try await refusal(address) { $0.connectTimeout = .milliseconds(500) }
        #expect(failure?.kind == .plainPeer || failure?.kind == .timedOut, "\(String(describing: failure))")
        #expect(failure?.description.contains("a server without TLS behind this address") == true)
        // Whatever Redis made of the handshake, no command was in it.
        #expect(try server.call(["INFO", "commandstats"]).contains("cmdstat_auth") == false)
    }

    @Test func anotherCertificateMendsIt() async throws {
        let certificates = try PrivateCertificates()
        let (old, new) = (try certificates.sign("old", days: -1), try certificates.sign("new"))
        let server = try PrivateRedis.start(tls: .init(old, authority: certificates.authority))
        defer { server.kill() }
        try await with("rediss://localhost:\(server.tlsPort ?? 0)?sslrootcert=\(certificates.authority)") { client, told in
            await #expect(throws: RedisError.self) { try await client.send(.ping, timeout: .milliseconds(200)) }
            try await eventually("told of it") { !told.all.isEmpty }
            #expect(try server.call(["CONFIG", "SET", "tls-cert-file", new.certificate, "tls-key-file", new.key]) == "+OK\r\n")
            let pong = try await client.send(.ping, timeout: .seconds(60))
            #expect(pong.string == "PONG")
            #expect(told.all.allSatisfy { $0.kind == .expired } && !told.all.isEmpty)
        }
    }

    /// A real sentinel and the server that it names, both by TLS alone. Whoever does not trust them gets to neither.
    @Test func sentinelsGoOverTLS() async throws {
        let certificates = try PrivateCertificates()
        let tls = PrivateCertificates.Port(try certificates.sign(), authority: certificates.authority)
        let master = try PrivateRedis.start(options: ["--requirepass", "s3cret"], tls: tls)
        defer { master.kill() }
        let port = try #require(master.tlsPort)
        let sentinel = try PrivateRedis.startSentinel(
            ["tls-replication yes", "sentinel monitor shop 127.0.0.1 \(port) 1", "sentinel auth-pass shop s3cret"],
            tls: tls
        )
        defer { sentinel.kill() }
        let asked = try #require(sentinel.tlsPort)
        let address = "rediss+sentinel://:s3cret@localhost:\(asked)/shop/3"
        let patient: (inout RedisConfiguration) -> Void = { settings in
            guard case .sentinels(var sentinels) = settings.address else { return }
            sentinels.answerTimeout = .seconds(20)
            settings.address = .sentinels(sentinels)
        }
        try await with("\(address)?sslrootcert=\(certificates.authority)", settings: patient) { client, told in
            try await client.waitUntilConnected(timeout: .seconds(60))
            #expect(try await client.send(RedisCommand("CLIENT", "INFO")).string?.contains(" db=3 ") == true)
            #expect(client.master == RedisEndpoint(host: "127.0.0.1", port: port))
            try await eventually("it listens") { client.snapshot().sentinelsHeard == 1 }
            #expect(told.all.isEmpty)
        }
        try await with(address, settings: patient) { client, _ in
            try await eventually("it says why") {
                let error = await #expect(throws: RedisError.self) { try await client.send(.ping, timeout: .milliseconds(500)) }
                return error?.detail?.contains("localhost:\(asked): TLS: ") == true
            }
            #expect(client.master == nil)
        }
        // What answers at the plain port speaks no TLS.
        try await with("rediss+sentinel://:s3cret@localhost:\(sentinel.port)/shop?sslrootcert=\(certificates.authority)") {
            client,
            _ in
            let error = await #expect(throws: RedisError.self) { try await client.send(.ping, timeout: .seconds(2)) }
            #expect(error?.code == .notConnected)
            #expect(client.master == nil && client.snapshot().sentinelsHeard == 0)
        }
    }
}
