import Glibc
import NIOSSL

/// Reads certificates and keys, and says in words which file cannot be used and why.
enum PEMFile {
    static let maximumBytes = 4 << 20

    /// - Parameter setting: what names the file
    static func bytes(_ path: String, _ setting: String) throws(TLSFailure) -> [UInt8] {
        func failure(_ words: String) -> TLSFailure { TLSFailure(.files, "\(setting): \(words)") }
        let file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard file >= 0 else { throw failure("the file cannot be opened (\(String(cString: strerror(errno))))") }
        defer { close(file) }
        var bytes: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 65_536)
        // Ends with the file or the bound.
        while bytes.count <= Self.maximumBytes {
            let count = read(file, &part, part.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { throw failure("the file cannot be read (\(String(cString: strerror(errno))))") }
            if count == 0 { return bytes }
            bytes += part[..<count]
        }
        throw failure("the file is larger than \(Self.maximumBytes) bytes")
    }

    static func certificates(_ path: String, _ setting: String) throws(TLSFailure) -> [NIOSSLCertificate] {
        try Self.certificates(Self.bytes(path, setting), setting)
    }

    static func certificates(_ bytes: [UInt8], _ setting: String) throws(TLSFailure) -> [NIOSSLCertificate] {
        guard let certificates = try? NIOSSLCertificate.fromPEMBytes(bytes), !certificates.isEmpty else {
            throw TLSFailure(.files, "\(setting): no certificate in PEM is in the file")
        }
        return certificates
    }

    /// The key of the first certificate of a chain.
    static func key(_ path: String, _ setting: String, of chain: [NIOSSLCertificate], in other: String) throws(TLSFailure)
        -> NIOSSLPrivateKey
    {
        try Self.key(Self.bytes(path, setting), setting, of: chain, in: other)
    }

    static func key(_ bytes: [UInt8], _ setting: String, of chain: [NIOSSLCertificate], in other: String) throws(TLSFailure)
        -> NIOSSLPrivateKey
    {
        guard let key = try? NIOSSLPrivateKey(bytes: bytes, format: .pem) else {
            throw TLSFailure(.files, "\(setting): no key in PEM that needs no passphrase is in the file")
        }
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) },
            privateKey: .privateKey(key)
        )
        configuration.trustRoots = .certificates([])
        guard (try? NIOSSLContext(configuration: configuration)) != nil else {
            throw TLSFailure(.files, "\(setting): the key is not that of the first certificate of \(other)")
        }
        return key
    }
}
