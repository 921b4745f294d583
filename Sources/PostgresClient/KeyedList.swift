// Invariant: a reader that follows `next` from the first page meets every row exactly once, as long as the row's key does not change.
//
// Bounds: each statement walks at most `bound` rows of the index behind `key`, however large the table is and however few rows pass the filter. Therefore a
//   page by number, and the total beside it, cover only the first `bound` rows; rows behind them are reached by key. A page by key that met `bound` rows before
//   it was full is short, and its `next` continues where it stopped. Stop: `next` is nil.

/// A list in the order of a unique integer key, read page by page at a bounded cost.
///
/// SQL texts come from the program. Values from callers go into parameters.
public struct KeyedList: Sendable {
    /// One page.
    public struct Page: Sendable {
        /// Rows: the key, then the columns asked for.
        public var rows: [PostgresRow] = []
        /// The key behind which the next page begins; nil: there is no further row.
        public var next: Int64?
        /// The number of rows of the list, as far as it was walked; nil for a page by key, which is not counted.
        public var total: Int64?
        /// Whether `total` is exact. Otherwise the list goes on behind the rows that were walked.
        public var isTotalExact = true
        /// Whether the page begins behind the rows that were walked, in a list that goes on. Then nothing is known about the page.
        public var isBeyondBound = false
    }

    private let table: String
    private let alias: String
    private let isDescending: Bool
    private let bound: Int64
    private var entries: [String] = []
    private var filters: [String] = []
    private var parameters: [PostgresValue] = []

    /// Makes a list of all rows of a table.
    ///
    /// - Parameters:
    ///   - alias: the table's name within conditions and columns. Its column `id` is the key, 1 or more.
    ///   - bound: rows that one statement walks at most.
    public init(of table: String, alias: String, newestFirst isDescending: Bool, bound: Int64) {
        self.table = table
        self.alias = alias
        self.isDescending = isDescending
        self.bound = max(1, bound)
    }

    private var key: String { "\(alias).id" }
    private var order: String { isDescending ? "\(key) desc" : key }

    /// Restricts the list to rows that an index finds in the list's order: its columns before the key are those of the condition.
    /// - Parameter condition: makes the condition from the parameter's name
    public mutating func enter(_ value: PostgresValue, _ condition: (String) -> String) {
        parameters.append(value)
        entries.append(condition("$\(parameters.count)"))
    }

    /// As above, with a condition that has no parameter.
    public mutating func enter(_ condition: String) { entries.append(condition) }

    /// Leaves out rows that do not meet a condition. Every row that is walked is checked.
    public mutating func filter(_ value: PostgresValue, _ condition: (String) -> String) {
        parameters.append(value)
        filters.append("(" + condition("$\(parameters.count)") + ")")
    }

    /// As above, with a condition that has no parameter.
    public mutating func filter(_ condition: String) { filters.append("(" + condition + ")") }

    /// The page behind a key, or without a key the page at an offset.
    ///
    /// - Parameters:
    ///   - offset: how many rows come before the page; ignored beside a key
    ///   - columns: what a row has besides its key
    ///   - join: the further tables that the columns need; joined for the rows of the page only
    public func page(
        after key: Int64?,
        offset: Int64,
        size: Int64,
        columns: String,
        join: String = "",
        of pool: PostgresPool
    ) async throws(PostgresError) -> Page {
        if let key { return try await page(after: key, size, columns, join, pool) }
        return try await page(offset: offset, size, columns, join, pool)
    }

    private func page(
        offset: Int64,
        _ size: Int64,
        _ columns: String,
        _ join: String,
        _ pool: PostgresPool
    ) async throws(PostgresError) -> Page {
        let counted = try await pool.query(
            "select count(*)\(filters.isEmpty ? "" : " filter (where \(filters.joined(separator: " and ")))"), \(walked)",
            parameters
        ).one()
        var page = Page(total: try counted.decode(0, as: Int64.self))
        let last = try counted.decode(1, as: Int64.self) < bound ? nil : try counted.decode(2, as: Int64?.self)
        page.isTotalExact = last == nil
        guard offset < (page.total ?? 0) else {
            page.isBeyondBound = offset > 0 && !page.isTotalExact
            if !page.isBeyondBound { page.next = last }
            return page
        }
        try await fill(&page, columns, join, size, offset, pool)
        if page.next == nil { page.next = last }
        return page
    }

    private func page(
        after key: Int64,
        _ size: Int64,
        _ columns: String,
        _ join: String,
        _ pool: PostgresPool
    ) async throws(PostgresError) -> Page {
        var list = self
        list.enter(.int(key)) { "\(self.key) \(isDescending ? "<" : ">") \($0)" }
        var page = Page()
        try await list.fill(&page, columns, join, size, 0, pool)
        if page.next == nil {
            let end = try await pool.query("select \(list.walked)", list.parameters).one()
            if try end.decode(0, as: Int64.self) == bound { page.next = try end.decode(1, as: Int64?.self) }
        }
        return page
    }

    /// SQL that yields how many rows are walked, and the key of the last one.
    private var walked: String { "count(*), \(isDescending ? "min" : "max")(\(key)) from (\(walk)) \(alias)" }

    private var walk: String {
        let conditions = entries.isEmpty ? "" : " where " + entries.joined(separator: " and ")
        return "select \(alias).* from \(table) \(alias)\(conditions) order by \(order) limit \(bound)"
    }

    private func fill(
        _ page: inout Page,
        _ columns: String,
        _ join: String,
        _ size: Int64,
        _ offset: Int64,
        _ pool: PostgresPool
    ) async throws(PostgresError) {
        let conditions = filters.isEmpty ? "" : " where " + filters.joined(separator: " and ")
        let (limit, skip) = ("$\(parameters.count + 1)", "$\(parameters.count + 2)")
        let result = try await pool.query(
            """
            select \(key), \(columns) from (
              select \(alias).* from (\(walk)) \(alias)\(conditions) order by \(order) limit \(limit) offset \(skip)
            ) \(alias) \(join) order by \(order)
            """,
            // One row more than the page has is read, to learn whether there is a next page.
            parameters + [.int(size + 1), .int(offset)]
        )
        page.rows = Array(result)
        if page.rows.count > size {
            page.rows.removeLast(page.rows.count - Int(size))
            page.next = try page.rows.last?.decode(0, as: Int64.self)
        }
    }
}
