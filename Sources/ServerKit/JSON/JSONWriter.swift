import NIOCore

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
        self.bytes = []
        self.bytes.reserveCapacity(capacity)
    }

    /// What was written so far, as a buffer.
    public var byteBuffer: ByteBuffer { ByteBuffer(bytes: self.bytes) }

    /// What was written so far, as text.
    public var string: String { String(decoding: self.bytes, as: UTF8.self) }

    private mutating func separate() {
        if self.needsComma { self.bytes.append(UInt8(ascii: ",")) }
        self.needsComma = true
    }

    // MARK: Objects and arrays

    /// An object as a value.
    public mutating func object(_ members: (inout JSONWriter) throws -> Void) rethrows {
        self.separate()
        self.bytes.append(UInt8(ascii: "{"))
        self.needsComma = false
        try members(&self)
        self.bytes.append(UInt8(ascii: "}"))
        self.needsComma = true
    }

    /// An array as a value.
    public mutating func array<Elements: Sequence>(
        _ elements: Elements,
        _ write: (inout JSONWriter, Elements.Element) throws -> Void
    ) rethrows {
        self.separate()
        self.bytes.append(UInt8(ascii: "["))
        self.needsComma = false
        for element in elements { try write(&self, element) }
        self.bytes.append(UInt8(ascii: "]"))
        self.needsComma = true
    }

    /// A member's name; the next value written is its value.
    public mutating func name(_ name: StaticString) {
        self.separate()
        self.bytes.append(UInt8(ascii: "\""))
        // A name in the source text is plain: it needs no escapes.
        name.withUTF8Buffer { self.bytes.append(contentsOf: $0) }
        self.bytes.append(UInt8(ascii: "\""))
        self.bytes.append(UInt8(ascii: ":"))
        self.needsComma = false
    }

    /// A member's name known at run time only; the next value written is its value.
    public mutating func name(_ name: String) {
        self.separate()
        self.quote(name)
        self.bytes.append(UInt8(ascii: ":"))
        self.needsComma = false
    }

    // MARK: Values

    /// A number.
    public mutating func value(_ value: some FixedWidthInteger) {
        self.separate()
        self.digits(value)
    }

    /// A number; `null` if it is none or infinite.
    public mutating func value(_ value: Double) {
        self.separate()
        self.bytes.append(contentsOf: value.isFinite ? Array(value.description.utf8) : Array("null".utf8))
    }

    /// `true` or `false`.
    public mutating func value(_ value: Bool) {
        self.separate()
        self.bytes.append(contentsOf: (value ? "true" : "false").utf8)
    }

    /// A text.
    public mutating func value(_ value: String) {
        self.separate()
        self.quote(value)
    }

    /// `null`
    public mutating func null() {
        self.separate()
        self.bytes.append(contentsOf: "null".utf8)
    }

    /// A time as RFC 3339 in UTC, such as `2026-01-31T09:30:00.123456Z`.
    public mutating func value(_ value: Timestamp) {
        self.separate()
        self.bytes.append(UInt8(ascii: "\""))
        value.write(to: &self.bytes)
        self.bytes.append(UInt8(ascii: "\""))
    }

    /// A value made before.
    public mutating func value(_ value: JSONValue) {
        switch value {
        case .null: self.null()
        case .bool(let bool): self.value(bool)
        case .int(let int): self.value(int)
        case .double(let double): self.value(double)
        case .string(let string): self.value(string)
        case .array(let elements): self.array(elements) { $0.value($1) }
        case .object(let members):
            self.object { writer in
                for member in members {
                    writer.name(member.name)
                    writer.value(member.value)
                }
            }
        }
    }

    /// JSON written elsewhere, as it is.
    public mutating func raw(_ json: some Sequence<UInt8>) {
        self.separate()
        self.bytes.append(contentsOf: json)
    }

    // MARK: Members

    /// `"name": number`
    public mutating func member(_ name: StaticString, _ value: some FixedWidthInteger) {
        self.name(name)
        self.value(value)
    }

    /// `"name": number` or `"name": null`
    public mutating func member<Value: FixedWidthInteger>(_ name: StaticString, _ value: Value?) {
        self.name(name)
        if let value { self.value(value) } else { self.null() }
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
        if let value { self.value(value) } else { self.null() }
    }

    /// `"name": "2026-01-31T09:30:00Z"`
    public mutating func member(_ name: StaticString, _ value: Timestamp) {
        self.name(name)
        self.value(value)
    }

    /// `"name": "2026-01-31T09:30:00Z"` or `"name": null`
    public mutating func member(_ name: StaticString, _ value: Timestamp?) {
        self.name(name)
        if let value { self.value(value) } else { self.null() }
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

    private mutating func digits<Value: FixedWidthInteger>(_ value: Value) {
        if value == 0 {
            self.bytes.append(UInt8(ascii: "0"))
            return
        }
        if value < 0 { self.bytes.append(UInt8(ascii: "-")) }
        let start = self.bytes.count
        var rest = value.magnitude
        while rest > 0 {
            let (quotient, digit) = rest.quotientAndRemainder(dividingBy: 10)
            self.bytes.append(UInt8(ascii: "0") + UInt8(digit))
            rest = quotient
        }
        self.bytes[start...].reverse()
    }

    private static let hexDigits = Array("0123456789abcdef".utf8)

    private mutating func quote(_ text: String) {
        self.bytes.append(UInt8(ascii: "\""))
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "\""): self.bytes.append(contentsOf: [0x5C, 0x22])
            case UInt8(ascii: "\\"): self.bytes.append(contentsOf: [0x5C, 0x5C])
            case 0x0A: self.bytes.append(contentsOf: [0x5C, UInt8(ascii: "n")])
            case 0x0D: self.bytes.append(contentsOf: [0x5C, UInt8(ascii: "r")])
            case 0x09: self.bytes.append(contentsOf: [0x5C, UInt8(ascii: "t")])
            case 0..<0x20, 0x7F:
                self.bytes.append(contentsOf: "\\u00".utf8)
                self.bytes.append(JSONWriter.hexDigits[Int(byte >> 4)])
                self.bytes.append(JSONWriter.hexDigits[Int(byte & 0xF)])
            default: self.bytes.append(byte)
            }
        }
        self.bytes.append(UInt8(ascii: "\""))
    }
}
