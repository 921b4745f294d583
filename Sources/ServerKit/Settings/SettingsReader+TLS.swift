public import NIOTransportSecurity
public import TransportSecurity

extension SettingsReader {
    /// Looks at the TLS part of an address that was read: refuses files that cannot be used, and warns of an address that checks its server less than it
    /// could.
    /// - Parameters:
    ///   - name: the variable of the address
    ///   - settings: nil for an address without TLS
    public mutating func check(_ name: String, _ settings: TLSClientConfiguration?) {
        guard let settings else { return }
        do throws(TLSFailure) {
            try TLSClientContexts.check(settings)
        } catch {
            refuse("\(name): \(error.description)")
        }
        warnOfTLS(name, settings.warning)
    }

    /// Warns of an address that checks its server less than it could.
    /// - Parameter words: nil where there is nothing to warn of
    public mutating func warnOfTLS(_ name: String, _ words: String?) {
        if let words { warn("\(name): \(words)") }
    }

    /// The certificate and key of a server's own ports; nil without them.
    mutating func serverTLS() -> TLSServerContexts? {
        let certificate = optionalString(
            "TLS_CERTIFICATE",
            "PEM file with the certificate of both ports, and what stands between it and its authority: both speak TLS alone then; SIGHUP reads it again"
        )
        let key = optionalString("TLS_KEY", "PEM file with the key of TLS_CERTIFICATE, without a passphrase; SIGHUP reads it again")
        guard certificate != nil || key != nil else { return nil }
        guard let certificate, let key else {
            refuse("TLS_CERTIFICATE and TLS_KEY belong together")
            return nil
        }
        do throws(TLSFailure) {
            let files = TLSServerContexts.Files(certificate: ("TLS_CERTIFICATE", certificate), key: ("TLS_KEY", key))
            let contexts = try TLSServerContexts(files)
            if contexts.hasExpired { warn("TLS_CERTIFICATE: the certificate has expired: whoever checks it turns away") }
            noteRereadable(contexts)
            return contexts
        } catch {
            refuse(error.description)
            return nil
        }
    }
}

extension TLSServerContexts: Rereadable {
    /// Both files are read together.
    public var setting: String { "TLS_CERTIFICATE" }

    /// Reads the files again. Connections that are there keep what they began with.
    public func reread() -> Rereading {
        do throws(TLSFailure) {
            return try reload() ? .changed : .unchanged
        } catch {
            return .failed(error.description)
        }
    }
}

extension TLSServerContexts: Equatable {
    /// Whether both are one object. Their contents are not compared, because what is in force may change.
    public static func == (first: TLSServerContexts, second: TLSServerContexts) -> Bool { first === second }
}
