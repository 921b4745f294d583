// Invariant: a context is made of files as they were read whole. Files that cannot be used leave the context before in force, so that nobody is cut off
//   while a certificate is being replaced. Where no context was made before, connecting fails with an error that says why.
// Bounds: one context; files of `maximumBytes`. The files are looked at (`stat`) before each connection and read only when one of them has changed.

import Glibc
import NIOSSL
import Synchronization
public import NIOCore
public import TransportSecurity

/// Makes the TLS part of connections to one server.
public final class TLSClientContexts: Sendable {
    private let settings: TLSClientConfiguration
    /// Whom the certificate has to name: a host name, or an IP address without brackets.
    private let name: String
    private let state = Mutex<(stamps: [FileStamp], context: NIOSSLContext)?>(nil)

    /// Reads nothing yet.
    public init(_ settings: TLSClientConfiguration, name: String) {
        self.settings = settings
        self.name = name
    }

    /// Sees whether the files can be used as they are now.
    /// - Throws: ``TLSFailure`` with the parameter whose file cannot be used
    public static func check(_ settings: TLSClientConfiguration) throws(TLSFailure) { _ = try Self.make(settings) }

    /// Puts TLS in front of a new connection's other handlers, none of which gets or sends a byte before the server is checked.
    ///
    /// To be called where the channel is initialised, on its event loop.
    /// - Throws: ``TLSFailure`` where the files cannot be used
    public func secure(_ channel: any Channel) throws {
        let context = try current()
        let pipeline = channel.pipeline.syncOperations
        // SNI holds names and no addresses. Where the server is given by its address, the certificate must name that address.
        let isAddress = Self.isAddress(name)
        let handler = try NIOSSLClientHandler(context: context, serverHostname: isAddress || name.isEmpty ? nil : name)
        try pipeline.addHandler(handler)
        let watch = TLSHandshakeWatch(
            name: self.name,
            checksHost: settings.mode == .full && !isAddress,
            handshake: channel.eventLoop.makePromise()
        )
        try pipeline.addHandler(watch)
    }

    /// The handshake of a channel that was made secure and has just connected; to be asked for on its event loop, in the callback of the connection itself.
    /// - Returns: succeeds when the server is checked, fails with ``TLSFailure``, also when it takes longer than the limit. The channel is closed then
    public static func handshake(of channel: any Channel, within limit: TimeAmount) -> EventLoopFuture<Void> {
        guard let watch = try? channel.pipeline.syncOperations.handler(type: TLSHandshakeWatch.self) else {
            return channel.eventLoop.makeFailedFuture(TLSFailure.cutOff)
        }
        let timer = channel.eventLoop.assumeIsolated().scheduleTask(in: limit) {
            watch.fail(.timedOut)
            channel.close(promise: nil)
        }
        watch.handshake.futureResult.assumeIsolated().whenComplete { _ in timer.cancel() }
        return watch.handshake.futureResult
    }

    private func current() throws(TLSFailure) -> NIOSSLContext {
        let stamps = [settings.authorities, settings.certificate, settings.key].map { $0.map(FileStamp.init) ?? FileStamp() }
        // Two event loops that connect at the same time wait for each other here, while one of them reads some small files.
        return try self.state.withLock { state throws(TLSFailure) -> NIOSSLContext in
            if let state, state.stamps == stamps { return state.context }
            do throws(TLSFailure) {
                let context = try Self.make(settings)
                state = (stamps, context)
                return context
            } catch {
                guard let before = state else { throw error }
                // The files are read again only after they have changed again.
                state = (stamps, before.context)
                return before.context
            }
        }
    }

    private static func make(_ settings: TLSClientConfiguration) throws(TLSFailure) -> NIOSSLContext {
        var configuration = TLSConfiguration.makeClientConfiguration()
        configuration.minimumTLSVersion = .tlsv12
        // A peer that hangs does not answer the end of the connection. Until this time is over the channel stays open, and no other connection is made in its place.
        configuration.shutdownTimeout = .milliseconds(100)
        configuration.certificateVerification =
            switch settings.mode {
            case .full: .fullVerification
            case .authority: .noHostnameVerification
            case .nothing: .none
            }
        if let path = settings.authorities {
            configuration.trustRoots = .certificates(try PEMFile.certificates(path, "sslrootcert"))
        }
        if let certificate = settings.certificate, let key = settings.key {
            let chain = try PEMFile.certificates(certificate, "sslcert")
            configuration.certificateChain = chain.map { .certificate($0) }
            configuration.privateKey = .privateKey(try PEMFile.key(key, "sslkey", of: chain, in: "sslcert"))
        }
        do {
            return try NIOSSLContext(configuration: configuration)
        } catch {
            throw TLSFailure(.files, "TLS: the files of the address do not go together")
        }
    }

    private static func isAddress(_ name: String) -> Bool {
        var (four, six) = (in_addr(), in6_addr())
        return inet_pton(AF_INET, name, &four) == 1 || inet_pton(AF_INET6, name, &six) == 1
    }
}

/// What changes when a file is written or replaced.
private struct FileStamp: Equatable {
    var (device, node, size, seconds, nanoseconds): (UInt, UInt, Int, Int, Int) = (0, 0, 0, 0, 0)

    /// No file.
    init() {}

    init(_ path: String) {
        var status = stat()
        guard stat(path, &status) == 0 else { return }
        (device, node, size) = (UInt(status.st_dev), UInt(status.st_ino), Int(status.st_size))
        (seconds, nanoseconds) = (status.st_mtim.tv_sec, status.st_mtim.tv_nsec)
    }
}
