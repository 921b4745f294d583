import NIOSSL

extension NIOSSLCertificate {
    /// Whether the certificate is for a host name: one of its DNS names is that name, or is `*.` and all but the name's first label.
    ///
    /// NIOSSL also accepts a certificate for the address that the name was resolved to. Then an attacker who controls the name's resolution, and has a certificate
    /// for an address of his own, would be accepted.
    func isFor(host name: String) -> Bool {
        let name = Self.plain(name)
        guard !name.isEmpty else { return false }
        for alternative in _subjectAlternativeNames() where alternative.nameType == .dnsName {
            let pattern = Self.plain(String(decoding: alternative.contents, as: UTF8.self))
            if pattern == name { return true }
            guard pattern.hasPrefix("*."), let dot = name.firstIndex(of: "."), dot > name.startIndex else { continue }
            if name[dot...] == pattern.dropFirst() { return true }
        }
        return false
    }

    /// Lower case, without the dot that may stand at the end.
    private static func plain(_ name: String) -> String {
        let name = name.lowercased()
        return name.hasSuffix(".") ? String(name.dropLast()) : name
    }
}
