// How a client checks the server that it reaches by TLS, and what it shows of itself. A value: files are named here, and read by whoever connects.
//
// The names are those of libpq, so that one way is right for every address that a server is given: sslmode, sslrootcert, sslcert, sslkey.

/// The TLS settings of one address, read from the parameters behind its `?`.
public struct TLSClientConfiguration: Sendable, Hashable {
    /// What is checked of the server's certificate.
    public enum Mode: String, Sendable, Hashable, CaseIterable {
        /// That a trusted authority vouches for it, that it is valid now, and that it names the server. What counts unless the address says otherwise.
        case full = "verify-full"
        /// As `full`, but any name will do.
        case authority = "verify-ca"
        /// Nothing: whoever stands between can read and change everything.
        case nothing = "require"
    }

    /// Why parameters cannot be used. It repeats no value.
    public struct Refusal: Error, Sendable, Hashable, CustomStringConvertible {
        /// What is wrong, in words that can stand behind the name of the setting.
        public let description: String

        /// Makes one of words.
        public init(_ description: String) { self.description = description }
    }

    /// What is checked.
    public var mode = Mode.full
    /// A PEM file with the authorities that are trusted; nil for the system's own.
    public var authorities: String?
    /// A PEM file with this client's certificate and what stands between it and its authority; nil for none.
    public var certificate: String?
    /// The PEM file with the certificate's key; there where `certificate` is.
    public var key: String?

    /// Everything is checked, against the system's authorities.
    public init() {}

    /// The parameters that are understood.
    public static let names = ["sslmode", "sslrootcert", "sslcert", "sslkey"]

    /// Reads `name=value&…`, the values percent-encoded.
    /// - Parameter query: what stands behind the `?`; empty for no parameter
    public init(query: some StringProtocol) throws(Refusal) {
        let known = "sslmode, sslrootcert, sslcert and sslkey are the only parameters"
        var given: Set<String> = []
        for parameter in query.split(separator: "&", omittingEmptySubsequences: true) {
            let parts = parameter.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard let name = parts.first.map({ String($0) }), Self.names.contains(name) else { throw Refusal(known) }
            guard given.insert(name).inserted else { throw Refusal("\(name) is given twice") }
            guard parts.count == 2, let value = Self.percentDecoded(parts[1].utf8), !value.isEmpty else {
                throw Refusal("\(name) has no value that can be read")
            }
            switch name {
            case "sslmode":
                guard let mode = Mode(rawValue: value) else {
                    throw Refusal("sslmode is one of \(Mode.allCases.map(\.rawValue).joined(separator: ", "))")
                }
                self.mode = mode
            case "sslrootcert": authorities = value
            case "sslcert": certificate = value
            default: key = value
            }
        }
        guard (certificate == nil) == (key == nil) else { throw Refusal("sslcert and sslkey belong together") }
        guard self.mode != .nothing || authorities == nil else {
            throw Refusal("sslmode=require checks nothing, so sslrootcert has no use: leave one of them out")
        }
    }

    /// What an operator must be told when less is checked than could be; nil where everything is checked.
    public var warning: String? {
        switch mode {
        case .full: nil
        case .authority: "sslmode=verify-ca: any server whose certificate these authorities have signed is taken for this one"
        case .nothing:
            "sslmode=require: the certificate of the server is not checked, so that whoever stands between can read and change everything"
        }
    }

    private static func percentDecoded(_ text: some Sequence<UInt8>) -> String? {
        var bytes: [UInt8] = []
        var rest = Array(text)[...]
        // Ends: each round takes at least one byte.
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = rest.popFirst(), let low = rest.popFirst(),
                let value = UInt8(String(decoding: [high, low], as: UTF8.self), radix: 16), value != 0
            else { return nil }
            bytes.append(value)
        }
        return String(validating: bytes, as: UTF8.self)
    }
}
