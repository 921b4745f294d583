/// One pass over the bytes of a JSON text that checks it and notes where its values are. The bounds are ``JSONDocument``'s.
package struct JSONParser {
    private let bytes: [UInt8]
    private var position = 0
    private(set) var tokens: [JSONDocument.Token] = []

    init(bytes: [UInt8]) {
        self.bytes = bytes
        tokens.reserveCapacity(min(16, bytes.count / 2 + 1))
    }

    mutating func parse() throws(JSONSyntaxError) {
        skipWhitespace()
        try value(depth: 0)
        skipWhitespace()
        if position < bytes.count { throw self.error(.trailingBytes) }
    }

    private func error(_ reason: JSONSyntaxError.Reason) -> JSONSyntaxError {
        JSONSyntaxError(reason: reason, offset: position)
    }

    /// The byte at the position, or the error for a text that stops here.
    private func current() throws(JSONSyntaxError) -> UInt8 {
        guard position < bytes.count else { throw self.error(.unexpectedEnd) }
        return bytes[position]
    }

    private mutating func skipWhitespace() {
        while position < bytes.count {
            switch bytes[position] {
            case 0x20, 0x09, 0x0A, 0x0D: position += 1
            default: return
            }
        }
    }

    private mutating func append(_ kind: JSONDocument.Kind, from start: Int, to end: Int) {
        tokens.append(
            .init(kind: kind, start: UInt32(start), end: UInt32(end), next: UInt32(tokens.count + 1))
        )
    }

    private mutating func value(depth: Int) throws(JSONSyntaxError) {
        switch try current() {
        case UInt8(ascii: "{"): try object(depth: depth + 1)
        case UInt8(ascii: "["): try array(depth: depth + 1)
        case UInt8(ascii: "\""): try string()
        case UInt8(ascii: "t"): try word("true", .yes)
        case UInt8(ascii: "f"): try word("false", .no)
        case UInt8(ascii: "n"): try word("null", .null)
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): try number()
        default: throw self.error(.unexpectedByte)
        }
    }

    private mutating func word(_ word: StaticString, _ kind: JSONDocument.Kind) throws(JSONSyntaxError) {
        let start = position
        for offset in 0..<word.utf8CodeUnitCount {
            let expected = word.withUTF8Buffer { $0[offset] }
            guard try current() == expected else { throw self.error(.unexpectedByte) }
            position += 1
        }
        append(kind, from: start, to: position)
    }

    private mutating func digits() throws(JSONSyntaxError) {
        guard case UInt8(ascii: "0")...UInt8(ascii: "9") = try current() else { throw self.error(.unexpectedByte) }
        while position < bytes.count, case UInt8(ascii: "0")...UInt8(ascii: "9") = bytes[position] {
            position += 1
        }
    }

    private mutating func number() throws(JSONSyntaxError) {
        let start = position
        var kind = JSONDocument.Kind.whole
        if try current() == UInt8(ascii: "-") { position += 1 }
        if try current() == UInt8(ascii: "0") {
            position += 1
        } else {
            try digits()
        }
        if position < bytes.count, bytes[position] == UInt8(ascii: ".") {
            kind = .number
            position += 1
            try digits()
        }
        if position < bytes.count, bytes[position] | 0x20 == UInt8(ascii: "e") {
            kind = .number
            position += 1
            let sign = try current()
            if sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-") { position += 1 }
            try digits()
        }
        append(kind, from: start, to: position)
    }

    private mutating func array(depth: Int) throws(JSONSyntaxError) {
        guard depth <= JSONDocument.maximumDepth else { throw self.error(.tooDeep) }
        let index = tokens.count
        append(.array, from: position, to: position)
        position += 1
        skipWhitespace()
        if try current() == UInt8(ascii: "]") {
            position += 1
        } else {
            elements: while true {
                skipWhitespace()
                try value(depth: depth)
                skipWhitespace()
                switch try current() {
                case UInt8(ascii: ","): position += 1
                case UInt8(ascii: "]"):
                    position += 1
                    break elements
                default: throw self.error(.unexpectedByte)
                }
            }
        }
        close(index)
    }

    private mutating func object(depth: Int) throws(JSONSyntaxError) {
        guard depth <= JSONDocument.maximumDepth else { throw self.error(.tooDeep) }
        let index = tokens.count
        append(.object, from: position, to: position)
        position += 1
        skipWhitespace()
        if try current() == UInt8(ascii: "}") {
            position += 1
        } else {
            var names = SeenNames()
            members: while true {
                skipWhitespace()
                guard try current() == UInt8(ascii: "\"") else { throw self.error(.unexpectedByte) }
                let name = tokens.count
                try string()
                if names.alreadyContains(tokens[name], in: bytes) {
                    throw JSONSyntaxError(
                        reason: .duplicateName,
                        offset: position,
                        name: String(decoding: SeenNames.text(tokens[name], in: bytes), as: UTF8.self)
                    )
                }
                skipWhitespace()
                guard try current() == UInt8(ascii: ":") else { throw self.error(.unexpectedByte) }
                position += 1
                skipWhitespace()
                try value(depth: depth)
                skipWhitespace()
                switch try current() {
                case UInt8(ascii: ","): position += 1
                case UInt8(ascii: "}"):
                    position += 1
                    break members
                default: throw self.error(.unexpectedByte)
                }
            }
        }
        close(index)
    }

    private mutating func close(_ index: Int) {
        tokens[index].end = UInt32(position)
        tokens[index].next = UInt32(tokens.count)
    }

    private mutating func string() throws(JSONSyntaxError) {
        position += 1
        let start = position
        var kind = JSONDocument.Kind.text
        while true {
            let byte = try current()
            switch byte {
            case UInt8(ascii: "\""):
                append(kind, from: start, to: position)
                position += 1
                return
            case UInt8(ascii: "\\"):
                kind = .escapedText
                position += 1
                try escape()
            case 0..<0x20: throw self.error(.unexpectedByte)
            case 0x20..<0x80: position += 1
            default: try multibyte(byte)
            }
        }
    }

    private mutating func escape() throws(JSONSyntaxError) {
        switch try current() {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"), UInt8(ascii: "f"), UInt8(ascii: "n"),
            UInt8(ascii: "r"), UInt8(ascii: "t"):
            position += 1
        case UInt8(ascii: "u"):
            position += 1
            let unit = try codeUnit()
            if unit >= 0xDC00, unit < 0xE000 { throw self.error(.invalidText) }
            guard unit >= 0xD800, unit < 0xDC00 else { return }
            guard try current() == UInt8(ascii: "\\") else { throw self.error(.invalidText) }
            position += 1
            guard try current() == UInt8(ascii: "u") else { throw self.error(.invalidText) }
            position += 1
            let low = try codeUnit()
            guard low >= 0xDC00, low < 0xE000 else { throw self.error(.invalidText) }
        default: throw self.error(.unexpectedByte)
        }
    }

    private mutating func codeUnit() throws(JSONSyntaxError) -> UInt32 {
        var unit: UInt32 = 0
        for _ in 0..<4 {
            guard let nibble = JSONParser.nibble(try current()) else { throw self.error(.unexpectedByte) }
            unit = unit << 4 | UInt32(nibble)
            position += 1
        }
        return unit
    }

    /// A sequence of UTF-8 of two to four bytes, as the Unicode standard's table 3-7 has it: no overlong form, no surrogate.
    private mutating func multibyte(_ lead: UInt8) throws(JSONSyntaxError) {
        let length: Int
        var second: ClosedRange<UInt8> = 0x80...0xBF
        switch lead {
        case 0xC2...0xDF: length = 2
        case 0xE0: (length, second) = (3, 0xA0...0xBF)
        case 0xED: (length, second) = (3, 0x80...0x9F)
        case 0xE1...0xEF: length = 3
        case 0xF0: (length, second) = (4, 0x90...0xBF)
        case 0xF4: (length, second) = (4, 0x80...0x8F)
        case 0xF1...0xF3: length = 4
        default: throw self.error(.invalidText)
        }
        position += 1
        guard second.contains(try current()) else { throw self.error(.invalidText) }
        position += 1
        for _ in 2..<max(2, length) {
            guard case 0x80...0xBF = try current() else { throw self.error(.invalidText) }
            position += 1
        }
    }

    @inlinable
    package static func nibble(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): return byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): return byte - UInt8(ascii: "a") + 10
        case UInt8(ascii: "A")...UInt8(ascii: "F"): return byte - UInt8(ascii: "A") + 10
        default: return nil
        }
    }
}

/// The names of one object so far. Pairwise up to 16, hashed beyond, so that a body full of names costs linear time.
private struct SeenNames {
    private static let pairwiseLimit = 16
    private var seen: [JSONDocument.Token] = []
    private var hashed: Set<ArraySlice<UInt8>> = []

    mutating func alreadyContains(_ name: JSONDocument.Token, in bytes: [UInt8]) -> Bool {
        if hashed.isEmpty {
            for other in seen where SeenNames.isEqual(name, other, in: bytes) { return true }
            seen.append(name)
            if seen.count > SeenNames.pairwiseLimit {
                hashed = Set(seen.map { SeenNames.text($0, in: bytes) })
            }
            return false
        }
        return !hashed.insert(SeenNames.text(name, in: bytes)).inserted
    }

    private static func isEqual(_ one: JSONDocument.Token, _ other: JSONDocument.Token, in bytes: [UInt8]) -> Bool {
        if one.kind == .text, other.kind == .text {
            guard one.end - one.start == other.end - other.start else { return false }
            for offset in 0..<Int(one.end - one.start) where bytes[Int(one.start) + offset] != bytes[Int(other.start) + offset] {
                return false
            }
            return true
        }
        return text(one, in: bytes) == text(other, in: bytes)
    }

    /// The name's bytes with the escapes decoded: `"a"` and `"\u0061"` are one name.
    static func text(_ name: JSONDocument.Token, in bytes: [UInt8]) -> ArraySlice<UInt8> {
        let slice = bytes[Int(name.start)..<Int(name.end)]
        return name.kind == .text ? slice : JSONDocument.unescape(slice)[...]
    }
}
