import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import NIOTransportSecurity
import PrivateServers
import Synchronization
import Testing
import TransportSecurity

@testable import OrderServer

/// Product servers at https:// addresses.
@Suite("Product servers behind TLS", .timeLimit(.minutes(5)))
struct HTTPPeerTLSTests {
    private final class Answering: ChannelInboundHandler {
        typealias InboundIn = HTTPServerRequestPart
        typealias OutboundOut = HTTPServerResponsePart

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            guard case .end = unwrapInboundIn(data) else { return }
            let body = ByteBuffer(repeating: UInt8(ascii: "x"), count: 100_000)
            let head = HTTPResponseHead(version: .http1_1, status: .ok, headers: ["content-length": "\(body.readableBytes)"])
            context.write(wrapOutboundOut(.head(head)), promise: nil)
            context.write(wrapOutboundOut(.body(.byteBuffer(body))), promise: nil)
            context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
        }
    }

    /// Answers every request behind TLS.
    private func server(_ end: PrivateCertificates.End, clients: String? = nil, port: Int = 0) async throws -> any Channel {
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: try NIOSSLCertificate.fromPEMFile(end.certificate).map { .certificate($0) },
            privateKey: .privateKey(try NIOSSLPrivateKey(file: end.key, format: .pem))
        )
        if let clients {
            configuration.certificateVerification = .noHostnameVerification
            configuration.trustRoots = .file(clients)
        }
        let context = try NIOSSLContext(configuration: configuration)
        return try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: context))
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    try channel.pipeline.syncOperations.addHandler(Answering())
                }
            }
            .bind(host: "127.0.0.1", port: port).get()
    }

    private final class Told: Sendable {
        private let words = Mutex<[TLSFailure?]>([])
        func add(_ failure: TLSFailure?) { words.withLock { $0.append(failure) } }
        var all: [TLSFailure?] { words.withLock { $0 } }
    }

    private func peer(_ url: String, _ told: Told) throws -> HTTPPeer {
        HTTPPeer(try #require(HTTPEndpoint(url)), loop: MultiThreadedEventLoopGroup.singleton.next()) { _, failure in told.add(failure) }
    }

    private func call(_ peer: HTTPPeer, within timeout: Duration = .seconds(60)) async throws -> HTTPAnswer {
        try await peer.call(.init(method: .POST, path: "/x", body: ByteBuffer(string: "{}")), timeout: timeout).get()
    }

    @Test("addresses")
    func addresses() throws {
        let plain = try #require(HTTPEndpoint("https://name/base/?sslrootcert=/a%2Cb.pem"))
        #expect(plain.port == 443 && plain.path == "/base" && plain.authority == "name" && plain.tls?.authorities == "/a,b.pem")
        #expect(HTTPEndpoint("https://[::1]:1")?.host == "::1" && HTTPEndpoint("https://h:1?sslmode=require")?.tls?.mode == .nothing)
        #expect(HTTPEndpoint("http://h:1")?.tls == nil)
        for bad in ["https://", "https://h?x=1", "https://h?sslmode=prefer", "https://u@h", "https://h:0"] {
            #expect(HTTPEndpoint(bad) == nil, "\(bad)")
        }
    }

    @Test("calls are answered, over a connection that is kept, and with a certificate where one is asked for")
    func answered() async throws {
        let certificates = try PrivateCertificates()
        let (end, client) = (try certificates.sign(), try certificates.sign("client"))
        let server = try await self.server(end, clients: certificates.authority)
        let port = server.localAddress?.port ?? 0
        let told = Told()
        let own = "sslcert=\(client.certificate)&sslkey=\(client.key)"
        for host in ["localhost", "127.0.0.1"] {
            let peer = try self.peer("https://\(host):\(port)?sslrootcert=\(certificates.authority)&\(own)", told)
            for _ in 0..<3 {
                let answer = try await call(peer)
                #expect(answer.status == 200 && answer.body.readableBytes == 100_000)
            }
            peer.shutdown()
        }
        #expect(told.all.isEmpty)
        // With TLS 1.3 the refusal comes behind the handshake. What was sent may have been read, for all that this end knows.
        let bare = try self.peer("https://localhost:\(port)?sslrootcert=\(certificates.authority)", told)
        await #expect(throws: HTTPCallFailure.connectionLost) { try await call(bare) }
        #expect(told.all.count == 1 && told.all.first??.kind == .refused, "\(told.all)")
        try await server.close()
    }

    @Test("to a server that is not who it should be nothing is sent, which is said once, and once when it is over")
    func refused() async throws {
        let (certificates, others) = (try PrivateCertificates(), try PrivateCertificates())
        let root = "sslrootcert=\(certificates.authority)"
        let ends: [(PrivateEnd.Manner, TLSFailure.Kind)] = [
            (.tls(try others.sign()), .untrusted), (.tls(try certificates.sign("old", days: -1)), .expired),
            (.tls(try certificates.sign("named", subject: "DNS:elsewhere.example")), .otherName),
            (.plain("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"), .plainPeer), (.silent, .timedOut),
        ]
        for (manner, kind) in ends {
            let end = try await PrivateEnd.start(manner)
            let told = Told()
            let peer = try self.peer("https://localhost:\(end.port)?\(root)", told)
            for _ in 0..<3 {
                let began = ContinuousClock.now
                // Known not to have run: the order is refused, and no unit is held for it.
                await #expect(throws: HTTPCallFailure.cannotConnect) {
                    try await call(peer, within: kind == .timedOut ? .milliseconds(300) : .seconds(60))
                }
                // For a second: a machine that stood still for longer sees the end of it.
                #expect(peer.isDown || ContinuousClock.now - began >= .seconds(1))
            }
            #expect(told.all.map { $0?.kind } == [kind], "\(told.all)")
            if case .tls = manner { #expect(end.received == 0) }
            end.stop()
        }
    }

    @Test("a server that shows the right certificate again is used again")
    func mended() async throws {
        let certificates = try PrivateCertificates()
        let old = try await server(try certificates.sign("old", days: -1))
        let port = old.localAddress?.port ?? 0
        let told = Told()
        let peer = try self.peer("https://localhost:\(port)?sslrootcert=\(certificates.authority)", told)
        await #expect(throws: HTTPCallFailure.cannotConnect) { try await call(peer) }
        try await old.close()
        let new = try await server(try certificates.sign(), port: port)
        #expect(try await call(peer).status == 200)
        #expect(try await call(peer).status == 200)
        #expect(told.all.map { $0?.kind } == [.expired, nil])
        peer.shutdown()
        try await new.close()
    }
}
