import Glibc
import NIOCore
import NIOSSL

/// Why two ends do not speak TLS with each other, in words for a log: no secret, and a name only where the address has it.
public struct TLSFailure: Error, Sendable, Hashable, CustomStringConvertible {
    /// The kinds that an operator mends in different places.
    public enum Kind: Sendable, Hashable {
        /// No trusted authority vouches for the peer's certificate.
        case untrusted
        /// The peer's certificate is no longer valid, or not yet.
        case expired
        /// The peer's certificate names another server.
        case otherName
        /// The peer speaks no TLS.
        case plainPeer
        /// The peer does not accept this end's certificate, or asked for one and got none.
        case refused
        /// The handshake did not end in time.
        case timedOut
        /// A file of this end cannot be used.
        case files
        /// All else.
        case other
    }

    /// What kind it is.
    public let kind: Kind
    /// One line that says which.
    public let description: String

    /// Makes one.
    public init(_ kind: Kind, _ description: String) {
        self.kind = kind
        self.description = description
    }

    /// The handshake did not end within its bound.
    public static let timedOut = TLSFailure(
        .timedOut,
        "TLS: no handshake in time: a server without TLS behind this address, or one that hangs"
    )

    static func isFor(another name: String) -> TLSFailure { TLSFailure(.otherName, "TLS: the server's certificate is not for \(name)") }

    static let cutOff = TLSFailure(
        .plainPeer,
        "TLS: the handshake was cut off: a server without TLS behind this address, or one that refuses it"
    )

    /// Reads an error that a connection met during its handshake, or while the peer's first answer was waited for.
    /// - Parameters:
    ///   - certificate: the peer's, where it has shown one
    ///   - name: whom the address names
    ///   - now: seconds since 1970
    /// - Returns: nil for an error that is not TLS' own
    init?(_ error: any Error, certificate: NIOSSLCertificate?, name: String, now: Int = Glibc.time(nil)) {
        switch error {
        case let failure as TLSFailure: self = failure
        case NIOSSLError.handshakeFailed(let reason): self.init(reason, certificate, now)
        case let reason as BoringSSLError: self.init(reason, certificate, now)
        case let error as NIOSSLExtraError where [.failedToValidateHostname, .serverHostnameImpossibleToMatch].contains(error):
            self = .isFor(another: name)
        case NIOSSLError.unableToValidateCertificate:
            self = .isFor(another: name)
        case NIOSSLError.noCertificateToValidate: self.init(.untrusted, "TLS: the server shows no certificate")
        default: return nil
        }
    }

    private init(_ reason: BoringSSLError, _ certificate: NIOSSLCertificate?, _ now: Int) {
        let text = String(describing: reason)
        func has(_ words: String...) -> Bool { words.contains { text.contains($0) } }
        if has("CERTIFICATE_VERIFY_FAILED") {
            if let end = certificate?.notValidAfter, end < now {
                self.init(.expired, "TLS: the server's certificate has expired, \(Self.age(now - end)) ago")
            } else if let begin = certificate?.notValidBefore, begin > now {
                self.init(.expired, "TLS: the server's certificate is not valid yet, for another \(Self.age(begin - now))")
            } else {
                self.init(.untrusted, "TLS: no trusted authority vouches for the server's certificate")
            }
        } else if has("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNEXPECTED_MESSAGE", "INVALID_RECORD") {
            self.init(.plainPeer, "TLS: what answers does not speak TLS: a server without TLS behind this address")
        } else if has("EOF during handshake") {
            self = .cutOff
        } else if has("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "ALERT_BAD_CERTIFICATE", "ALERT_UNKNOWN_CA", "ALERT_CERTIFICATE") {
            self.init(.refused, "TLS: the server does not accept this client's certificate, or misses one (\(Self.alert(text)))")
        } else {
            self.init(.other, "TLS: \(Self.alert(text))")
        }
    }

    /// The alert's name in BoringSSL's words, which look like `error:10000412:SSL routines:OPENSSL_internal:SSLV3_ALERT_BAD_CERTIFICATE at FILE:LINE`.
    private static func alert(_ text: String) -> String {
        let behind = text.firstRange(of: "OPENSSL_internal:").map { text[$0.upperBound...] } ?? text[...]
        return String(behind.prefix { $0 != " " }.prefix(100))
    }

    private static func age(_ seconds: Int) -> String {
        switch seconds {
        case ..<120: "\(seconds) s"
        case ..<7200: "\(seconds / 60) min"
        case ..<172_800: "\(seconds / 3600) h"
        default: "\(seconds / 86_400) days"
        }
    }
}
