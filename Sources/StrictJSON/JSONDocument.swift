// Strict RFC 8259, in one pass over the bytes.
//
// Invariant: a document exists only if the whole input is one well-formed JSON text: valid UTF-8, no duplicate name in any
// object, at most 32 levels of arrays and objects, no lone surrogate. `tokens` is the values in the order of the input
// (an object's members as name, value, name, value); `next` of a token is the index just behind its value, so a value is
// skipped in one step. Strings are decoded only when somebody asks for them.
//
// Bounds: recursion 32 deep; time linear in the input (duplicates: compared pairwise up to 16 members, hashed beyond);
// memory one token (16 bytes) a value. The caller bounds the input; 64 KiB for a request, 4 GiB at most.
//
// Why not Foundation's decoder: it keeps the last of two equal names, and reads 1e3 and 1.0 as integers. Where units are sold, a body that can be understood
// in two ways must be refused.

/// Why bytes are not a JSON text.
public struct JSONSyntaxError: Error, Equatable, Sendable {
    /// The kind of fault.
    public enum Reason: String, Sendable {
        /// The text ends in the middle of a value.
        case unexpectedEnd
        /// A byte that no rule allows here.
        case unexpectedByte
        /// Bytes that are not UTF-8, or an escape that names half a surrogate pair.
        case invalidText
        /// The same name twice in one object.
        case duplicateName
        /// More than 32 levels.
        case tooDeep
        /// Something behind the value.
        case trailingBytes
        /// Longer than the parser takes.
        case tooLong
    }
    /// The kind of fault.
    public let reason: Reason
    /// Where it was noticed, in bytes from the start.
    public let offset: Int
    /// The name that an object has twice, with ``Reason/duplicateName``.
    public var name: String?
}

/// A parsed, well-formed JSON text. See the top of the file for what that promises.
public struct JSONDocument: Sendable {
    package enum Kind: UInt8, Sendable {
        case null, yes, no, whole, number, text, escapedText, array, object
    }

    package struct Token: Sendable {
        package var kind: Kind
        /// The first byte of the value. A string's value begins behind its opening quote.
        var start: UInt32
        /// The byte behind the value. Behind a string's value stands its closing quote.
        var end: UInt32
        /// The index of the first token that is not part of this value.
        package var next: UInt32
    }

    /// The deepest nesting of arrays and objects that is accepted.
    public static let maximumDepth = 32

    let bytes: [UInt8]
    package let tokens: [Token]

    /// Parses a whole JSON text.
    /// - Throws: ``JSONSyntaxError``
    public init(_ bytes: [UInt8]) throws(JSONSyntaxError) {
        guard bytes.count < Int(UInt32.max) else { throw JSONSyntaxError(reason: .tooLong, offset: 0) }
        var parser = JSONParser(bytes: bytes)
        try parser.parse()
        self.bytes = bytes
        tokens = parser.tokens
    }

    /// Parses a whole JSON text out of any contiguous bytes (`ByteBufferView`, `UnsafeRawBufferPointer`, …), which are copied once.
    /// - Throws: ``JSONSyntaxError``
    public init(_ bytes: some Sequence<UInt8>) throws(JSONSyntaxError) {
        try self.init(Array(bytes))
    }

    /// The whole document as a value.
    public var value: JSONValue { self.value(at: 0) }

    package func value(at index: Int) -> JSONValue {
        let token = tokens[index]
        switch token.kind {
        case .null: return .null
        case .yes: return .bool(true)
        case .no: return .bool(false)
        case .whole:
            if let int = int64(at: index) { return .int(int) }
            return .double(double(at: index))
        case .number: return .double(double(at: index))
        case .text, .escapedText: return .string(string(at: index))
        case .array:
            var elements: [JSONValue] = []
            var child = index + 1
            while child < Int(token.next) {
                elements.append(self.value(at: child))
                child = Int(tokens[child].next)
            }
            return .array(elements)
        case .object:
            var members: [JSONMember] = []
            var child = index + 1
            while child < Int(token.next) {
                members.append(JSONMember(string(at: child), self.value(at: child + 1)))
                child = Int(tokens[child + 1].next)
            }
            return .object(members)
        }
    }

    /// The integer at a token of kind `.whole`, nil if it does not fit 64 bits.
    package func int64(at index: Int) -> Int64? {
        let token = tokens[index]
        var position = Int(token.start)
        let negative = bytes[position] == UInt8(ascii: "-")
        if negative { position += 1 }
        var value: Int64 = 0
        while position < Int(token.end) {
            let digit = Int64(bytes[position] - UInt8(ascii: "0"))
            let (scaled, overflow) = value.multipliedReportingOverflow(by: 10)
            // The number is built below zero, because the smallest Int64 is one further from zero than the largest.
            let (sum, overflow2) = negative ? scaled.subtractingReportingOverflow(digit) : scaled.addingReportingOverflow(digit)
            if overflow || overflow2 { return nil }
            value = sum
            position += 1
        }
        return value
    }

    private func double(at index: Int) -> Double {
        let token = tokens[index]
        // The grammar was checked; what is too large for a Double becomes infinite, which no caller uses as a number.
        return Double(String(decoding: bytes[Int(token.start)..<Int(token.end)], as: UTF8.self)) ?? .infinity
    }

    /// The string at a token of kind `.text` or `.escapedText`.
    package func string(at index: Int) -> String {
        let token = tokens[index]
        let slice = bytes[Int(token.start)..<Int(token.end)]
        if token.kind == .text { return String(decoding: slice, as: UTF8.self) }
        return String(decoding: JSONDocument.unescape(slice), as: UTF8.self)
    }

    /// Whether the string at a token is this text, without making a String when it has no escapes.
    package func isText(at index: Int, _ name: StaticString) -> Bool {
        let token = tokens[index]
        if token.kind == .escapedText { return string(at: index).utf8.elementsEqual(name.description.utf8) }
        let start = Int(token.start)
        let count = Int(token.end) - start
        return name.withUTF8Buffer { name in
            guard name.count == count else { return false }
            for offset in 0..<count where bytes[start + offset] != name[offset] { return false }
            return true
        }
    }

    /// The token of the value of a member of the object at a token; nil if the object has no such member. One pass over the members.
    package func member(_ name: StaticString, of object: Int) -> Int? {
        let end = Int(tokens[object].next)
        var child = object + 1
        while child < end {
            if isText(at: child, name) { return child + 1 }
            child = Int(tokens[child + 1].next)
        }
        return nil
    }

    /// Decodes the escapes of a string that the parser has accepted.
    static func unescape(_ slice: ArraySlice<UInt8>) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(slice.count)
        var position = slice.startIndex
        while position < slice.endIndex {
            let byte = slice[position]
            guard byte == UInt8(ascii: "\\") else {
                result.append(byte)
                position += 1
                continue
            }
            let escape = slice[position + 1]
            position += 2
            switch escape {
            case UInt8(ascii: "b"): result.append(0x08)
            case UInt8(ascii: "f"): result.append(0x0C)
            case UInt8(ascii: "n"): result.append(0x0A)
            case UInt8(ascii: "r"): result.append(0x0D)
            case UInt8(ascii: "t"): result.append(0x09)
            case UInt8(ascii: "u"):
                var scalar = hexadecimal(slice[position..<position + 4])
                position += 4
                if scalar >= 0xD800, scalar < 0xDC00 {
                    // The parser has seen the second half: `\uXXXX` right behind.
                    let low = hexadecimal(slice[position + 2..<position + 6])
                    position += 6
                    scalar = 0x10000 + (scalar - 0xD800) << 10 + (low - 0xDC00)
                }
                if let scalar = Unicode.Scalar(scalar) { result.append(contentsOf: UTF8.encode(scalar) ?? .init()) }
            default: result.append(escape)
            }
        }
        return result
    }

    static func hexadecimal(_ digits: ArraySlice<UInt8>) -> UInt32 {
        digits.reduce(0) { $0 << 4 | UInt32(JSONParser.nibble($1) ?? 0) }
    }
}
