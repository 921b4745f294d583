public import PostgresClient

extension Fence: PostgresDecodable {
    /// Reads a `bigint`.
    public init(_ cell: PostgresCell) throws(PostgresCellError) { self.init(try Int64(cell)) }
}

extension Quantity: PostgresDecodable {
    /// Reads a `bigint`.
    public init(_ cell: PostgresCell) throws(PostgresCellError) { self.init(try Int64(cell)) }
}

extension Token: PostgresDecodable {
    /// Reads a `bigint`.
    public init(_ cell: PostgresCell) throws(PostgresCellError) { self.init(try Int64(cell)) }
}
