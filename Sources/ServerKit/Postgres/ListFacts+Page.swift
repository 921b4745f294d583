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
