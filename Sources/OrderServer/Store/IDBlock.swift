import PostgresClient

/// Ids of a sequence that grows by blocks, not handed out yet. Only one thread uses it; a block's rest is lost with the process.
struct IDBlock {
    /// The sequences' increment.
    static let size: Int64 = 1024
    private let sql: String
    private var next: Int64 = 0
    private var end: Int64 = 0

    /// Makes an empty block.
    init(sequence: StaticString) {
        self.sql = "select nextval('\(sequence)')"
    }

    /// One id, ascending as long as nobody else takes blocks.
    mutating func take(_ session: PostgresSession) throws(PostgresError) -> Int64 {
        if self.next == self.end {
            self.next = try session.repeatable(self.sql, []).one().int(0)
            self.end = self.next + IDBlock.size
        }
        defer { self.next += 1 }
        return self.next
    }

    /// So many ids.
    mutating func take(_ count: Int, _ session: PostgresSession) throws(PostgresError) -> [Int64] {
        var ids: [Int64] = []
        ids.reserveCapacity(count)
        while ids.count < count { ids.append(try self.take(session)) }
        return ids
    }
}
