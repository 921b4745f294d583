public import APIErrors
public import PostgresClient

extension ListFacts {
    /// What the answer says of a page of a table besides its rows.
    /// - Parameter bound: rows that the list walked at most
    /// - Throws: `VALIDATION_ERROR` for a page that lies after what a list walks
    public init(_ page: KeyedList.Page, bound: Int64) throws(APIError) {
        if page.isBeyondBound { throw .pageTooDeep(bound: bound) }
        self.init(next: page.next, total: page.total, isTotalExact: page.isTotalExact)
    }
}

extension KeyedList {
    /// The page of this list that a caller asks for.
    /// - Parameter read: reads one row. Column 0 is the key; `columns` begin at 1.
    public func page<Row>(
        _ listing: Listing,
        _ columns: String,
        join: String = "",
        of pool: PostgresPool,
        _ read: (PostgresRow) throws(PostgresError) -> Row
    ) async throws(PostgresError) -> (rows: [Row], page: Page) {
        let (paging, after) = (listing.paging, listing.after)
        let page = try await page(after: after, offset: paging.offset, size: paging.size, columns: columns, join: join, of: pool)
        var rows: [Row] = []
        for row in page.rows { rows.append(try read(row)) }
        return (rows, page)
    }
}
