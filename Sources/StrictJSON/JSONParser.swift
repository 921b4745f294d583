/// One pass over the bytes of a JSON text that checks it and notes where its values are. The bounds are ``JSONDocument``'s.
package struct JSONParser {
    private let bytes: [UInt8]
    private var position = 0
    private(set) var tokens: [JSONDocument.Token] = []

    init(bytes: [UInt8]) {
        self.bytes = bytes
        self.tokens.reserveCapacity(min(16, bytes.count / 2 + 1))
    }

    mutating func parse() throws(JSONSyntaxError) {
        self.skipWhitespace()
        try self.value(depth: 0)
        self.skipWhitespace()
        if self.position < self.bytes.count { throw self.error(.trailingBytes) }
    }

    private func error(_ reason: JSONSyntaxError.Reason) -> JSONSyntaxError {
        JSONSyntaxError(reason: reason, offset: self.position)
    }

    /// The byte at the position, or the error for a text that stops here.
    private func current() throws(JSONSyntaxError) -> UInt8 {
        guard self.position < self.bytes.count else { throw self.error(.unexpectedEnd) }
        return self.bytes[self.position]
    }

    private mutating func skipWhitespace() {
        while self.position < self.bytes.count {
            switch self.bytes[self.position] {
            case 0x20, 0x09, 0x0A, 0x0D: self.position += 1
            default: return
            }
        }
    }

    private mutating func append(_ kind: JSONDocument.Kind, from start: Int, to end: Int) {
        self.tokens.append(
            .init(kind: kind, start: UInt32(start), end: UInt32(end), next: UInt32(self.tokens.count + 1))
        )
    }

    private mutating func value(depth: Int) throws(JSONSyntaxError) {
        switch try self.current() {
        case UInt8(ascii: "{"): try self.object(depth: depth + 1)
        case UInt8(ascii: "["): try self.array(depth: depth + 1)
        case UInt8(ascii: "\""): try self.string()
        case UInt8(ascii: "t"): try self.word("true", .yes)
        case UInt8(ascii: "f"): try self.word("false", .no)
        case UInt8(ascii: "n"): try self.word("null", .null)
        case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): try self.number()
        default: throw self.error(.unexpectedByte)
        }
    }

    private mutating func word(_ word: StaticString, _ kind: JSONDocument.Kind) throws(JSONSyntaxError) {
        let start = self.position
        for offset in 0..<word.utf8CodeUnitCount {
            let expected = word.withUTF8Buffer { $0[offset] }
            guard try self.current() == expected else { throw self.error(.unexpectedByte) }
            self.position += 1
        }
        self.append(kind, from: start, to: self.position)
    }

    private mutating func digits() throws(JSONSyntaxError) {
        guard case UInt8(ascii: "0")...UInt8(ascii: "9") = try self.current() else { throw self.error(.unexpectedByte) }
        while self.position < self.bytes.count, case UInt8(ascii: "0")...UInt8(ascii: "9") = self.bytes[self.position] {
            self.position += 1
        }
    }

    private mutating func number() throws(JSONSyntaxError) {
        let start = self.position
        var kind = JSONDocument.Kind.whole
        if try self.current() == UInt8(ascii: "-") { self.position += 1 }
        if try self.current() == UInt8(ascii: "0") {
            self.position += 1
        } else {
            try self.digits()
        }
        if self.position < self.bytes.count, self.bytes[self.position] == UInt8(ascii: ".") {
            kind = .number
            self.position += 1
            try self.digits()
        }
        if self.position < self.bytes.count, self.bytes[self.position] | 0x20 == UInt8(ascii: "e") {
            kind = .number
            self.position += 1
            let sign = try self.current()
            if sign == UInt8(ascii: "+") || sign == UInt8(ascii: "-") { self.position += 1 }
            try self.digits()
        }
        self.append(kind, from: start, to: self.position)
    }

    private mutating func array(depth: Int) throws(JSONSyntaxError) {
        guard depth <= JSONDocument.maximumDepth else { throw self.error(.tooDeep) }
        let index = self.tokens.count
        self.append(.array, from: self.position, to: self.position)
        self.position += 1
        self.skipWhitespace()
        if try self.current() == UInt8(ascii: "]") {
            self.position += 1
        } else {
            elements: while true {
                self.skipWhitespace()
                try self.value(depth: depth)
                self.skipWhitespace()
                switch try self.current() {
                case UInt8(ascii: ","): self.position += 1
                case UInt8(ascii: "]"):
                    self.position += 1
                    break elements
                default: throw self.error(.unexpectedByte)
                }
            }
        }
        self.close(index)
    }

    private mutating func object(depth: Int) throws(JSONSyntaxError) {
        guard depth <= JSONDocument.maximumDepth else { throw self.error(.tooDeep) }
        let index = self.tokens.count
        self.append(.object, from: self.position, to: self.position)
        self.position += 1
        self.skipWhitespace()
        if try self.current() == UInt8(ascii: "}") {
            self.position += 1
        } else {
            var names = NameSet()
            members: while true {
                self.skipWhitespace()
                guard try self.current() == UInt8(ascii: "\"") else { throw self.error(.unexpectedByte) }
                let name = self.tokens.count
                try self.string()
                if names.alreadyContains(self.tokens[name], in: self.bytes) {
                    throw JSONSyntaxError(
                        reason: .duplicateName,
                        offset: self.position,
                        name: String(decoding: NameSet.text(self.tokens[name], in: self.bytes), as: UTF8.self)
                    )
                }
                self.skipWhitespace()
                guard try self.current() == UInt8(ascii: ":") else { throw self.error(.unexpectedByte) }
                self.position += 1
                self.skipWhitespace()
                try self.value(depth: depth)
                self.skipWhitespace()
                switch try self.current() {
                case UInt8(ascii: ","): self.position += 1
                case UInt8(ascii: "}"):
                    self.position += 1
                    break members
                default: throw self.error(.unexpectedByte)
                }
            }
        }
        self.close(index)
    }

    private mutating func close(_ index: Int) {
        self.tokens[index].end = UInt32(self.position)
        self.tokens[index].next = UInt32(self.tokens.count)
    }

    private mutating func string() throws(JSONSyntaxError) {
        self.position += 1
        let start = self.position
        var kind = JSONDocument.Kind.text
        while true {
            let byte = try self.current()
            switch byte {
            case UInt8(ascii: "\""):
                self.append(kind, from: start, to: self.position)
                self.position += 1
                return
            case UInt8(ascii: "\\"):
                kind = .escapedText
                self.position += 1
                try self.escape()
            case 0..<0x20: throw self.error(.unexpectedByte)
            case 0x20..<0x80: self.position += 1
            default: try self.multibyte(byte)
            }
        }
    }

    private mutating func escape() throws(JSONSyntaxError) {
        switch try self.current() {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: "b"), UInt8(ascii: "f"), UInt8(ascii: "n"),
            UInt8(ascii: "r"), UInt8(ascii: "t"):
            self.position += 1
        case UInt8(ascii: "u"):
            self.position += 1
            let unit = try self.codeUnit()
            if unit >= 0xDC00, unit < 0xE000 { throw self.error(.invalidText) }
            guard unit >= 0xD800, unit < 0xDC00 else { return }
            guard try self.current() == UInt8(ascii: "\\") else { throw self.error(.invalidText) }
            self.position += 1
            guard try self.current() == UInt8(ascii: "u") else { throw self.error(.invalidText) }
            self.position += 1
            let low = try self.codeUnit()
            guard low >= 0xDC00, low < 0xE000 else { throw self.error(.invalidText) }
        default: throw self.error(.unexpectedByte)
        }
    }

    private mutating func codeUnit() throws(JSONSyntaxError) -> UInt32 {
        var unit: UInt32 = 0
        for _ in 0..<4 {
            guard let nibble = JSONParser.nibble(try self.current()) else { throw self.error(.unexpectedByte) }
            unit = unit << 4 | UInt32(nibble)
            self.position += 1
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
        self.position += 1
        guard second.contains(try self.current()) else { throw self.error(.invalidText) }
        self.position += 1
        for _ in 2..<max(2, length) {
            guard case 0x80...0xBF = try self.current() else { throw self.error(.invalidText) }
            self.position += 1
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
private struct NameSet {
    private static let pairwiseLimit = 16
    private var seen: [JSONDocument.Token] = []
    private var hashed: Set<ArraySlice<UInt8>> = []

    mutating func alreadyContains(_ name: JSONDocument.Token, in bytes: [UInt8]) -> Bool {
        if self.hashed.isEmpty {
            for other in self.seen where NameSet.isEqual(name, other, in: bytes) { return true }
            self.seen.append(name)
            if self.seen.count > NameSet.pairwiseLimit {
                self.hashed = Set(self.seen.map { NameSet.text($0, in: bytes) })
            }
            return false
        }
        return !self.hashed.insert(NameSet.text(name, in: bytes)).inserted
    }

    private static func isEqual(_ one: JSONDocument.Token, _ other: JSONDocument.Token, in bytes: [UInt8]) -> Bool {
        if one.kind == .text, other.kind == .text {
            guard one.end - one.start == other.end - other.start else { return false }
            for offset in 0..<Int(one.end - one.start) where bytes[Int(one.start) + offset] != bytes[Int(other.start) + offset] {
                return false
            }
            return true
        }
        return self.text(one, in: bytes) == self.text(other, in: bytes)
    }

    /// The name's bytes with the escapes decoded: `"a"` and `"\u0061"` are one name.
    static func text(_ name: JSONDocument.Token, in bytes: [UInt8]) -> ArraySlice<UInt8> {
        let slice = bytes[Int(name.start)..<Int(name.end)]
        return name.kind == .text ? slice : JSONDocument.unescape(slice)[...]
    }
}
