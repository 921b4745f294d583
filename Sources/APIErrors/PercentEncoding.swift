import StrictJSON

/// Percent-encoding (RFC 3986, section 2.1), for paths and queries alike.
package enum PercentEncoding {
    /// Decodes once. Nil if a `%` has no two hexadecimal digits after it, or the result is not UTF-8.
    package static func decode(_ bytes: some Sequence<UInt8>, plusIsSpace: Bool) -> String? {
        var decoded: [UInt8] = []
        decoded.reserveCapacity(bytes.underestimatedCount)
        var rest = bytes.makeIterator()
        while let byte = rest.next() {
            switch byte {
            case UInt8(ascii: "+") where plusIsSpace: decoded.append(UInt8(ascii: " "))
            case UInt8(ascii: "%"):
                guard let high = rest.next().flatMap(JSONParser.nibble), let low = rest.next().flatMap(JSONParser.nibble) else {
                    return nil
                }
                decoded.append(high << 4 | low)
            default: decoded.append(byte)
            }
        }
        return String(validating: decoded, as: UTF8.self)
    }

    /// Appends a text as a path segment in its one spelling: what a segment may hold as it is stays so, every other byte becomes `%XX` in capitals.
    package static func append(segment text: String, to path: inout [UInt8]) {
        for byte in text.utf8 {
            if isPlain(byte) {
                path.append(byte)
            } else {
                path.append(UInt8(ascii: "%"))
                path.append(digit(byte >> 4))
                path.append(digit(byte & 0xF))
            }
        }
    }

    /// `pchar` of RFC 3986 without percent-encoded bytes.
    package static func isPlain(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
        case UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "~"): true
        case UInt8(ascii: "!"), UInt8(ascii: "$"), UInt8(ascii: "&")...UInt8(ascii: ","), UInt8(ascii: ";"), UInt8(ascii: "="): true
        case UInt8(ascii: ":"), UInt8(ascii: "@"): true
        default: false
        }
    }

    private static func digit(_ nibble: UInt8) -> UInt8 { nibble < 10 ? UInt8(ascii: "0") + nibble : UInt8(ascii: "A") + nibble - 10 }
}
