public import PostgresClient

extension ProtocolNumber where Self: PostgresDecodable {
    /// Reads a `bigint`.
    public init(_ cell: PostgresCell) throws(PostgresCellError) { self.init(try Int64(cell)) }
}

extension Fence: PostgresDecodable {}
extension Quantity: PostgresDecodable {}
extension Token: PostgresDecodable {}
