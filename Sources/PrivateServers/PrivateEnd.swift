import NIOCore
import NIOPosix
import NIOSSL
import Synchronization

/// A listener on loopback that understands no protocol, for tests of clients that must find out what kind of server they have reached.
public final class PrivateEnd: Sendable {
    /// What the listener does with a connection.
    public enum Manner: Sendable {
        /// TLS with this certificate; bytes behind the handshake are counted and left alone. With `clients`, the PEM file of an authority, each client must
        /// show a certificate that this authority has signed.
        case tls(PrivateCertificates.End, clients: String? = nil)
        /// No TLS: the listener answers the first bytes with this text.
        case plain(String)
        /// Takes everything and says nothing.
        case silent
    }

    /// The listener's port on 127.0.0.1.
    public var port: Int { channel.localAddress?.port ?? 0 }
    /// Bytes that clients have sent, those of a TLS handshake left out.
    public var received: Int { counter.bytes.withLock { $0 } }

    private let channel: any Channel
    private let counter: Counter

    private final class Counter: Sendable {
        let bytes = Mutex(0)
    }

    private init(_ channel: any Channel, _ counter: Counter) {
        self.channel = channel
        self.counter = counter
    }

    /// Begins to listen.
    public static func start(_ manner: Manner) async throws -> PrivateEnd {
        let counter = Counter()
        var context: NIOSSLContext?
        if case .tls(let end, let clients) = manner { context = try Self.context(end, clients) }
        let tls = context
        let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tls { try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: tls)) }
                    let greeting: String? = if case .plain(let text) = manner { text } else { nil }
                    try channel.pipeline.syncOperations.addHandler(Sink(greeting) { count in counter.bytes.withLock { $0 += count } })
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        return PrivateEnd(channel, counter)
    }

    /// Ends listening; open connections end by themselves.
    public func stop() { channel.close(promise: nil) }

    deinit { channel.close(promise: nil) }

    private static func context(_ end: PrivateCertificates.End, _ clients: String?) throws -> NIOSSLContext {
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: try NIOSSLCertificate.fromPEMFile(end.certificate).map { .certificate($0) },
            privateKey: .privateKey(try NIOSSLPrivateKey(file: end.key, format: .pem))
        )
        if let clients {
            configuration.certificateVerification = .noHostnameVerification
            configuration.trustRoots = .file(clients)
        }
        return try NIOSSLContext(configuration: configuration)
    }

    private final class Sink: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer

        private var greeting: String?
        private let count: (Int) -> Void

        init(_ greeting: String?, count: @escaping (Int) -> Void) {
            self.greeting = greeting
            self.count = count
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            count(unwrapInboundIn(data).readableBytes)
            guard let greeting else { return }
            self.greeting = nil
            context.writeAndFlush(wrapOutboundOut(ByteBuffer(string: greeting)), promise: nil)
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
    }
}
