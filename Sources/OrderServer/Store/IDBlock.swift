import PostgresClient

/// Ids of a sequence that grows by blocks, not handed out yet. Only one thread uses it; a block's rest is lost with the process.
struct IDBlock {
    /// The sequences' increment.
    static let size: Int64 = 1024
    private let sequence: IDSequence
    private var next: Int64 = 0
    private var end: Int64 = 0

    /// Makes an empty block.
    init(_ sequence: IDSequence) { self.sequence = sequence }

    /// After an id of it was found to have a row already: raises the sequence where it is behind, and forgets the rest of the block.
    /// - Returns: nil if the sequence was not behind
    mutating func startAnew(_ session: PostgresSession) throws(PostgresError) -> IDSequence.Raise? {
        self.next = self.end
        return try self.sequence.raise(session)
    }

    /// One id, ascending as long as nobody else takes blocks.
    mutating func take(_ session: PostgresSession) throws(PostgresError) -> Int64 {
        if self.next == self.end {
            self.next = try session.repeatable(self.sequence.takeSQL, []).one().decode(0, as: Int64.self)
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
