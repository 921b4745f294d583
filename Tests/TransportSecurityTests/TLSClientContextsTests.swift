import Foundation
import NIOCore
import NIOPosix
import NIOTransportSecurity
import PrivateServers
import Testing
import TransportSecurity

/// Real handshakes on loopback, with certificates of `openssl`.
@Suite(.timeLimit(.minutes(5)))
struct TLSClientContextsTests {
    /// One handshake: nil where it succeeds.
    static func shake(
        _ end: PrivateEnd,
        _ query: String,
        name: String = "localhost",
        within limit: TimeAmount = .seconds(60)
    ) async throws -> TLSFailure? {
        try await self.shake(end, TLSClientContexts(TLSClientConfiguration(query: query), name: name), within: limit)
    }

    static func shake(_ end: PrivateEnd, _ contexts: TLSClientContexts, within limit: TimeAmount = .seconds(60)) async throws -> TLSFailure?
    {
        do {
            try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .channelInitializer { channel in channel.eventLoop.makeCompletedFuture { try contexts.secure(channel) } }
                .connect(host: "127.0.0.1", port: end.port)
                .flatMap { channel in
                    TLSClientContexts.handshake(of: channel, within: limit).always { _ in channel.close(promise: nil) }
                }
                .get()
            return nil
        } catch let failure as TLSFailure {
            return failure
        }
    }

    @Test func whoIsWhoTheAddressNamesIsTaken() async throws {
        let certificates = try PrivateCertificates()
        let end = try await PrivateEnd.start(.tls(try certificates.sign()))
        let root = "sslrootcert=\(certificates.authority)"
        #expect(try await Self.shake(end, root) == nil)
        #expect(try await Self.shake(end, root, name: "127.0.0.1") == nil)
        #expect(try await Self.shake(end, root + "&sslmode=verify-ca", name: "elsewhere.example") == nil)
        #expect(try await Self.shake(end, "sslmode=require", name: "elsewhere.example") == nil)
    }

    @Test func whoIsNotIsNamed() async throws {
        let (certificates, others) = (try PrivateCertificates(), try PrivateCertificates())
        let root = "sslrootcert=\(certificates.authority)"
        let good = try await PrivateEnd.start(.tls(try certificates.sign()))
        let expired = try await PrivateEnd.start(.tls(try certificates.sign("old", days: -1)))

        let otherName = try await Self.shake(good, root, name: "elsewhere.example")
        #expect(
            otherName?.kind == .otherName && otherName?.description.contains("elsewhere.example") == true,
            "\(String(describing: otherName))"
        )
        // The address that was connected to is no name: whoever answers for a name must have a certificate for the name.
        let wild = try await PrivateEnd.start(
            .tls(try certificates.sign("wild", subject: "DNS:*.Example.org,DNS:w*.example.net,IP:127.0.0.9"))
        )
        for (name, isRight) in [
            ("shop.example.org", true), ("SHOP.EXAMPLE.ORG.", true), ("example.org", false), ("a.b.example.org", false),
            ("www.example.net", false),
            ("127.0.0.1", false), ("", false),
        ] {
            #expect(try await Self.shake(wild, root, name: name)?.kind == (isRight ? nil : .otherName), "\(name)")
        }
        let stranger = try await Self.shake(good, "sslrootcert=\(others.authority)")
        #expect(stranger?.kind == .untrusted, "\(String(describing: stranger))")
        // The system's authorities know nothing of it either.
        #expect(try await Self.shake(good, "")?.kind == .untrusted)
        #expect(try await Self.shake(good, "sslmode=verify-ca")?.kind == .untrusted)
        for mode in ["verify-full", "verify-ca"] {
            let old = try await Self.shake(expired, root + "&sslmode=\(mode)")
            #expect(old?.kind == .expired && old?.description.contains("has expired") == true, "\(String(describing: old))")
        }
        #expect(good.received == 0 && expired.received == 0)
    }

    @Test func aServerWithoutTLSIsNamed() async throws {
        let certificates = try PrivateCertificates()
        let root = "sslrootcert=\(certificates.authority)"
        for greeting in ["HTTP/1.1 400 Bad Request\r\n\r\n", "-ERR unknown command\r\n", "AMQP\0\0\u{9}\u{1}"] {
            let failure = try await Self.shake(try await PrivateEnd.start(.plain(greeting)), root)
            #expect(failure?.kind == .plainPeer, "\(String(describing: failure))")
        }
        #expect(try await Self.shake(try await PrivateEnd.start(.silent), root, within: .milliseconds(300))?.kind == .timedOut)
    }

    @Test func filesThatCannotBeUsedAreNamedByTheirParameter() throws {
        let certificates = try PrivateCertificates()
        let (one, two) = (try certificates.sign("one"), try certificates.sign("two"))
        func failure(_ query: String) -> TLSFailure? {
            #expect(throws: TLSFailure.self) { try TLSClientContexts.check(TLSClientConfiguration(query: query)) }
        }
        #expect(failure("sslrootcert=/nowhere.pem")?.description.hasPrefix("sslrootcert: the file cannot be opened") == true)
        #expect(failure("sslrootcert=\(one.key)")?.description.hasPrefix("sslrootcert: no certificate") == true)
        #expect(failure("sslcert=\(one.key)&sslkey=\(one.key)")?.description.hasPrefix("sslcert: no certificate") == true)
        #expect(failure("sslcert=\(one.certificate)&sslkey=\(one.certificate)")?.description.hasPrefix("sslkey: no key") == true)
        let mixed = failure("sslcert=\(one.certificate)&sslkey=\(two.key)")
        #expect(mixed?.description.hasPrefix("sslkey: the key is not that of") == true && mixed?.kind == .files)
        #expect(throws: Never.self) {
            try TLSClientContexts.check(TLSClientConfiguration(query: "sslcert=\(one.certificate)&sslkey=\(one.key)"))
        }
    }

    @Test func filesThatAreReplacedCountForTheNextConnection() async throws {
        let (first, second) = (try PrivateCertificates(), try PrivateCertificates())
        let (old, new) = (try await PrivateEnd.start(.tls(try first.sign())), try await PrivateEnd.start(.tls(try second.sign())))
        let root = first.directory.appendingPathComponent("root.pem")
        try FileManager.default.copyItem(atPath: first.authority, toPath: root.path)
        let contexts = TLSClientContexts(try TLSClientConfiguration(query: "sslrootcert=\(root.path)"), name: "localhost")
        #expect(try await Self.shake(old, contexts) == nil)
        #expect(try await Self.shake(new, contexts)?.kind == .untrusted)
        // A file that is half written leaves what was read before.
        try Data("-----BEGIN CERTIF".utf8).write(to: root)
        #expect(try await Self.shake(old, contexts) == nil)
        try Data(contentsOf: URL(fileURLWithPath: second.authority)).write(to: root)
        #expect(try await Self.shake(new, contexts) == nil)
        #expect(try await Self.shake(old, contexts)?.kind == .untrusted)
    }
}
