// A test's own certificate authority and the certificates that it signs, made by `openssl` in a temporary folder that `deinit` removes. No other program
// trusts it.

public import Foundation

/// Certificates for tests: one authority, and as many ends as wanted.
public final class PrivateCertificates: Sendable {
    /// A certificate and its key, each a PEM file.
    public struct End: Sendable {
        /// The certificate.
        public let certificate: String
        /// Its key, without a passphrase.
        public let key: String
    }

    /// The certificate that a private server's TLS port shows, and the clients that the port lets in.
    public struct Port: Sendable {
        /// The certificate that the port shows.
        public var end: End
        /// The PEM file of the authority of its clients' certificates.
        public var authority: String
        /// Whether a client must show a certificate.
        public var asksClients: Bool

        /// A port that asks its clients for nothing, unless told otherwise.
        public init(_ end: End, authority: String, asksClients: Bool = false) {
            self.end = end
            self.authority = authority
            self.asksClients = asksClients
        }
    }

    /// Why there are no certificates.
    public struct Failure: Error, CustomStringConvertible {
        /// What to do about it.
        public let description: String
    }

    /// The folder of all files.
    public let directory: URL
    /// The authority's own certificate, a PEM file.
    public var authority: String { path("authority.pem") }

    /// Makes an authority.
    public init() throws {
        directory = FileManager.default.temporaryDirectory.appendingPathComponent("certificates-\(UUID().uuidString.prefix(8))")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        try run(
            ["req", "-x509"] + Self.newKey + ["-keyout", path("authority.key"), "-out", authority, "-days", "2", "-subj", "/CN=authority"]
        )
    }

    deinit { try? FileManager.default.removeItem(at: directory) }

    /// Signs a certificate.
    /// - Parameters:
    ///   - name: names its files
    ///   - subject: the names that the certificate is for, as `subjectAltName` has them
    ///   - days: how long it is valid, from now; -1, the least, for one that has expired a day ago
    public func sign(_ name: String = "server", subject: String = "DNS:localhost,IP:127.0.0.1", days: Int = 2) throws -> End {
        let (certificate, key, request, extensions) = (path("\(name).pem"), path("\(name).key"), path("\(name).csr"), path("\(name).ext"))
        try Data("subjectAltName=\(subject)\nbasicConstraints=CA:FALSE\n".utf8).write(to: URL(fileURLWithPath: extensions))
        try run(["req"] + Self.newKey + ["-keyout", key, "-out", request, "-subj", "/CN=\(name)"])
        try run([
            "x509", "-req", "-in", request, "-CA", authority, "-CAkey", path("authority.key"), "-CAcreateserial", "-days", "\(days)",
            "-extfile", extensions, "-out", certificate,
        ])
        return End(certificate: certificate, key: key)
    }

    private static let newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]

    private func path(_ name: String) -> String { directory.appendingPathComponent(name).path }

    private func run(_ arguments: [String]) throws {
        guard FileManager.default.isExecutableFile(atPath: "/usr/bin/openssl") else {
            throw Failure(description: "openssl is not installed: apt-get install openssl")
        }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/openssl")
        process.arguments = arguments
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        let errors = Pipe()
        process.standardError = errors
        try process.run()
        let text = errors.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else {
            throw Failure(description: "openssl \(arguments.joined(separator: " ")): \(String(decoding: text, as: UTF8.self).suffix(400))")
        }
    }
}
