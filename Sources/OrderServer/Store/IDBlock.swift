import PostgresClient

/// Ids of a sequence that grows by blocks: those of the present block that are not used yet. Only one thread uses this value. A process loses the rest of its
/// block when it ends.
struct IDBlock {
    /// The sequences' increment.
    static let size: Int64 = 1024
    private let sequence: IDSequence
    private var next: Int64 = 0
    private var end: Int64 = 0

    /// Makes an empty block.
    init(_ sequence: IDSequence) { self.sequence = sequence }

    /// Reacts to an id that had a row already: raises the sequence if it is behind its table, and drops the rest of the block.
    /// - Returns: nil if the sequence was not behind
    mutating func startAnew(_ session: PostgresSession) throws(PostgresError) -> IDSequence.Raise? {
        next = end
        return try sequence.raise(session)
    }

    /// Takes one id. Ids ascend as long as no other process takes blocks.
    mutating func take(_ session: PostgresSession) throws(PostgresError) -> Int64 {
        if next == end {
            next = try session.repeatable(sequence.takeSQL, []).one().decode(0, as: Int64.self)
            end = next + IDBlock.size
        }
        defer { next += 1 }
        return next
    }

    /// Takes `count` ids.
    mutating func take(_ count: Int, _ session: PostgresSession) throws(PostgresError) -> [Int64] {
        var ids: [Int64] = []
        ids.reserveCapacity(count)
        while ids.count < count { ids.append(try self.take(session)) }
        return ids
    }
}
