/// One cell of a result in PostgreSQL's binary format. A ``PostgresDecodable`` may use it during its `init` only.
public struct PostgresCell {
    /// Nil for `NULL`.
    @usableFromInline let bytes: UnsafeRawBufferPointer?
    /// The object id of the column's type.
    @usableFromInline let type: UInt32

    @inlinable
    init(bytes: UnsafeRawBufferPointer?, type: UInt32) {
        self.bytes = bytes
        self.type = type
    }

    /// Whether the cell is `NULL`.
    @inlinable public var isNull: Bool { bytes == nil }

    /// The bytes of a cell that must not be `NULL`.
    func value() throws(PostgresCellError) -> UnsafeRawBufferPointer {
        guard let bytes else { throw .isNull }
        return bytes
    }
}

/// Why a cell cannot be read as the type that was asked for. Rows name the column beside it, in a `decoding` error.
public enum PostgresCellError: Error, Hashable, Sendable {
    case isNull
    /// The column has another type, or its bytes do not fit the type.
    case mismatch(wanted: String)
    /// The column has the right type, but its value cannot be represented.
    case unreadable(String)
    /// The column has the right type, but the program does not know this value.
    case unknown(value: String, of: String)
}

/// A type that a cell can be read as. `try row.decode(0)` reads the type that its context asks for.
///
/// The server's bytes are not trusted: a length that does not fit the type is an error, never a read past the cell.
public protocol PostgresDecodable {
    /// Reads a cell. The new value must not keep the cell, only copies of its content.
    init(_ cell: PostgresCell) throws(PostgresCellError)
}

extension Optional: PostgresDecodable where Wrapped: PostgresDecodable {
    /// Nil for `NULL`.
    @inlinable
    public init(_ cell: PostgresCell) throws(PostgresCellError) {
        if cell.isNull { self = .none } else { self = .some(try Wrapped(cell)) }
    }
}

extension PostgresDecodable where Self: RawRepresentable, RawValue: PostgresDecodable {
    /// Reads the raw value. A raw value without a case is an error.
    @inlinable
    public init(_ cell: PostgresCell) throws(PostgresCellError) {
        let raw = try RawValue(cell)
        guard let value = Self(rawValue: raw) else { throw .unknown(value: "\(raw)", of: "\(Self.self)") }
        self = value
    }
}

extension Int64: PostgresDecodable {
    /// Reads an `int8`, `int4`, `int2` or `oid`.
    public init(_ cell: PostgresCell) throws(PostgresCellError) {
        let bytes = try cell.value()
        switch (cell.type, bytes.count) {
        case (TypeID.int8, 8): self = Int64(bigEndian: bytes.loadUnaligned(as: Int64.self))
        case (TypeID.int4, 4): self = Int64(Int32(bigEndian: bytes.loadUnaligned(as: Int32.self)))
        case (TypeID.int2, 2): self = Int64(Int16(bigEndian: bytes.loadUnaligned(as: Int16.self)))
        case (TypeID.oid, 4): self = Int64(UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self)))
        default: throw .mismatch(wanted: "an integer")
        }
    }
}

extension Int: PostgresDecodable {
    /// Reads an `int8`, `int4`, `int2` or `oid`.
    @inlinable
    public init(_ cell: PostgresCell) throws(PostgresCellError) {
        // Every supported platform has 64 bits.
        self = Int(truncatingIfNeeded: try Int64(cell))
    }
}

extension Double: PostgresDecodable {
    /// Reads a `float8` or `float4`.
    public init(_ cell: PostgresCell) throws(PostgresCellError) {
        let bytes = try cell.value()
        switch (cell.type, bytes.count) {
        case (TypeID.float8, 8): self = Double(bitPattern: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)))
        case (TypeID.float4, 4): self = Double(Float(bitPattern: UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self))))
        default: throw .mismatch(wanted: "a floating-point number")
        }
    }
}

extension Bool: PostgresDecodable {
    /// Reads a `bool`.
    public init(_ cell: PostgresCell) throws(PostgresCellError) {
        let bytes = try cell.value()
        guard cell.type == TypeID.bool, bytes.count == 1 else { throw .mismatch(wanted: "a boolean") }
        self = bytes[0] != 0
    }
}

extension String: PostgresDecodable {
    /// Reads a text, an enum, a UUID or JSON.
    public init(_ cell: PostgresCell) throws(PostgresCellError) {
        let bytes = try cell.value()
        switch cell.type {
        case TypeID.text, TypeID.varchar, TypeID.bpchar, TypeID.name, TypeID.char, TypeID.json, TypeID.unknown:
            self = String(decoding: bytes, as: UTF8.self)
        case TypeID.jsonb:
            guard bytes.count >= 1, bytes[0] == 1 else { throw .mismatch(wanted: "jsonb of version 1") }
            self = String(decoding: UnsafeRawBufferPointer(rebasing: bytes[1...]), as: UTF8.self)
        case TypeID.uuid:
            guard bytes.count == 16 else { throw .mismatch(wanted: "a UUID") }
            self = Self.uuid(bytes)
        case TypeID.firstUserDefined...:
            // An enum's binary format is its label.
            self = String(decoding: bytes, as: UTF8.self)
        default: throw .mismatch(wanted: "text")
        }
    }

    private static func uuid(_ bytes: UnsafeRawBufferPointer) -> String {
        let digits = Array("0123456789abcdef".utf8)
        var text: [UInt8] = []
        text.reserveCapacity(36)
        for (index, byte) in bytes.enumerated() {
            if index == 4 || index == 6 || index == 8 || index == 10 { text.append(UInt8(ascii: "-")) }
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return String(decoding: text, as: UTF8.self)
    }
}

/// A `timestamptz` or `timestamp`.
public struct PostgresTimestamp: PostgresDecodable, Hashable, Sendable {
    /// Microseconds since the Unix epoch.
    public var microsecondsSinceEpoch: Int64

    /// 2000-01-01 00:00 UTC, PostgreSQL's epoch, in Unix microseconds.
    private static let postgresEpoch: Int64 = 946_684_800_000_000

    /// A time in microseconds since the Unix epoch.
    public init(microsecondsSinceEpoch: Int64) { self.microsecondsSinceEpoch = microsecondsSinceEpoch }

    /// Reads a `timestamptz` or `timestamp`.
    public init(_ cell: PostgresCell) throws(PostgresCellError) {
        let bytes = try cell.value()
        guard cell.type == TypeID.timestamptz || cell.type == TypeID.timestamp, bytes.count == 8 else {
            throw .mismatch(wanted: "a timestamp")
        }
        let raw = Int64(bigEndian: bytes.loadUnaligned(as: Int64.self))
        let (micros, overflow) = raw.addingReportingOverflow(Self.postgresEpoch)
        // The two ends of the 64-bit range are PostgreSQL's `-infinity` and `infinity`, which are no points in time.
        if overflow || raw == .min { throw .unreadable("the timestamp is infinite") }
        microsecondsSinceEpoch = micros
    }

    /// The time as PostgreSQL counts it. A time before PostgreSQL's range becomes a number that the server refuses as out of range.
    static func postgresMicros(_ unixMicros: Int64) -> Int64 {
        let (micros, overflow) = unixMicros.subtractingReportingOverflow(postgresEpoch)
        return overflow ? .min + 1 : micros
    }
}

// MARK: Arrays

/// The element type of a one-dimensional array.
public protocol PostgresArrayElement {
    /// Reads a cell that is not `NULL`.
    static func elements(of cell: PostgresCell) throws(PostgresCellError) -> [Self]
}

extension Array: PostgresDecodable where Element: PostgresArrayElement {
    /// Reads an array, or a `bytea` as an array of bytes.
    @inlinable
    public init(_ cell: PostgresCell) throws(PostgresCellError) { self = try Element.elements(of: cell) }
}

extension UInt8: PostgresArrayElement {
    /// Reads a `bytea`.
    public static func elements(of cell: PostgresCell) throws(PostgresCellError) -> [UInt8] {
        let bytes = try cell.value()
        guard cell.type == TypeID.bytea else { throw .mismatch(wanted: "bytes") }
        return [UInt8](bytes)
    }
}

extension Int64: PostgresArrayElement {
    /// Reads an array of integers without nulls.
    public static func elements(of cell: PostgresCell) throws(PostgresCellError) -> [Int64] {
        let element: UInt32
        switch cell.type {
        case TypeID.int8Array: element = TypeID.int8
        case TypeID.int4Array: element = TypeID.int4
        case TypeID.int2Array: element = TypeID.int2
        default: throw cell.isNull ? .isNull : .mismatch(wanted: "an array of integers")
        }
        var values: [Int64] = []
        try cell.forEachElement { (bytes) throws(PostgresCellError) in
            guard bytes != nil else { throw .unreadable("an element is null") }
            values.append(try Int64(PostgresCell(bytes: bytes, type: element)))
        }
        return values
    }
}

extension Optional: PostgresArrayElement where Wrapped == String {
    /// Reads an array of texts.
    public static func elements(of cell: PostgresCell) throws(PostgresCellError) -> [String?] {
        guard cell.type == TypeID.textArray || cell.type == TypeID.varcharArray else {
            throw cell.isNull ? .isNull : .mismatch(wanted: "an array of texts")
        }
        var values: [String?] = []
        try cell.forEachElement { (bytes) throws(PostgresCellError) in
            values.append(bytes.map { String(decoding: $0, as: UTF8.self) })
        }
        return values
    }
}

extension PostgresCell {
    /// Walks the elements of a one-dimensional or empty array. Bound: the cell's own bytes, of which each element takes at least four.
    fileprivate func forEachElement(
        _ body: (UnsafeRawBufferPointer?) throws(PostgresCellError) -> Void
    ) throws(PostgresCellError) {
        let bytes = try value()
        let malformed = PostgresCellError.unreadable("it is not a one-dimensional array")
        func word(at offset: Int) throws(PostgresCellError) -> Int {
            guard offset + 4 <= bytes.count else { throw malformed }
            return Int(Int32(bigEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Int32.self)))
        }
        let dimensions = try word(at: 0)
        if dimensions == 0 { return }
        guard dimensions == 1 else { throw malformed }
        let count = try word(at: 12)
        guard count >= 0 else { throw malformed }
        var offset = 20
        for _ in 0..<count {
            let length = try word(at: offset)
            offset += 4
            if length < 0 {
                try body(nil)
                continue
            }
            guard offset + length <= bytes.count else { throw malformed }
            try body(UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + length]))
            offset += length
        }
    }
}

// MARK: Errors

extension PostgresError {
    /// A `decoding` error that names the column and its type.
    @usableFromInline
    init(_ error: PostgresCellError, column: Int, name: String, type: UInt32) {
        let what = "column \(column) ('\(name)', \(TypeID.word(for: type)))"
        let message =
            switch error {
            case .isNull: "\(what) is null"
            case .mismatch(let wanted): "\(what) was asked for as \(wanted)"
            case .unreadable(let why): "\(what): \(why)"
            case .unknown(let value, let kind): "\(what) holds '\(value)', which is no \(kind)"
            }
        self.init(code: .decoding, message: message)
    }

    @usableFromInline
    init(noColumn column: Int, of columns: Int) {
        self.init(code: .decoding, message: "there is no column \(column), the result has \(columns)")
    }
}
