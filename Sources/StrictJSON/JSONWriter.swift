public import NIOCore

/// Appends JSON to a byte array: the caller says what comes, the writer puts the commas and escapes.
///
/// ```swift
/// var json = JSONWriter()
/// json.object {
///     $0.member("id", 7)
///     $0.member("name", name)
///     $0.array("tags", tags) { $0.value($1) }
/// }
/// let body = json.byteBuffer
/// ```
/// The result is well-formed as long as values are written where values may stand; nothing checks that.
public struct JSONWriter: Sendable {
    /// What was written so far.
    public private(set) var bytes: [UInt8]
    private var needsComma = false

    /// Makes an empty writer.
    public init(capacity: Int = 256) {
        bytes = []
        bytes.reserveCapacity(capacity)
    }

    /// What was written so far, as a buffer.
    public var byteBuffer: ByteBuffer { ByteBuffer(bytes: bytes) }

    /// What was written so far, as text.
    public var string: String { String(decoding: bytes, as: UTF8.self) }

    private mutating func separate() {
        if needsComma { bytes.append(UInt8(ascii: ",")) }
        needsComma = true
    }

    /// Writes the byte that begins an object or an array, as a value.
    @usableFromInline mutating func begin(_ byte: UInt8) {
        separate()
        bytes.append(byte)
        needsComma = false
    }

    /// Writes the byte that ends an object or an array.
    @usableFromInline mutating func end(_ byte: UInt8) {
        bytes.append(byte)
        needsComma = true
    }

    // MARK: Objects and arrays

    /// An object as a value.
    @inlinable
    public mutating func object(_ members: (inout JSONWriter) throws -> Void) rethrows {
        begin(UInt8(ascii: "{"))
        try members(&self)
        end(UInt8(ascii: "}"))
    }

    /// An array as a value.
    @inlinable
    public mutating func array<Elements: Sequence>(
        _ elements: Elements,
        _ write: (inout JSONWriter, Elements.Element) throws -> Void
    ) rethrows {
        begin(UInt8(ascii: "["))
        for element in elements { try write(&self, element) }
        end(UInt8(ascii: "]"))
    }

    /// A member's name; the next value written is its value.
    public mutating func name(_ name: StaticString) {
        separate()
        bytes.append(UInt8(ascii: "\""))
        // A name in the source text is plain: it needs no escapes.
        name.withUTF8Buffer { bytes.append(contentsOf: $0) }
        bytes.append(UInt8(ascii: "\""))
        bytes.append(UInt8(ascii: ":"))
        needsComma = false
    }

    /// A member's name that is only known at run time, and may need escapes; the next value written is its value.
    public mutating func name(_ name: String) {
        separate()
        quote(name)
        bytes.append(UInt8(ascii: ":"))
        needsComma = false
    }

    // MARK: Values

    /// A number of at most 64 bits.
    @inlinable
    public mutating func value(_ value: some FixedWidthInteger) {
        number(isNegative: value < 0, magnitude: UInt64(value.magnitude))
    }

    /// A number. One that is infinite or not a number is written as `null`, since JSON has no word for it.
    public mutating func value(_ value: Double) {
        separate()
        bytes.append(contentsOf: value.isFinite ? Array(value.description.utf8) : Array("null".utf8))
    }

    /// `true` or `false`.
    public mutating func value(_ value: Bool) {
        separate()
        bytes.append(contentsOf: (value ? "true" : "false").utf8)
    }

    /// A text.
    public mutating func value(_ value: String) {
        separate()
        quote(value)
    }

    /// `null`
    public mutating func null() {
        separate()
        bytes.append(contentsOf: "null".utf8)
    }

    /// A time as RFC 3339 in UTC, such as `2026-01-31T09:30:00.123456Z`.
    public mutating func value(_ value: Timestamp) {
        separate()
        bytes.append(UInt8(ascii: "\""))
        value.write(to: &bytes)
        bytes.append(UInt8(ascii: "\""))
    }

    /// A value made before.
    public mutating func value(_ value: JSONValue) {
        switch value {
        case .null: null()
        case .bool(let bool): self.value(bool)
        case .int(let int): self.value(int)
        case .double(let double): self.value(double)
        case .string(let string): self.value(string)
        case .array(let elements): array(elements) { $0.value($1) }
        case .object(let members):
            object { writer in
                for member in members {
                    writer.name(member.name)
                    writer.value(member.value)
                }
            }
        }
    }

    /// JSON written elsewhere, as it is.
    public mutating func raw(_ json: some Sequence<UInt8>) {
        separate()
        bytes.append(contentsOf: json)
    }

    // MARK: Members

    /// `"name": number`
    @inlinable
    public mutating func member(_ name: StaticString, _ value: some FixedWidthInteger) {
        self.name(name)
        self.value(value)
    }

    /// `"name": number` or `"name": null`
    @inlinable
    public mutating func member<Value: FixedWidthInteger>(_ name: StaticString, _ value: Value?) {
        self.name(name)
        if let value { self.value(value) } else { null() }
    }

    /// `"name": number`
    public mutating func member(_ name: StaticString, _ value: Double) {
        self.name(name)
        self.value(value)
    }

    /// `"name": true`
    public mutating func member(_ name: StaticString, _ value: Bool) {
        self.name(name)
        self.value(value)
    }

    /// `"name": "text"`
    public mutating func member(_ name: StaticString, _ value: String) {
        self.name(name)
        self.value(value)
    }

    /// `"name": "text"` or `"name": null`
    public mutating func member(_ name: StaticString, _ value: String?) {
        self.name(name)
        if let value { self.value(value) } else { null() }
    }

    /// `"name": "2026-01-31T09:30:00Z"`
    public mutating func member(_ name: StaticString, _ value: Timestamp) {
        self.name(name)
        self.value(value)
    }

    /// `"name": "2026-01-31T09:30:00Z"` or `"name": null`
    public mutating func member(_ name: StaticString, _ value: Timestamp?) {
        self.name(name)
        if let value { self.value(value) } else { null() }
    }

    /// `"name": value`
    public mutating func member(_ name: StaticString, _ value: JSONValue) {
        self.name(name)
        self.value(value)
    }

    /// `"name": {…}`
    public mutating func object(_ name: StaticString, _ members: (inout JSONWriter) throws -> Void) rethrows {
        self.name(name)
        try self.object(members)
    }

    /// `"name": […]`
    public mutating func array<Elements: Sequence>(
        _ name: StaticString,
        _ elements: Elements,
        _ write: (inout JSONWriter, Elements.Element) throws -> Void
    ) rethrows {
        self.name(name)
        try self.array(elements, write)
    }

    // MARK: Bytes

    // Not generic: the callers' modules turn their numbers into these.
    @usableFromInline mutating func number(isNegative: Bool, magnitude: UInt64) {
        separate()
        if isNegative { bytes.append(UInt8(ascii: "-")) }
        // 2^64 has 20 digits.
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 20) { digits in
            var rest = magnitude
            var first = digits.count
            repeat {
                let (quotient, digit) = rest.quotientAndRemainder(dividingBy: 10)
                first -= 1
                digits[first] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: digit)
                rest = quotient
            } while rest > 0
            bytes.append(contentsOf: UnsafeMutableBufferPointer(rebasing: digits[first...]))
        }
    }

    private static let hexDigits = Array("0123456789abcdef".utf8)

    private mutating func quote(_ text: String) {
        bytes.append(UInt8(ascii: "\""))
        var text = text
        text.withUTF8 { text in
            // Runs of bytes that stand for themselves are appended whole.
            var begin = 0
            for (index, byte) in text.enumerated() where JSONWriter.isEscaped(byte) {
                bytes.append(contentsOf: UnsafeBufferPointer(rebasing: text[begin..<index]))
                escape(byte)
                begin = index + 1
            }
            bytes.append(contentsOf: UnsafeBufferPointer(rebasing: text[begin...]))
        }
        bytes.append(UInt8(ascii: "\""))
    }

    private static func isEscaped(_ byte: UInt8) -> Bool {
        byte < 0x20 || byte == 0x7F || byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\")
    }

    private mutating func escape(_ byte: UInt8) {
        switch byte {
        case UInt8(ascii: "\""): bytes.append(contentsOf: [0x5C, 0x22])
        case UInt8(ascii: "\\"): bytes.append(contentsOf: [0x5C, 0x5C])
        case 0x0A: bytes.append(contentsOf: [0x5C, UInt8(ascii: "n")])
        case 0x0D: bytes.append(contentsOf: [0x5C, UInt8(ascii: "r")])
        case 0x09: bytes.append(contentsOf: [0x5C, UInt8(ascii: "t")])
        default:
            bytes.append(contentsOf: "\\u00".utf8)
            bytes.append(JSONWriter.hexDigits[Int(byte >> 4)])
            bytes.append(JSONWriter.hexDigits[Int(byte & 0xF)])
        }
    }
}
