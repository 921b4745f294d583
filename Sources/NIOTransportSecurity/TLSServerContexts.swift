// Invariant: what new connections are given was read whole, and its key fits its certificate; files that cannot be used leave what is in force. A connection keeps what it began with.

import Glibc
import NIOCore
public import NIOSSL
import Synchronization

/// The certificate and key that a server shows, which may be replaced while it runs.
public final class TLSServerContexts: Sendable {
    /// The files, named by the settings that name them.
    public struct Files: Sendable, Equatable {
        /// A PEM file with the certificate and the intermediate certificates up to its authority.
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
        // How long a connection that the server has ended keeps its place while the client does not answer the goodbye of TLS.
        configuration.shutdownTimeout = .milliseconds(500)
        configuration.applicationProtocols = ["http/1.1"]
        // Clients are not asked for a certificate, so the server needs no authorities to check one.
        configuration.trustRoots = .certificates([])
        do {
            let context = try NIOSSLContext(configuration: configuration)
            return State(bytes: [certificate, key], context: context, expires: chain.map { Int($0.notValidAfter) }.min() ?? 0)
        } catch {
            throw TLSFailure(.files, "\(files.certificate.setting): the certificate cannot be used with its key")
        }
    }
}
