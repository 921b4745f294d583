// Invariant: what new connections are given was read whole, and its key fits its certificate; files that cannot be used leave what is in force. A connection keeps what it began with.

import Glibc
public import NIOCore
public import NIOSSL
import NIOTLS
import Synchronization

/// The certificate and key that a server shows, which may be replaced while it runs.
public final class TLSServerContexts: Sendable {
    /// The files, named by the settings that name them.
    public struct Files: Sendable, Equatable {
        /// A PEM file with the certificate and what stands between it and its authority.
        public var certificate: (setting: String, path: String)
        /// The PEM file with its key.
        public var key: (setting: String, path: String)

        /// Names them.
        public init(certificate: (setting: String, path: String), key: (setting: String, path: String)) {
            self.certificate = certificate
            self.key = key
        }

        /// Whether they are the same files.
        public static func == (first: Self, second: Self) -> Bool {
            first.certificate == second.certificate && first.key == second.key
        }
    }

    private struct State {
        var bytes: [[UInt8]]
        var context: NIOSSLContext
        var expires: Int
    }

    private let files: Files
    private let state: Mutex<State>

    /// Reads the files.
    /// - Throws: ``TLSFailure`` in words with the setting whose file cannot be used
    public init(_ files: Files) throws(TLSFailure) {
        self.files = files
        self.state = Mutex(try Self.read(files))
    }

    /// What the next connection is given.
    public var current: NIOSSLContext { state.withLock { $0.context } }

    /// When the certificate in force ends, in seconds since 1970.
    public var expires: Int { state.withLock { $0.expires } }

    /// Whether the certificate in force has expired.
    public var hasExpired: Bool { expires < Glibc.time(nil) }

    /// Reads the files again.
    /// - Returns: whether they have changed and are in force now
    /// - Throws: ``TLSFailure``; what was in force stays
    public func reload() throws(TLSFailure) -> Bool {
        let new = try Self.read(files)
        return self.state.withLock { state in
            guard state.bytes != new.bytes else { return false }
            state = new
            return true
        }
    }

    private static func read(_ files: Files) throws(TLSFailure) -> State {
        let certificate = try PEMFile.bytes(files.certificate.path, files.certificate.setting)
        let key = try PEMFile.bytes(files.key.path, files.key.setting)
        let chain = try PEMFile.certificates(certificate, files.certificate.setting)
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) },
            privateKey: .privateKey(try PEMFile.key(key, files.key.setting, of: chain, in: files.certificate.setting))
        )
        configuration.minimumTLSVersion = .tlsv12
        // How long a client whose connection is ended, and who does not answer that, keeps its place among the connections.
        configuration.shutdownTimeout = .milliseconds(500)
        configuration.applicationProtocols = ["http/1.1"]
        // No client is asked for a certificate, so that there is nothing to trust.
        configuration.trustRoots = .certificates([])
        do {
            let context = try NIOSSLContext(configuration: configuration)
            return State(bytes: [certificate, key], context: context, expires: chain.map { Int($0.notValidAfter) }.min() ?? 0)
        } catch {
            throw TLSFailure(.files, "\(files.certificate.setting): the certificate cannot be used with its key")
        }
    }
}

/// Stands behind the TLS handler of a server's new connection until the handshake is over, and then leaves.
///
/// Bound: a handshake that does not end within `limit` ends the connection, whatever else is allowed to it.
public final class TLSServerHandshake: ChannelInboundHandler, RemovableChannelHandler {
    /// What it passes on.
    public typealias InboundIn = ByteBuffer

    private let limit: TimeAmount
    private let failed: @Sendable () -> Void
    private var timer: Scheduled<Void>?
    private var isOver = false

    /// Makes one.
    /// - Parameter failed: called once for a connection whose handshake failed, or took too long
    public init(limit: TimeAmount, failed: @escaping @Sendable () -> Void) {
        self.limit = limit
        self.failed = failed
    }

    /// Begins the time.
    public func handlerAdded(context: ChannelHandlerContext) {
        self.timer = context.eventLoop.assumeIsolated().scheduleTask(in: limit) {
            self.fail()
            context.close(promise: nil)
        }
    }

    /// Ends with the handshake.
    public func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        let isCompleted = if case .handshakeCompleted? = event as? TLSUserEvent { true } else { false }
        if isCompleted { end() }
        context.fireUserInboundEventTriggered(event)
        if isCompleted { context.pipeline.syncOperations.removeHandler(context: context, promise: nil) }
    }

    /// A handshake that fails.
    public func errorCaught(context: ChannelHandlerContext, error: any Error) {
        fail()
        context.fireErrorCaught(error)
    }

    /// A client that leaves during its handshake.
    public func channelInactive(context: ChannelHandlerContext) {
        fail()
        context.fireChannelInactive()
    }

    /// The connection has ended, or the handshake is over.
    public func handlerRemoved(context: ChannelHandlerContext) { end() }

    private func fail() {
        guard !isOver else { return }
        end()
        failed()
    }

    private func end() {
        isOver = true
        timer?.cancel()
        timer = nil
    }
}
