import Foundation
import NIOTransportSecurity
import PrivateServers
import Testing

@Suite struct TLSServerContextsTests {
    private func copy(_ end: PrivateCertificates.End, to folder: URL) throws -> TLSServerContexts.Files {
        let (certificate, key) = (folder.appendingPathComponent("live.pem"), folder.appendingPathComponent("live.key"))
        try Data(contentsOf: URL(fileURLWithPath: end.certificate)).write(to: certificate)
        try Data(contentsOf: URL(fileURLWithPath: end.key)).write(to: key)
        return .init(certificate: ("TLS_CERTIFICATE", certificate.path), key: ("TLS_KEY", key.path))
    }

    @Test func filesThatAreReplacedAreReadAgainAndBrokenOnesLeaveWhatIsThere() throws {
        let certificates = try PrivateCertificates()
        let (one, two) = (try certificates.sign("one", days: 1), try certificates.sign("two", days: 9))
        let contexts = try TLSServerContexts(try copy(one, to: certificates.directory))
        let (context, expires) = (contexts.current, contexts.expires)
        #expect(try contexts.reload() == false && contexts.current === context && !contexts.hasExpired)
        // The certificate alone: its key is another's.
        let live = certificates.directory.appendingPathComponent("live.pem")
        try Data(contentsOf: URL(fileURLWithPath: two.certificate)).write(to: live)
        let failure = #expect(throws: TLSFailure.self) { try contexts.reload() }
        #expect(failure?.description == "TLS_KEY: the key is not that of the first certificate of TLS_CERTIFICATE")
        #expect(contexts.current === context && contexts.expires == expires)
        _ = try copy(two, to: certificates.directory)
        #expect(try contexts.reload() && contexts.current !== context && contexts.expires > expires + 6 * 86_400)
        #expect(try contexts.reload() == false)
        #expect(try TLSServerContexts(try copy(certificates.sign("old", days: -1), to: certificates.directory)).hasExpired)
    }
}
