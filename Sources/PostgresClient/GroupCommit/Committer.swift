// Group commit: while PostgreSQL works on one batch, new members gather, and all of them form the next batch.
//
// Invariant: members leave in the order in which they came, with one exception: a key is in one batch at a time. A member that repeats a key of the batch that
//   is being formed waits for the next one, where the ordinary rules decide it.
// Bounds: `capacity` members wait at most; the next one is refused at once. A statement carries at most `maximumBatch` members.
// Stop: no member waits and no batch is out.

public import DequeModule

/// The waiting members of one group commit lane, as a value. `Member` is what the shell needs to send a member and to answer it.
public struct Committer<Member: Sendable>: Sendable {
    /// Whether a member was let in.
    public enum Admission: Hashable, Sendable {
        /// The member waits.
        case accepted
        /// The queue is full. Nothing was sent, and the caller is told *overloaded*.
        case refused
    }

    /// How a failed batch is tried again.
    public enum Retry: Sendable {
        /// Each half is tried by itself, in this order, because one unknown member is bad.
        case halves([Member], [Member])
        /// The batch was one member, so this member failed.
        case fail(Member)
    }

    @usableFromInline var waiting: Deque<Member> = []
    @usableFromInline let capacity: Int
    @usableFromInline let maximumBatch: Int
    @usableFromInline let key: (@Sendable (Member) -> String)?

    /// Members refused because `capacity` waited already.
    @inlinable public var refused: Int { refusals }
    @usableFromInline var refusals = 0

    /// Creates an empty lane. Members with the same `key` never share a statement; without `key` any members may.
    public init(capacity: Int, maximumBatch: Int, key: (@Sendable (Member) -> String)?) {
        self.capacity = capacity
        self.maximumBatch = maximumBatch
        self.key = key
    }

    /// Members that wait.
    @inlinable public var count: Int { waiting.count }

    /// Adds a member. An exempt member was let in before and comes back after an unknown outcome. It is let in even if the lane is full, because refusing it
    /// now would leave it undecided.
    @inlinable
    public mutating func arrived(_ member: Member, isExempt: Bool) -> Admission {
        guard isExempt || waiting.count < capacity else {
            refusals += 1
            return .refused
        }
        waiting.append(member)
        return .accepted
    }

    /// Takes the next batch for a free connection: at most `maximumBatch` members, no key twice. Empty if no member waits.
    @inlinable
    public mutating func connectionFreed() -> [Member] {
        if waiting.count == 1 { return [waiting.removeFirst()] }
        var batch: [Member] = []
        guard let key else {
            batch.reserveCapacity(min(waiting.count, maximumBatch))
            while batch.count < maximumBatch, let member = waiting.popFirst() { batch.append(member) }
            return batch
        }
        var keys: Set<String> = []
        var deferred: Deque<Member> = []
        batch.reserveCapacity(min(waiting.count, maximumBatch))
        keys.reserveCapacity(min(waiting.count, maximumBatch))
        while batch.count < maximumBatch, let member = waiting.popFirst() {
            if keys.insert(key(member)).inserted { batch.append(member) } else { deferred.append(member) }
        }
        if !deferred.isEmpty {
            deferred.append(contentsOf: waiting)
            waiting = deferred
        }
        return batch
    }

    /// How to go on after a batch that was rolled back because of one of its members.
    public static func retry(_ batch: [Member]) -> Retry {
        if batch.count == 1, let only = batch.first { return .fail(only) }
        guard let (first, second) = GroupWrite.halves(of: batch[...]) else { return .halves([], []) }
        return .halves(Array(first), Array(second))
    }
}
