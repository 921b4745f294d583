/// Reads one cell in PostgreSQL's binary format.
///
/// The server's bytes are not trusted: a length that does not fit the type is a `decoding` error, never a read past the cell.
enum BinaryFormat {
    /// 2000-01-01 00:00 UTC, PostgreSQL's epoch, in Unix microseconds.
    static let postgresEpochMicros: Int64 = 946_684_800_000_000

    /// Unix microseconds as PostgreSQL counts them. What is too early for that becomes a number that the server refuses as out of range.
    static func postgresMicros(_ unixMicros: Int64) -> Int64 {
        let (micros, overflow) = unixMicros.subtractingReportingOverflow(postgresEpochMicros)
        return overflow ? .min + 1 : micros
    }

    static func int(_ bytes: UnsafeRawBufferPointer, type: UInt32, column: Int) throws(PostgresError) -> Int64 {
        switch (type, bytes.count) {
        case (TypeID.int8, 8): return Int64(bigEndian: bytes.loadUnaligned(as: Int64.self))
        case (TypeID.int4, 4): return Int64(Int32(bigEndian: bytes.loadUnaligned(as: Int32.self)))
        case (TypeID.int2, 2): return Int64(Int16(bigEndian: bytes.loadUnaligned(as: Int16.self)))
        case (TypeID.oid, 4): return Int64(UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self)))
        default: throw mismatch(column, type, "an integer")
        }
    }

    static func double(_ bytes: UnsafeRawBufferPointer, type: UInt32, column: Int) throws(PostgresError) -> Double {
        switch (type, bytes.count) {
        case (TypeID.float8, 8): return Double(bitPattern: UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)))
        case (TypeID.float4, 4): return Double(Float(bitPattern: UInt32(bigEndian: bytes.loadUnaligned(as: UInt32.self))))
        default: throw mismatch(column, type, "a floating-point number")
        }
    }

    static func bool(_ bytes: UnsafeRawBufferPointer, type: UInt32, column: Int) throws(PostgresError) -> Bool {
        guard type == TypeID.bool, bytes.count == 1 else { throw mismatch(column, type, "a boolean") }
        return bytes[0] != 0
    }

    static func timestampMicros(_ bytes: UnsafeRawBufferPointer, type: UInt32, column: Int) throws(PostgresError) -> Int64 {
        guard type == TypeID.timestamptz || type == TypeID.timestamp, bytes.count == 8 else { throw mismatch(column, type, "a timestamp") }
        let raw = Int64(bigEndian: bytes.loadUnaligned(as: Int64.self))
        let (micros, overflow) = raw.addingReportingOverflow(postgresEpochMicros)
        // The two ends of 64 bits are PostgreSQL's `-infinity` and `infinity`: no time that anybody could reckon with.
        if overflow || raw == .min { throw PostgresError(code: .decoding, message: "column \(column): the timestamp is infinite") }
        return micros
    }

    static func text(_ bytes: UnsafeRawBufferPointer, type: UInt32, column: Int) throws(PostgresError) -> String {
        switch type {
        case TypeID.text, TypeID.varchar, TypeID.bpchar, TypeID.name, TypeID.char, TypeID.json, TypeID.unknown:
            return String(decoding: bytes, as: UTF8.self)
        case TypeID.jsonb:
            guard bytes.count >= 1, bytes[0] == 1 else { throw mismatch(column, type, "jsonb of version 1") }
            return String(decoding: UnsafeRawBufferPointer(rebasing: bytes[1...]), as: UTF8.self)
        case TypeID.uuid:
            guard bytes.count == 16 else { throw mismatch(column, type, "a UUID") }
            return uuid(bytes)
        case TypeID.firstUserDefined...:
            // An enum's binary format is its label.
            return String(decoding: bytes, as: UTF8.self)
        default:
            throw mismatch(column, type, "text")
        }
    }

    static func bytes(_ bytes: UnsafeRawBufferPointer, type: UInt32, column: Int) throws(PostgresError) -> [UInt8] {
        guard type == TypeID.bytea else { throw mismatch(column, type, "bytes") }
        return [UInt8](bytes)
    }

    static func ints(_ bytes: UnsafeRawBufferPointer, type: UInt32, column: Int) throws(PostgresError) -> [Int64] {
        let element: UInt32
        switch type {
        case TypeID.int8Array: element = TypeID.int8
        case TypeID.int4Array: element = TypeID.int4
        case TypeID.int2Array: element = TypeID.int2
        default: throw mismatch(column, type, "an array of integers")
        }
        var values: [Int64] = []
        try forEachElement(bytes, column: column) { (cell) throws(PostgresError) in
            guard let cell else { throw PostgresError(code: .decoding, message: "column \(column): an element is null") }
            values.append(try int(cell, type: element, column: column))
        }
        return values
    }

    static func texts(_ bytes: UnsafeRawBufferPointer, type: UInt32, column: Int) throws(PostgresError) -> [String?] {
        guard type == TypeID.textArray || type == TypeID.varcharArray else { throw mismatch(column, type, "an array of texts") }
        var values: [String?] = []
        try forEachElement(bytes, column: column) { (cell) throws(PostgresError) in
            values.append(cell.map { String(decoding: $0, as: UTF8.self) })
        }
        return values
    }

    static func isNull(column: Int) -> PostgresError {
        PostgresError(code: .decoding, message: "column \(column) is null")
    }

    static func noColumn(_ column: Int, of columns: Int) -> PostgresError {
        PostgresError(code: .decoding, message: "there is no column \(column), the result has \(columns)")
    }

    private static func mismatch(_ column: Int, _ type: UInt32, _ wanted: String) -> PostgresError {
        PostgresError(code: .decoding, message: "column \(column) has the type with object id \(type), \(wanted) was asked for")
    }

    /// Walks the elements of a one-dimensional (or empty) array. Bound: the cell's own bytes, each step takes at least four.
    private static func forEachElement(
        _ bytes: UnsafeRawBufferPointer,
        column: Int,
        _ body: (UnsafeRawBufferPointer?) throws(PostgresError) -> Void
    ) throws(PostgresError) {
        let malformed = PostgresError(code: .decoding, message: "column \(column): not a one-dimensional array")
        func word(at offset: Int) throws(PostgresError) -> Int {
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
