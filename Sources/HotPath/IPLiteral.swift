/// What may stand between the brackets of a host (RFC 3986, 3.2.2): an IPv6 address, or an address of a version that is still to come.
enum IPLiteral {
    /// Whether the bytes are such an address. An address with a zone identifier is refused, because RFC 9110 leaves these out of `Host`.
    static func isOne(_ bytes: some Collection<UInt8>) -> Bool {
        guard let first = bytes.first else { return false }
        return first | 0x20 == UInt8(ascii: "v") ? isFuture(bytes.dropFirst()) : isIPv6(bytes)
    }

    /// Eight groups of one to four hexadecimal digits. An IPv4 address may stand for the last two, and `::` once for one group or more of zeros.
    private static func isIPv6(_ bytes: some Collection<UInt8>) -> Bool {
        var groups = 0
        var isShortened = false
        let parts = bytes.split(separator: UInt8(ascii: ":"), maxSplits: 9, omittingEmptySubsequences: false)
        // Ten parts at most: `::` at an end makes two empty ones.
        guard (3...9).contains(parts.count) else { return false }
        for (place, part) in parts.enumerated() {
            let isEnd = place == 0 || place == parts.count - 1
            if part.isEmpty {
                // An empty part at an end belongs to the `::` whose other part is beside it.
                if isEnd, parts[place == 0 ? 1 : place - 1].isEmpty { continue }
                guard !isEnd, !isShortened else { return false }
                isShortened = true
            } else if place == parts.count - 1, part.contains(UInt8(ascii: ".")) {
                guard isIPv4(part) else { return false }
                groups += 2
            } else {
                guard part.count <= 4, part.allSatisfy(isHexadecimal) else { return false }
                groups += 1
            }
        }
        return isShortened ? groups <= 7 : groups == 8
    }

    /// Four numbers from 0 to 255 without zeros in front.
    private static func isIPv4(_ bytes: some Collection<UInt8>) -> Bool {
        let parts = bytes.split(separator: UInt8(ascii: "."), maxSplits: 4, omittingEmptySubsequences: false)
        return parts.count == 4
            && parts.allSatisfy { part in
                guard (1...3).contains(part.count), part.allSatisfy({ (0x30...0x39).contains($0) }) else { return false }
                return (part.count == 1 || part.first != 0x30) && part.reduce(0) { $0 * 10 + Int($1 - 0x30) } <= 255
            }
    }

    /// `v`, hexadecimal digits, a dot, and what a name may hold or a colon; the `v` is not among the bytes.
    private static func isFuture(_ bytes: some Collection<UInt8>) -> Bool {
        guard let dot = bytes.firstIndex(of: UInt8(ascii: ".")) else { return false }
        let version = bytes[..<dot]
        let address = bytes[dot...].dropFirst()
        return !version.isEmpty && version.allSatisfy(isHexadecimal) && !address.isEmpty
    }

    private static func isHexadecimal(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || (0x61...0x66).contains(byte | 0x20)
    }
}
