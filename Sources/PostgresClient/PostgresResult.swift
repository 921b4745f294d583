import CLibPQ

/// The rows of one statement, copied out of libpq: all cells in one buffer, with an offset each.
public struct PostgresResult: Sendable, RandomAccessCollection {
    let storage: ResultStorage
    /// Rows inserted, updated, deleted or returned by the statement.
    public let rowsAffected: Int

    /// The columns' names, in order.
    public var columnNames: [String] { storage.columnNames }
    /// Always 0.
    public var startIndex: Int { 0 }
    /// The number of rows.
    public var endIndex: Int { storage.rows }
    /// The row at a position, from 0.
    public subscript(position: Int) -> PostgresRow {
        precondition(position >= 0 && position < storage.rows, "no such row")
        return PostgresRow(storage: storage, row: position)
    }

    /// The only row.
    ///
    /// - Throws: `decoding` if there is none or more than one.
    public func one() throws(PostgresError) -> PostgresRow {
        guard storage.rows == 1 else {
            throw PostgresError(code: .decoding, message: "\(storage.rows) rows, one was expected")
        }
        return self[0]
    }
}

/// Immutable after its making, so that rows can share it between threads.
///
/// `@unchecked` is for `bytes` alone: it is written in `init`, only read afterwards, and freed in `deinit`, when no row refers to it.
final class ResultStorage: @unchecked Sendable {
    struct Cell {
        var offset: Int
        /// -1 for null.
        var length: Int32
    }

    let rows: Int
    let typeIDs: [UInt32]
    let columnNames: [String]
    let cells: [Cell]
    /// All cells' bytes, one after another.
    private let bytes: UnsafeMutableRawPointer

    /// Copies everything out of `result`, which stays the caller's to clear.
    init(copying result: OpaquePointer) {
        let rows = Int(PQntuples(result))
        let columns = Int(PQnfields(result))
        self.rows = rows
        typeIDs = (0..<columns).map { PQftype(result, Int32($0)) }
        columnNames = (0..<columns).map { PQfname(result, Int32($0)).map { String(cString: $0) } ?? "" }
        var total = 0
        cells = [Cell](unsafeUninitializedCapacity: rows * columns) { cells, count in
            for row in 0..<rows {
                for column in 0..<columns {
                    var length = PQgetlength(result, Int32(row), Int32(column))
                    if length == 0, PQgetisnull(result, Int32(row), Int32(column)) == 1 { length = -1 }
                    cells.initializeElement(at: count, to: Cell(offset: total, length: length))
                    count += 1
                    total += Int(max(0, length))
                }
            }
        }
        bytes = .allocate(byteCount: total, alignment: 8)
        var index = 0
        for row in 0..<rows {
            for column in 0..<columns {
                let cell = cells[index]
                index += 1
                guard cell.length > 0, let value = PQgetvalue(result, Int32(row), Int32(column)) else { continue }
                bytes.advanced(by: cell.offset).copyMemory(from: value, byteCount: Int(cell.length))
            }
        }
    }

    deinit { bytes.deallocate() }

    /// The cell's bytes, nil for `NULL`, and its type. Valid as long as this object is.
    @inline(__always)
    func cell(_ row: Int, _ column: Int) throws(PostgresError) -> (bytes: UnsafeRawBufferPointer?, type: UInt32) {
        guard column >= 0, column < typeIDs.count else { throw BinaryFormat.noColumn(column, of: typeIDs.count) }
        let cell = cells[row * typeIDs.count + column]
        if cell.length < 0 { return (nil, typeIDs[column]) }
        return (UnsafeRawBufferPointer(start: bytes + cell.offset, count: Int(cell.length)), typeIDs[column])
    }
}

/// One row of a ``PostgresResult``. Columns are counted from 0; every reader throws `decoding` if the cell is of another type.
public struct PostgresRow: Sendable {
    let storage: ResultStorage
    let row: Int

    /// Whether the cell is `NULL`.
    public func isNull(_ column: Int) throws(PostgresError) -> Bool {
        try storage.cell(row, column).bytes == nil
    }

    /// An `int8`, `int4`, `int2` or `oid`.
    public func int(_ column: Int) throws(PostgresError) -> Int64 {
        defer { withExtendedLifetime(storage) {} }
        let (bytes, type) = try storage.cell(row, column)
        guard let bytes else { throw BinaryFormat.isNull(column: column) }
        return try BinaryFormat.int(bytes, type: type, column: column)
    }

    /// An `int8`, `int4`, `int2` or `oid`, or nil for `NULL`.
    public func optionalInt(_ column: Int) throws(PostgresError) -> Int64? {
        defer { withExtendedLifetime(storage) {} }
        let (bytes, type) = try storage.cell(row, column)
        guard let bytes else { return nil }
        return try BinaryFormat.int(bytes, type: type, column: column)
    }

    /// A text, an enum, a UUID or JSON.
    public func text(_ column: Int) throws(PostgresError) -> String {
        defer { withExtendedLifetime(storage) {} }
        let (bytes, type) = try storage.cell(row, column)
        guard let bytes else { throw BinaryFormat.isNull(column: column) }
        return try BinaryFormat.text(bytes, type: type, column: column)
    }

    /// A text, an enum, a UUID or JSON, or nil for `NULL`.
    public func optionalText(_ column: Int) throws(PostgresError) -> String? {
        defer { withExtendedLifetime(storage) {} }
        let (bytes, type) = try storage.cell(row, column)
        guard let bytes else { return nil }
        return try BinaryFormat.text(bytes, type: type, column: column)
    }

    /// A `bool`.
    public func bool(_ column: Int) throws(PostgresError) -> Bool {
        defer { withExtendedLifetime(storage) {} }
        let (bytes, type) = try storage.cell(row, column)
        guard let bytes else { throw BinaryFormat.isNull(column: column) }
        return try BinaryFormat.bool(bytes, type: type, column: column)
    }

    /// A `bool`, or nil for `NULL`.
    public func optionalBool(_ column: Int) throws(PostgresError) -> Bool? {
        defer { withExtendedLifetime(storage) {} }
        let (bytes, type) = try storage.cell(row, column)
        guard let bytes else { return nil }
        return try BinaryFormat.bool(bytes, type: type, column: column)
    }

    /// A `float8` or `float4`.
    public func double(_ column: Int) throws(PostgresError) -> Double {
        defer { withExtendedLifetime(storage) {} }
        let (bytes, type) = try storage.cell(row, column)
        guard let bytes else { throw BinaryFormat.isNull(column: column) }
        return try BinaryFormat.double(bytes, type: type, column: column)
    }

    /// A `float8` or `float4`, or nil for `NULL`.
    public func optionalDouble(_ column: Int) throws(PostgresError) -> Double? {
        defer { withExtendedLifetime(storage) {} }
        let (bytes, type) = try storage.cell(row, column)
        guard let bytes else { return nil }
        return try BinaryFormat.double(bytes, type: type, column: column)
    }

    /// A timestamp in microseconds since the Unix epoch.
    public func timestampMicros(_ column: Int) throws(PostgresError) -> Int64 {
        defer { withExtendedLifetime(storage) {} }
        let (bytes, type) = try storage.cell(row, column)
        guard let bytes else { throw BinaryFormat.isNull(column: column) }
        return try BinaryFormat.timestampMicros(bytes, type: type, column: column)
    }

    /// A timestamp in microseconds since the Unix epoch, or nil for `NULL`.
    public func optionalTimestampMicros(_ column: Int) throws(PostgresError) -> Int64? {
        defer { withExtendedLifetime(storage) {} }
        let (bytes, type) = try storage.cell(row, column)
        guard let bytes else { return nil }
        return try BinaryFormat.timestampMicros(bytes, type: type, column: column)
    }

    /// A `bytea`.
    public func bytes(_ column: Int) throws(PostgresError) -> [UInt8] {
        defer { withExtendedLifetime(storage) {} }
        let (bytes, type) = try storage.cell(row, column)
        guard let bytes else { throw BinaryFormat.isNull(column: column) }
        return try BinaryFormat.bytes(bytes, type: type, column: column)
    }

    /// A `bytea`, or nil for `NULL`.
    public func optionalBytes(_ column: Int) throws(PostgresError) -> [UInt8]? {
        defer { withExtendedLifetime(storage) {} }
        let (bytes, type) = try storage.cell(row, column)
        guard let bytes else { return nil }
        return try BinaryFormat.bytes(bytes, type: type, column: column)
    }

    /// An array of integers without nulls.
    public func ints(_ column: Int) throws(PostgresError) -> [Int64] {
        defer { withExtendedLifetime(storage) {} }
        let (bytes, type) = try storage.cell(row, column)
        guard let bytes else { throw BinaryFormat.isNull(column: column) }
        return try BinaryFormat.ints(bytes, type: type, column: column)
    }

    /// An array of integers without nulls, or nil for `NULL`.
    public func optionalInts(_ column: Int) throws(PostgresError) -> [Int64]? {
        defer { withExtendedLifetime(storage) {} }
        let (bytes, type) = try storage.cell(row, column)
        guard let bytes else { return nil }
        return try BinaryFormat.ints(bytes, type: type, column: column)
    }

    /// An array of texts.
    public func texts(_ column: Int) throws(PostgresError) -> [String?] {
        defer { withExtendedLifetime(storage) {} }
        let (bytes, type) = try storage.cell(row, column)
        guard let bytes else { throw BinaryFormat.isNull(column: column) }
        return try BinaryFormat.texts(bytes, type: type, column: column)
    }

    /// An array of texts, or nil for `NULL`.
    public func optionalTexts(_ column: Int) throws(PostgresError) -> [String?]? {
        defer { withExtendedLifetime(storage) {} }
        let (bytes, type) = try storage.cell(row, column)
        guard let bytes else { return nil }
        return try BinaryFormat.texts(bytes, type: type, column: column)
    }
}

/// One row still in libpq's memory, lent to a closure for the time of the call. Readers as in ``PostgresRow``.
public struct PostgresRowView: ~Copyable {
    let result: OpaquePointer
    let row: Int32
    let typeIDs: UnsafeBufferPointer<UInt32>

    /// The cell's bytes, nil for `NULL`, and its type. Valid during the closure's call, which this value cannot outlive.
    @inline(__always)
    private func cell(_ column: Int) throws(PostgresError) -> (bytes: UnsafeRawBufferPointer?, type: UInt32) {
        guard column >= 0, column < typeIDs.count else { throw BinaryFormat.noColumn(column, of: typeIDs.count) }
        let length = Int(PQgetlength(result, row, Int32(column)))
        if length == 0, PQgetisnull(result, row, Int32(column)) == 1 { return (nil, typeIDs[column]) }
        return (UnsafeRawBufferPointer(start: PQgetvalue(result, row, Int32(column)), count: length), typeIDs[column])
    }

    /// Whether the cell is `NULL`.
    public func isNull(_ column: Int) throws(PostgresError) -> Bool {
        try cell(column).bytes == nil
    }

    /// An `int8`, `int4`, `int2` or `oid`.
    public func int(_ column: Int) throws(PostgresError) -> Int64 {
        let (bytes, type) = try cell(column)
        guard let bytes else { throw BinaryFormat.isNull(column: column) }
        return try BinaryFormat.int(bytes, type: type, column: column)
    }

    /// An `int8`, `int4`, `int2` or `oid`, or nil for `NULL`.
    public func optionalInt(_ column: Int) throws(PostgresError) -> Int64? {
        let (bytes, type) = try cell(column)
        guard let bytes else { return nil }
        return try BinaryFormat.int(bytes, type: type, column: column)
    }

    /// A text, an enum, a UUID or JSON.
    public func text(_ column: Int) throws(PostgresError) -> String {
        let (bytes, type) = try cell(column)
        guard let bytes else { throw BinaryFormat.isNull(column: column) }
        return try BinaryFormat.text(bytes, type: type, column: column)
    }

    /// A text, an enum, a UUID or JSON, or nil for `NULL`.
    public func optionalText(_ column: Int) throws(PostgresError) -> String? {
        let (bytes, type) = try cell(column)
        guard let bytes else { return nil }
        return try BinaryFormat.text(bytes, type: type, column: column)
    }

    /// A `bool`.
    public func bool(_ column: Int) throws(PostgresError) -> Bool {
        let (bytes, type) = try cell(column)
        guard let bytes else { throw BinaryFormat.isNull(column: column) }
        return try BinaryFormat.bool(bytes, type: type, column: column)
    }

    /// A `bool`, or nil for `NULL`.
    public func optionalBool(_ column: Int) throws(PostgresError) -> Bool? {
        let (bytes, type) = try cell(column)
        guard let bytes else { return nil }
        return try BinaryFormat.bool(bytes, type: type, column: column)
    }

    /// A `float8` or `float4`.
    public func double(_ column: Int) throws(PostgresError) -> Double {
        let (bytes, type) = try cell(column)
        guard let bytes else { throw BinaryFormat.isNull(column: column) }
        return try BinaryFormat.double(bytes, type: type, column: column)
    }

    /// A `float8` or `float4`, or nil for `NULL`.
    public func optionalDouble(_ column: Int) throws(PostgresError) -> Double? {
        let (bytes, type) = try cell(column)
        guard let bytes else { return nil }
        return try BinaryFormat.double(bytes, type: type, column: column)
    }

    /// A timestamp in microseconds since the Unix epoch.
    public func timestampMicros(_ column: Int) throws(PostgresError) -> Int64 {
        let (bytes, type) = try cell(column)
        guard let bytes else { throw BinaryFormat.isNull(column: column) }
        return try BinaryFormat.timestampMicros(bytes, type: type, column: column)
    }

    /// A timestamp in microseconds since the Unix epoch, or nil for `NULL`.
    public func optionalTimestampMicros(_ column: Int) throws(PostgresError) -> Int64? {
        let (bytes, type) = try cell(column)
        guard let bytes else { return nil }
        return try BinaryFormat.timestampMicros(bytes, type: type, column: column)
    }

    /// A `bytea`.
    public func bytes(_ column: Int) throws(PostgresError) -> [UInt8] {
        let (bytes, type) = try cell(column)
        guard let bytes else { throw BinaryFormat.isNull(column: column) }
        return try BinaryFormat.bytes(bytes, type: type, column: column)
    }

    /// A `bytea`, or nil for `NULL`.
    public func optionalBytes(_ column: Int) throws(PostgresError) -> [UInt8]? {
        let (bytes, type) = try cell(column)
        guard let bytes else { return nil }
        return try BinaryFormat.bytes(bytes, type: type, column: column)
    }

    /// An array of integers without nulls.
    public func ints(_ column: Int) throws(PostgresError) -> [Int64] {
        let (bytes, type) = try cell(column)
        guard let bytes else { throw BinaryFormat.isNull(column: column) }
        return try BinaryFormat.ints(bytes, type: type, column: column)
    }

    /// An array of integers without nulls, or nil for `NULL`.
    public func optionalInts(_ column: Int) throws(PostgresError) -> [Int64]? {
        let (bytes, type) = try cell(column)
        guard let bytes else { return nil }
        return try BinaryFormat.ints(bytes, type: type, column: column)
    }

    /// An array of texts.
    public func texts(_ column: Int) throws(PostgresError) -> [String?] {
        let (bytes, type) = try cell(column)
        guard let bytes else { throw BinaryFormat.isNull(column: column) }
        return try BinaryFormat.texts(bytes, type: type, column: column)
    }

    /// An array of texts, or nil for `NULL`.
    public func optionalTexts(_ column: Int) throws(PostgresError) -> [String?]? {
        let (bytes, type) = try cell(column)
        guard let bytes else { return nil }
        return try BinaryFormat.texts(bytes, type: type, column: column)
    }
}
