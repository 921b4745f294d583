import Eventually
import Foundation
import HotPath
import Hummingbird
import Logging
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import NIOTransportSecurity
import PrivateServers
import ServerMetrics
import ServiceLifecycle
import Synchronization
import Testing
import TransportSecurity

@testable import ServerKit

/// Both ports behind TLS, with real sockets and certificates of `openssl`.
@Suite(.timeLimit(.minutes(5)))
struct ServerTLSTests {
    private struct Running: Service {
        let assembly: ServerAssembly
        func run() async throws { try await assembly.run() }
    }

    /// The files that a server reads, which a test replaces.
    private struct Files {
        let certificates: PrivateCertificates
        let certificate: URL
        let key: URL

        init(_ certificates: PrivateCertificates) {
            self.certificates = certificates
            certificate = certificates.directory.appendingPathComponent("live.pem")
            key = certificates.directory.appendingPathComponent("live.key")
        }

        func put(_ end: PrivateCertificates.End) throws {
            try Data(contentsOf: URL(fileURLWithPath: end.certificate)).write(to: certificate, options: .atomic)
            try Data(contentsOf: URL(fileURLWithPath: end.key)).write(to: key, options: .atomic)
        }

        var environment: [String: String] { ["TLS_CERTIFICATE": certificate.path, "TLS_KEY": key.path] }
    }

    /// Answers at once, on the event loop.
    private struct Hot: HotPathEndpoint {
        func match(_ head: RequestHead) -> Bool? { head.path == "/hot" ? true : nil }
        func respond(
            to match: Bool,
            head: RequestHead,
            body: ByteBuffer,
            on eventLoop: any EventLoop,
            answer: @escaping (HotPathAnswer) -> Void
        ) {
            answer(HotPathAnswer(json: Array("hot".utf8)))
        }
    }

    private func withServer(
        _ files: Files,
        more: [String: String] = [:],
        _ test: @Sendable (ServerAssembly.Ports, [any Rereadable], MetricsRegistry) async throws -> Void
    ) async throws {
        var reader = SettingsReader(environment: ["PUBLIC": "0", "ADMIN": "0"].merging(files.environment) { $1 }.merging(more) { $1 })
        let settings = ServerConfiguration(from: &reader, publicPort: ("PUBLIC", 8081), adminPort: ("ADMIN", 9081))
        try reader.finish()
        let registry = MetricsRegistry()
        let metrics = HTTPMetrics(registry: registry)
        let router = ServerRouter(metrics: metrics)
        HealthRoutes(checks: [], drain: ServerDrain()).register(on: router)
        router.post("echo") { request, _ in Response.json(bytes: try await request.jsonBody()) }
        router.get("long") { _, _ in Response.text(String(repeating: "x", count: 3_000_000)) }
        let (ready, continuation) = AsyncStream<ServerAssembly.Ports>.makeStream()
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let assembly = ServerAssembly(
            name: "test-server",
            settings: settings,
            logger: logger,
            publicRouter: router,
            adminRouter: ServerAssembly.adminRouter(metrics: metrics, registry: registry, tokens: .none),
            registry: registry,
            hotPath: Hot(),
            onReady: { continuation.yield($0) }
        )
        let group = ServiceGroup(services: [Running(assembly: assembly)], logger: logger)
        async let running: Void = group.run()
        var iterator = ready.makeAsyncIterator()
        let ports = try #require(await iterator.next())
        do {
            try await test(ports, reader.rereadables, registry)
        } catch {
            await group.triggerGracefulShutdown()
            _ = try? await running
            throw error
        }
        await group.triggerGracefulShutdown()
        try await running
    }

    /// A client's connection, which keeps what it gets.
    private final class Client: Sendable {
        let channel: any Channel
        private let inbox: Inbox

        private final class Inbox: ChannelInboundHandler, Sendable {
            typealias InboundIn = ByteBuffer
            let state = Mutex((text: "", isOver: false))
            func channelRead(context: ChannelHandlerContext, data: NIOAny) {
                let part = String(buffer: unwrapInboundIn(data))
                state.withLock { $0.text += part }
            }
            func channelInactive(context: ChannelHandlerContext) { state.withLock { $0.isOver = true } }
            func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
                if let event = event as? ChannelEvent, event == .inputClosed { state.withLock { $0.isOver = true } }
            }
            func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
        }

        /// - Parameter authority: nil for a client that speaks no TLS
        init(_ port: Int, _ authority: String?) async throws {
            let inbox = Inbox()
            var context: NIOSSLContext?
            if let authority {
                var configuration = TLSConfiguration.makeClientConfiguration()
                configuration.trustRoots = .file(authority)
                configuration.shutdownTimeout = .milliseconds(100)
                context = try NIOSSLContext(configuration: configuration)
            }
            let tls = context
            self.inbox = inbox
            self.channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
                .channelOption(.allowRemoteHalfClosure, value: true)
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        if let tls {
                            try channel.pipeline.syncOperations.addHandler(NIOSSLClientHandler(context: tls, serverHostname: "localhost"))
                        }
                        try channel.pipeline.syncOperations.addHandler(inbox)
                    }
                }
                .connect(host: "127.0.0.1", port: port).get()
        }

        func send(_ text: String) async throws { try await channel.writeAndFlush(ByteBuffer(string: text)) }

        /// Waits until the text holds, or the server has closed; everything since the last call.
        func read(_ isWhole: (String) -> Bool) async throws -> (text: String, isOver: Bool) {
            try await eventuallyFound("an answer, in: \(inbox.state.withLock { $0.text })") {
                let (text, isOver) = inbox.state.withLock { $0 }
                guard isWhole(text) || isOver else { return nil }
                inbox.state.withLock { $0.text = "" }
                return (text, isOver)
            }
        }

        func get(_ path: String, _ part: String) async throws -> String {
            try await send("GET \(path) HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return try await read { $0.contains(part) }.text
        }

        /// When the certificate that the server showed ends.
        var expires: Int {
            get async throws { Int(try await channel.nioSSL_peerCertificate().get()?.notValidAfter ?? 0) }
        }
    }

    @Test func bothPortsSpeakTLSAndTheHotPathToo() async throws {
        let files = Files(try PrivateCertificates())
        try files.put(try files.certificates.sign())
        try await withServer(files) { ports, _, registry in
            let client = try await Client(ports.publicPort, files.certificates.authority)
            #expect(try await client.get("/livez", "UP").contains("200 OK"))
            #expect(try await client.get("/hot", "hot").contains("200 OK"))
            try await client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\":")
            try await client.send("1}GET /hot HTTP/1.1\r\nHost: a\r\n\r\nGET /hot HTTP/1.1\r\nHost: a\r\n\r\n")
            let pipelined = try await client.read { $0.components(separatedBy: "hot").count == 3 }.text
            #expect(pipelined.contains(#"{"a":1}"#) && pipelined.components(separatedBy: "200 OK").count == 4, "\(pipelined)")
            // Many records, and more than a socket takes at once.
            try await client.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n")
            let long = try await client.read { $0.utf8.count > 3_000_000 }.text
            #expect(long.prefix(15).contains("200 OK") && long.utf8.reversed().prefix { $0 == UInt8(ascii: "x") }.count == 3_000_000)
            // The last answer of a connection ends it, for TLS too.
            try await client.send("GET /hot HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            let last = try await client.read { _ in false }
            #expect(last.isOver && last.text.hasSuffix("hot"))
            try await client.channel.close()

            let admin = try await Client(ports.adminPort, files.certificates.authority)
            #expect(try await admin.get("/metrics", "stockgate_http_connections").contains("200 OK"))
            try await admin.channel.close()
            #expect(
                String(decoding: registry.exposition(), as: UTF8.self).contains("stockgate_tls_certificate_expires_timestamp_seconds 1")
            )
        }
    }

    @Test func aClientThatClosesItsHalfIsAnswered() async throws {
        let files = Files(try PrivateCertificates())
        try files.put(try files.certificates.sign())
        try await withServer(files) { ports, _, _ in
            let client = try await Client(ports.publicPort, files.certificates.authority)
            _ = try await client.get("/livez", "UP")
            try await client.send("GET /hot HTTP/1.1\r\nHost: a\r\n\r\n")
            try? await client.channel.close(mode: .output)
            let answer = try await client.read { _ in false }
            #expect(answer.isOver && answer.text.contains("200 OK") && answer.text.hasSuffix("hot"), "\(answer)")
            try? await client.channel.close()
        }
    }

    @Test func replacedFilesAreShownToNewConnectionsAndLoseNone() async throws {
        let files = Files(try PrivateCertificates())
        let (old, new) = (try files.certificates.sign("old", days: 1), try files.certificates.sign("new", days: 9))
        try files.put(old)
        try await withServer(files) { ports, rereadables, registry in
            let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            let first = try await Client(ports.publicPort, files.certificates.authority)
            _ = try await first.get("/hot", "hot")
            try files.put(new)
            #expect(rereadables.map(\.setting) == ["TLS_CERTIFICATE"])
            HangupWatch.reread(rereadables, logger)
            let second = try await Client(ports.publicPort, files.certificates.authority)
            _ = try await second.get("/hot", "hot")
            #expect(try await second.expires > first.expires + 6 * 86_400)
            #expect(try await first.get("/hot", "hot").contains("200 OK"), "the connection goes on with what it began with")
            // A key that is not the certificate's: what is in force stays.
            try Data(contentsOf: URL(fileURLWithPath: old.key)).write(to: files.key)
            HangupWatch.reread(rereadables, logger)
            let third = try await Client(ports.publicPort, files.certificates.authority)
            _ = try await third.get("/hot", "hot")
            #expect(try await third.expires == second.expires)
            for client in [first, second, third] { try await client.channel.close() }
        }
    }

    @Test func whoSpeaksNoTLSIsClosedAndCountedAndSoIsWhoNeverFinishes() async throws {
        let files = Files(try PrivateCertificates())
        try files.put(try files.certificates.sign())
        try await withServer(files, more: ["REQUEST_TIMEOUT": "2s"]) { ports, _, registry in
            let plain = try await Client(ports.publicPort, nil)
            try await plain.send("GET /hot HTTP/1.1\r\nHost: a\r\n\r\n")
            let answer = try await plain.read { _ in false }
            #expect(answer.isOver && !answer.text.contains("HTTP/1.1"))
            // Far sooner than an idle connection, which has 75 s.
            let silent = try await Client(ports.publicPort, nil)
            #expect(try await silent.read { _ in false }.isOver)
            let line = #"stockgate_tls_handshakes_failed_total{port="public"} 2"#
            #expect(try await eventually { String(decoding: registry.exposition(), as: UTF8.self).contains(line) })
            // The time was the handshake's alone: who has finished it may be idle.
            let client = try await Client(ports.publicPort, files.certificates.authority)
            _ = try await client.get("/hot", "hot")
            try await Task.sleep(for: .milliseconds(2_500))
            #expect(try await client.get("/hot", "hot").contains("200 OK"))
            try await client.channel.close()
        }
    }

    /// A stop has a second. Neither who has connected and said nothing, nor who does not answer the goodbye of TLS, makes it longer.
    @Test func aStopWaitsForNoHandshakeAndNoGoodbye() async throws {
        let files = Files(try PrivateCertificates())
        try files.put(try files.certificates.sign())
        let stop = Mutex(ContinuousClock.now)
        try await withServer(files, more: ["SHUTDOWN_TIMEOUT": "40s"]) { ports, _, registry in
            for port in [ports.publicPort, ports.adminPort] {
                _ = try await Client(port, nil)
                // Half of a record that begins a handshake.
                let half = try await Client(port, nil)
                try await half.channel.writeAndFlush(ByteBuffer(bytes: [0x16, 0x03, 0x01, 0x02, 0x00, 0x01]))
            }
            // This client reads nothing more, so that it answers no goodbye.
            let deaf = try await Client(ports.publicPort, files.certificates.authority)
            _ = try await deaf.get("/hot", "hot")
            try await deaf.channel.setOption(.autoRead, value: false).get()
            let open = #"stockgate_http_connections{port="public"} 3"#
            #expect(try await eventually { String(decoding: registry.exposition(), as: UTF8.self).contains(open) })
            stop.withLock { $0 = .now }
        }
        // A stop that waited for a handshake took 30 s here, three quarters of its bound.
        #expect(ContinuousClock.now - stop.withLock { $0 } < .seconds(10))
    }

    @Test func settingsThatCannotBeUsedAreRefused() throws {
        let certificates = try PrivateCertificates()
        let (one, two) = (try certificates.sign("one"), try certificates.sign("two"))
        func faults(_ environment: [String: String]) -> [String] {
            var reader = SettingsReader(environment: environment)
            _ = ServerConfiguration(from: &reader, publicPort: ("PUBLIC", 8081), adminPort: ("ADMIN", 9081))
            do { try reader.finish() } catch { return error.faults }
            return []
        }
        #expect(faults(["TLS_CERTIFICATE": one.certificate, "TLS_KEY": one.key]) == [])
        #expect(faults(["TLS_CERTIFICATE": one.certificate]) == ["TLS_CERTIFICATE and TLS_KEY belong together"])
        #expect(
            faults(["TLS_CERTIFICATE": one.certificate, "TLS_KEY": two.key])
                == ["TLS_KEY: the key is not that of the first certificate of TLS_CERTIFICATE"]
        )
        #expect(
            faults(["TLS_CERTIFICATE": "/nowhere", "TLS_KEY": one.key]).first?.hasPrefix("TLS_CERTIFICATE: the file cannot be") == true
        )
        let old = try certificates.sign("old", days: -1)
        var reader = SettingsReader(environment: ["TLS_CERTIFICATE": old.certificate, "TLS_KEY": old.key])
        let settings = ServerConfiguration(from: &reader, publicPort: ("PUBLIC", 8081), adminPort: ("ADMIN", 9081))
        #expect(reader.warnings.count == 1 && reader.warnings.first?.contains("has expired") == true && settings.tls?.hasExpired == true)
    }

    @Test func anAddressWithLessCheckedIsWarnedOfOnce() throws {
        var reader = SettingsReader(environment: [:])
        reader.check("REDIS_URL", try .init(query: "sslmode=require"))
        reader.check("AMQP_URL", try .init(query: ""))
        reader.check("PRODUCT_SERVER_URL", nil)
        #expect(reader.warnings.count == 1 && reader.warnings.first?.hasPrefix("REDIS_URL: sslmode=require: ") == true)
        try reader.finish()
        reader.check("AMQP_URL", try .init(query: "sslrootcert=/nowhere.pem"))
        let error = #expect(throws: SettingsError.self) { try reader.finish() }
        #expect(error?.description.hasPrefix("AMQP_URL: sslrootcert: the file cannot be opened") == true)
    }
}
