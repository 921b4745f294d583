import CircuitBreaker
import Eventually
import PrivateServers
import RedisClient
import StockGate
import Synchronization
import Testing

/// What a Redis that cannot be trusted comes to.
@Suite(.timeLimit(.minutes(10)))
struct RedisTLSEngineTests {
    private final class Reasons: Sendable {
        private let reasons = Mutex<[String]>([])
        func add(_ reason: String) { reasons.withLock { $0.append(reason) } }
        var all: [String] { reasons.withLock { $0 } }
    }

    @Test func everythingIsSoldWithoutItAndSaidOnceAndAnotherCertificateBringsItBack() async throws {
        let certificates = try PrivateCertificates()
        let (old, new) = (try certificates.sign("old", days: -1), try certificates.sign("new"))
        let fixture = try await EngineFixture(redisTLS: .init(old, authority: certificates.authority))
        let product = try await fixture.addProduct(1, stock: 20)
        let reasons = Reasons()
        let port = try #require(fixture.redis.tlsPort)
        let engine = try await fixture.startEngine(
            {
                guard let tls = try? RedisConfiguration(url: "rediss://localhost:\(port)?sslrootcert=\(certificates.authority)") else {
                    return
                }
                $0.redis.address = tls.address
                $0.redis.tls = tls.tls
            },
            onEvent: { if case .redisTLSFailed(let why) = $0 { reasons.add(why) } }
        )
        let rush = await Rush.run(engine, product, orders: 1..<11)
        #expect(rush.sold.count == 10)
        #expect(try await eventually { engine.breaker.state != .closed })
        #expect(try await eventually { !reasons.all.isEmpty })
        #expect(reasons.all.count == 1, "\(reasons.all)")
        #expect(reasons.all.first?.hasPrefix("TLS: the server's certificate has expired") == true)

        #expect(try fixture.redis.call(["CONFIG", "SET", "tls-cert-file", new.certificate, "tls-key-file", new.key]) == "+OK\r\n")
        var order: Int64 = 11
        let isBack = try await eventually {
            // Half-open it wants calls; one of nothing to sell is one too.
            _ = await Rush.run(engine, product, orders: order..<order + 1)
            order += 1
            return engine.breaker.state == .closed
        }
        #expect(isBack)
        #expect(reasons.all.count == 1)
        #expect(try await eventually { try await fixture.isExact(product, engine) })
        await fixture.stop()
    }
}
