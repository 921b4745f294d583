public import CLibPQ

/// One row that is still in libpq's memory. A closure may use it during its call. Only decoded values are copied. Columns are counted from 0.
public struct PostgresRowView: ~Copyable {
    @usableFromInline let result: OpaquePointer
    @usableFromInline let row: Int32
    @usableFromInline let typeIDs: UnsafeBufferPointer<UInt32>

    init(result: OpaquePointer, row: Int32, typeIDs: UnsafeBufferPointer<UInt32>) {
        self.result = result
        self.row = row
        self.typeIDs = typeIDs
    }

    /// A cell. It is valid during the closure's call, and this value cannot live longer than that.
    @inlinable
    @inline(__always)
    func cell(_ column: Int) throws(PostgresError) -> PostgresCell {
        guard column >= 0, column < typeIDs.count else { throw PostgresError(noColumn: column, of: typeIDs.count) }
        // The number fits: a result has at most 1664 columns.
        let number = Int32(truncatingIfNeeded: column)
        let length = Int(PQgetlength(result, row, number))
        if length == 0, PQgetisnull(result, row, number) == 1 { return PostgresCell(bytes: nil, type: typeIDs[column]) }
        return PostgresCell(bytes: UnsafeRawBufferPointer(start: PQgetvalue(result, row, number), count: length), type: typeIDs[column])
    }

    /// Reads a cell as the type that the caller asks for; see ``PostgresRow/decode(_:as:)``.
    @inlinable
    @inline(__always)
    public func decode<Value: PostgresDecodable>(_ column: Int, as type: Value.Type = Value.self) throws(PostgresError) -> Value {
        let cell = try cell(column)
        do throws(PostgresCellError) {
            return try Value(cell)
        } catch {
            throw failure(error, column, cell.type)
        }
    }

    @usableFromInline
    func failure(_ error: PostgresCellError, _ column: Int, _ type: UInt32) -> PostgresError {
        let name = PQfname(result, Int32(truncatingIfNeeded: column)).map { String(cString: $0) } ?? ""
        return PostgresError(error, column: column, name: name, type: type)
    }
}
