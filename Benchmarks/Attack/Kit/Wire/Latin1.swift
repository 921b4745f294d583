extension [UInt8] {
    /// The bytes of a text whose characters are bytes: scalar 0x80 is byte 0x80, not the two bytes of its UTF-8. What an attack sends is written so.
    init(latin1 text: String) {
        self = text.unicodeScalars.map { UInt8(truncatingIfNeeded: $0.value) }
    }

    /// The text whose characters are these bytes, for reports and for looking at heads.
    var latin1: String {
        var scalars = String.UnicodeScalarView()
        scalars.append(contentsOf: map { Unicode.Scalar($0) })
        return String(scalars)
    }
}

extension String {
    /// Bytes of the text when it is sent.
    var byteCount: Int { unicodeScalars.count }

    /// The text on one line, shortened, with what cannot be printed as `\xNN`.
    func shown(limit: Int = 160) -> String {
        var shown = ""
        for scalar in unicodeScalars.prefix(limit) {
            switch scalar {
            case "\r": shown += "\\r"
            case "\n": shown += "\\n"
            case "\t": shown += "\\t"
            case " "..."~": shown.unicodeScalars.append(scalar)
            default:
                let digits = String(scalar.value & 0xFF, radix: 16)
                shown += "\\x" + (digits.count == 1 ? "0" : "") + digits
            }
        }
        return byteCount > limit ? shown + "…" : shown
    }
}
