/// How texts of callers look in the log, so that none of them can pass for something else.
///
/// Invariant: a reader of the text form finds the fields that were given and no other. A name is a word; a value runs to the next space, or to the next quote that
/// no backslash escapes. What would begin a line, or change the order or the look of what stands around it (control and format characters, among them those that turn
/// the direction of writing), is written as an escape, in the text form and in JSON.
enum LogText {
    /// A field's value: as it is, or in quotes where it holds a space, `=`, a quote or a backslash.
    static func value(_ text: String) -> String {
        let mustQuote =
            text.isEmpty
            || text.unicodeScalars.contains { "=\"\\".unicodeScalars.contains($0) || $0.properties.isWhitespace && !isHidden($0) }
        return mustQuote ? quoted(text) : escaped(text)
    }

    /// A message: its spaces are its own; what could be taken for a field puts all of it in quotes.
    static func message(_ text: String) -> String {
        text.utf8.contains { $0 == UInt8(ascii: "=") || $0 == UInt8(ascii: "\"") || $0 == UInt8(ascii: "\\") }
            ? quoted(text) : escaped(text)
    }

    /// A line of JSON with the same characters escaped as JSON has it. They can only stand in its texts.
    static func json(_ bytes: [UInt8]) -> [UInt8] {
        guard bytes.contains(where: { $0 >= 0x7F }) else { return bytes }
        var result: [UInt8] = []
        result.reserveCapacity(bytes.count)
        for scalar in String(decoding: bytes, as: UTF8.self).unicodeScalars {
            if isHidden(scalar) {
                for unit in UTF16.encode(scalar) ?? UTF16.encodedReplacementCharacter {
                    let digits = String(unit, radix: 16)
                    result += Array("\\u\(String(repeating: "0", count: 4 - digits.count))\(digits)".utf8)
                }
            } else {
                result += UTF8.encode(scalar) ?? UTF8.encodedReplacementCharacter
            }
        }
        return result
    }

    private static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            if scalar == "\"" || scalar == "\\" { result += "\\" }
            append(scalar, to: &result)
        }
        return result + "\""
    }

    private static func escaped(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: isHidden) else { return text }
        var result = ""
        for scalar in text.unicodeScalars { append(scalar, to: &result) }
        return result
    }

    private static func append(_ scalar: Unicode.Scalar, to result: inout String) {
        if isHidden(scalar) {
            result += "\\u{\(String(scalar.value, radix: 16))}"
        } else {
            result.unicodeScalars.append(scalar)
        }
    }

    /// Characters without a look of their own: controls, formats, separators of lines and paragraphs.
    static func isHidden(_ scalar: Unicode.Scalar) -> Bool {
        // Most characters of a log are printable ASCII.
        if scalar.value >= 0x20, scalar.value < 0x7F { return false }
        switch scalar.properties.generalCategory {
        case .control, .format, .lineSeparator, .paragraphSeparator: return true
        default: return false
        }
    }
}
