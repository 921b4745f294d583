// Invariant: every row of a list is met exactly once by whoever follows `next` from the first page on, as long as its key does not change.
//
// Bounds: each statement walks at most `bound` rows of the index behind `key`, however many the table has and however few of them pass the filter. So a page by
// its number, and the total beside it, know the first `bound` rows alone; what lies behind them is reached by key. A page by key that met `bound` rows without
// filling itself is short, and its `next` goes on where it stopped. Stop: `next` is nil.

/// A list in the order of a unique whole-number key, read page by page at a bounded cost.
///
/// Its texts come from the program; what callers give goes into parameters.
public struct KeyedList: Sendable {
    /// One page.
    public struct Page: Sendable {
        /// Rows: the key, then the columns asked for.
        public var rows: [PostgresRow] = []
        /// The key to go on behind; nil: there is nothing more.
        public var next: Int64?
        /// Rows of the whole list, as far as it was walked; nil for a page by key, which is not counted.
        public var total: Int64?
        /// Whether `total` is the whole truth, or the list goes on behind what was walked.
        public var isTotalExact = true
        /// The page begins behind what was walked, in a list that goes on: nothing is known about it.
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

    /// Keeps to rows that an index finds in the list's order: the condition's columns come before the key in it.
    /// - Parameter condition: makes the condition of the parameter's name
    public mutating func enter(_ value: PostgresValue, _ condition: (String) -> String) {
        parameters.append(value)
        entries.append(condition("$\(parameters.count)"))
    }

    /// The same, with a condition that has no parameter.
    public mutating func enter(_ condition: String) { entries.append(condition) }

    /// Leaves out what does not fulfil a condition; every row that is walked is looked at.
    public mutating func filter(_ value: PostgresValue, _ condition: (String) -> String) {
        parameters.append(value)
        filters.append("(" + condition("$\(parameters.count)") + ")")
    }

    /// The same, with a condition that has no parameter.
    public mutating func filter(_ condition: String) { filters.append("(" + condition + ")") }

    /// The page behind a key, or without a key one by its number.
    ///
    /// - Parameters:
    ///   - offset: rows before the page; of no meaning beside a key.
    ///   - columns: what a row has besides its key.
    ///   - join: what the columns need besides the table, found for the page's rows alone.
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

    /// How many rows are walked, and the last of them.
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
            // One more than the page has says whether there is a next one.
            parameters + [.int(size + 1), .int(offset)]
        )
        page.rows = Array(result)
        if page.rows.count > size {
            page.rows.removeLast(page.rows.count - Int(size))
            page.next = try page.rows.last?.decode(0, as: Int64.self)
        }
    }
}
