// TLS beneath a connection. rabbitmq-c makes the OpenSSL session, connects it and logs in over it; from then on this file reads and writes it, as the connection
// itself reads and writes a plain socket: the library's own calls would wait, and one thread must serve both directions.
//
// rabbitmq-c does not give its session away. OpenSSL does: its information callback is called with the session throughout the handshake. The callback notes the
// session, and what the check of the broker's certificate has come to, which is gone with the session when the handshake has failed.
//
// Invariant: the session belongs to rabbitmq-c, which frees it when it closes the socket: with the connection's handle, and before that when one of its own calls fails,
// the login among them. The session is looked at only while the library still has a socket. All of it is on the connection's thread.

import CRabbitMQ
import Glibc
import TransportSecurity

/// The TLS part of one connection. Belongs to the connection's thread.
final class AMQPTLS {
    enum Step {
        /// So many bytes were read or written.
        case done(Int)
        /// Nothing now: the socket has to become readable first.
        case wantsRead
        /// Nothing now: the socket has to become writable first.
        case wantsWrite
        /// The broker has closed.
        case ended
        /// Why it broke, for a log.
        case failed(String)
    }

    /// What OpenSSL's callback writes, at an address of its own that outlives the handshake.
    private struct Notes {
        var session: UnsafeMutableRawPointer?
        /// Of OpenSSL's `X509_V_…`; 0 while nothing is wrong.
        var verdict = 0
        /// The alert that the broker sent last, as the callback had it.
        var alert: Int32 = 0
    }

    private static let readsAlert: Int32 = 0x4004  // SSL_CB_READ_ALERT
    private static let setsMode: Int32 = 33  // SSL_CTRL_MODE
    /// SSL_MODE_ENABLE_PARTIAL_WRITE and SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER: a write takes what it can, and is repeated from wherever the bytes are then.
    private static let mode = 0x1 | 0x2
    private static let verifiesPeer: Int32 = 1  // SSL_VERIFY_PEER

    private let notes: UnsafeMutablePointer<Notes>
    private let handle: amqp_connection_state_t
    private let name: String
    private let showsCertificate: Bool

    /// Makes ready a socket of rabbitmq-c's, which must not be open yet.
    /// - Parameter handle: the connection that the socket belongs to, which outlives this object
    init(_ socket: OpaquePointer, of handle: amqp_connection_state_t, _ settings: TLSClientConfiguration, name: String) throws(BrokerError)
    {
        self.handle = handle
        self.name = name
        showsCertificate = settings.certificate != nil
        notes = .allocate(capacity: 1)
        notes.initialize(to: Notes())
        guard let context = amqp_ssl_socket_get_context(socket) else { throw Self.refusal("there is no context") }
        _ = SSL_CTX_set_ex_data(context, 0, notes)
        SSL_CTX_set_info_callback(context) { session, what, value in
            // The pointer was set above and lives as long as the connection, whose handshake this is.
            guard let session, let context = SSL_get_SSL_CTX(session), let data = SSL_CTX_get_ex_data(context, 0) else { return }
            let notes = data.assumingMemoryBound(to: Notes.self)
            notes.pointee.session = UnsafeMutableRawPointer(mutating: session)
            let verdict = SSL_get_verify_result(session)
            if verdict != 0 { notes.pointee.verdict = verdict }
            if what == AMQPTLS.readsAlert { notes.pointee.alert = value }
        }
        _ = SSL_CTX_ctrl(context, Self.setsMode, Self.mode, nil)
        try Self.use(settings, of: socket)
        // OpenSSL checks names and addresses itself, during the handshake. The library's own check, which knows no addresses, comes after it and is left out.
        amqp_ssl_socket_set_verify_hostname(socket, 0)
        amqp_ssl_socket_set_verify_peer(socket, settings.mode == .nothing ? 0 : 1)
        guard settings.mode != .nothing else { return }
        SSL_CTX_set_verify(context, Self.verifiesPeer, nil)
        if settings.authorities == nil { _ = SSL_CTX_set_default_verify_paths(context) }
        guard settings.mode == .full else { return }
        let parameters = SSL_CTX_get0_param(context)
        let isChecked =
            Self.isAddress(name)
            ? X509_VERIFY_PARAM_set1_ip_asc(parameters, name) : X509_VERIFY_PARAM_set1_host(parameters, name, name.utf8.count)
        guard isChecked == 1 else { throw Self.refusal("no certificate can be for the host of the address") }
    }

    deinit { notes.deallocate() }

    private static func use(_ settings: TLSClientConfiguration, of socket: OpaquePointer) throws(BrokerError) {
        if let authorities = settings.authorities, amqp_ssl_socket_set_cacert(socket, authorities) != AMQP_STATUS_OK.rawValue {
            throw refusal("sslrootcert: no certificate in PEM can be read from the file")
        }
        if let certificate = settings.certificate, let key = settings.key,
            amqp_ssl_socket_set_key(socket, certificate, key) != AMQP_STATUS_OK.rawValue
        {
            throw refusal("sslcert, sslkey: no certificate and its key in PEM can be read from the files")
        }
    }

    private static func refusal(_ words: String) -> BrokerError { BrokerError(code: .connectFailed, message: "TLS: \(words)") }

    private static func isAddress(_ name: String) -> Bool {
        var (four, six) = (in_addr(), in6_addr())
        return inet_pton(AF_INET, name, &four) == 1 || inet_pton(AF_INET6, name, &six) == 1
    }

    // MARK: The handshake

    /// Call this before the handshake. It empties this thread's queue of OpenSSL errors, so that `failure` reports no error of an earlier session.
    func begin() { ERR_clear_error() }

    /// Why the handshake has failed; nil: it had not begun, so the failure is one of the network.
    /// - Parameter isLate: whether its time bound ended the handshake
    func failure(isLate: Bool) -> String? {
        guard notes.pointee.session != nil else { return nil }
        let verdict = notes.pointee.verdict
        switch verdict {
        case 0: break
        case 9: return "TLS: the broker's certificate is not valid yet"
        case 10: return "TLS: the broker's certificate has expired"
        case 62, 64: return "TLS: the broker's certificate is not for \(name)"
        case 2, 18, 19, 20, 21: return "TLS: no trusted authority vouches for the broker's certificate"
        default: return "TLS: the broker's certificate cannot be trusted: \(String(cString: X509_verify_cert_error_string(verdict)))"
        }
        if isLate { return "TLS: no handshake in time: a broker without TLS behind this address, or one that hangs" }
        if let words = refusalOfCertificate { return words }
        let reason = ERR_reason_error_string(ERR_peek_last_error()).map { String(cString: $0) }
        switch reason {
        case "wrong version number"?, "packet length too long"?, "record layer failure"?:
            return "TLS: what answers does not speak TLS: a broker without TLS behind this address"
        case "unexpected eof while reading"?, nil:
            return "TLS: the handshake was cut off: a broker without TLS behind this address, or one that refuses it"
        case let reason?: return "TLS: \(reason)"
        }
    }

    /// The broker's alert against this end's certificate. With TLS 1.3 it comes after the handshake.
    var refusalOfCertificate: String? {
        switch notes.pointee.alert & 0xFF {
        // handshake_failure; the ones from bad_certificate to certificate_unknown; unknown_ca; certificate_required.
        case 40, 42...46, 48, 116:
            let alert = SSL_alert_desc_string_long(notes.pointee.alert).map { String(cString: $0) } ?? ""
            return "TLS: the broker does not accept this client's certificate, or misses one (\(alert))"
        default: return nil
        }
    }

    /// Why the login failed whose connection ended without a reply.
    ///
    /// If no alert was read before rabbitmq-c freed the session, only the end of the connection is known. A broker that ends a connection right after the
    /// handshake is likely to want another certificate.
    var failureAfterHandshake: String {
        refusalOfCertificate
            ?? "TLS: the broker ended the connection after the handshake: it is going down, or does not accept this client's certificate\(showsCertificate ? "" : ", or misses one")"
    }

    // MARK: Bytes

    /// The session; nil: there was no handshake, or rabbitmq-c has closed the socket and freed it.
    private var session: UnsafeMutableRawPointer? { amqp_get_sockfd(handle) < 0 ? nil : notes.pointee.session }

    /// Writes what the session takes now.
    func write(_ bytes: UnsafeRawBufferPointer) -> Step {
        guard let session else { return .ended }
        var count = 0
        ERR_clear_error()
        let result = SSL_write_ex(session, bytes.baseAddress, bytes.count, &count)
        return step(session, result, count)
    }

    /// Reads what is there: one record at most.
    func read(into buffer: UnsafeMutableRawPointer, _ capacity: Int) -> Step {
        guard let session else { return .ended }
        var count = 0
        ERR_clear_error()
        let result = SSL_read_ex(session, buffer, capacity, &count)
        return step(session, result, count)
    }

    private func step(_ session: UnsafeMutableRawPointer, _ result: Int32, _ count: Int) -> Step {
        if result == 1 { return .done(count) }
        switch SSL_get_error(session, result) {
        case 2: return .wantsRead
        case 3: return .wantsWrite
        case 6: return .ended
        default:
            if let words = refusalOfCertificate { return .failed(words) }
            let reason = ERR_reason_error_string(ERR_peek_last_error()).map { String(cString: $0) }
            // A peer that closes the socket without a goodbye of TLS has ended, as a peer without TLS does.
            return reason == "unexpected eof while reading" ? .ended : .failed("TLS: \(reason ?? "errno \(errno)")")
        }
    }
}
