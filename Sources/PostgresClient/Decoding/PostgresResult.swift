import CLibPQ

/// The rows of one statement, copied out of libpq. One buffer holds the bytes of all cells.
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

/// The rows' shared memory. It is never changed after its `init`, so threads can share it.
///
/// `@unchecked` is for `bytes` alone: `init` writes them, every other member only reads them, and `deinit` frees them, when no row refers to this object any
/// more.
@usableFromInline
final class ResultStorage: @unchecked Sendable {
    struct Cell {
        var offset: Int
        /// -1 for null.
        var length: Int32
    }

    let rows: Int
    let typeIDs: [UInt32]
    @usableFromInline let columnNames: [String]
    let cells: [Cell]
    /// All cells' bytes, one after another.
    private let bytes: UnsafeMutableRawPointer

    /// Copies all cells out of `result`. The caller still has to clear `result`.
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

    /// A cell, valid as long as this object is.
    @usableFromInline
    func cell(_ row: Int, _ column: Int) throws(PostgresError) -> PostgresCell {
        guard column >= 0, column < typeIDs.count else { throw PostgresError(noColumn: column, of: typeIDs.count) }
        let cell = cells[row * typeIDs.count + column]
        if cell.length < 0 { return PostgresCell(bytes: nil, type: typeIDs[column]) }
        return PostgresCell(
            bytes: UnsafeRawBufferPointer(start: bytes + cell.offset, count: Int(cell.length)),
            type: typeIDs[column]
        )
    }
}

/// One row of a ``PostgresResult``. Columns are counted from 0.
public struct PostgresRow: Sendable {
    @usableFromInline let storage: ResultStorage
    @usableFromInline let row: Int

    init(storage: ResultStorage, row: Int) {
        self.storage = storage
        self.row = row
    }

    /// Whether the cell is `NULL`.
    public func isNull(_ column: Int) throws(PostgresError) -> Bool { try storage.cell(row, column).isNull }

    /// Reads a cell as the type that the caller asks for.
    ///
    /// - Throws: `decoding`, with the column's name and type, if the cell is of another type.
    @inlinable
    public func decode<Value: PostgresDecodable>(_ column: Int, as type: Value.Type = Value.self) throws(PostgresError) -> Value {
        defer { withExtendedLifetime(storage) {} }
        let cell = try storage.cell(row, column)
        do throws(PostgresCellError) {
            return try Value(cell)
        } catch {
            throw PostgresError(error, column: column, name: storage.columnNames[column], type: cell.type)
        }
    }
}
