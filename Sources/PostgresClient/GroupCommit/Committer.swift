// Group commit: everything that waits is committed together. While one batch is at PostgreSQL, the next gathers.
//
// Invariant: members leave in the order they came, except that a key leaves in one batch at a time: a repeat of a key that is in the
//   forming batch waits for the next one, so that the ordinary rules decide it, in order.
// Bounds: `capacity` members wait at most; the next is refused at once. `maximumBatch` members go in one statement.
// Stop: nothing waits and nothing is out.

public import DequeModule

/// The waiting members of one lane of group commit, as a value. `Member` is what the shell needs to send and to answer.
public struct Committer<Member: Sendable>: Sendable {
    /// Whether a member was let in.
    public enum Admission: Hashable, Sendable {
        /// It waits.
        case accepted
        /// The queue is full: nothing was sent, the caller is told *overloaded*.
        case refused
    }

    /// What failed batches are tried as next.
    public enum Retry: Sendable {
        /// Each half by itself, in this order: one member is bad, and the others stay together as far as they can.
        case halves([Member], [Member])
        /// The member is alone already: it failed.
        case fail(Member)
    }

    @usableFromInline var waiting: Deque<Member> = []
    @usableFromInline let capacity: Int
    @usableFromInline let maximumBatch: Int
    @usableFromInline let key: (@Sendable (Member) -> String)?

    /// Members refused because `capacity` waited already.
    @inlinable public var refused: Int { refusals }
    @usableFromInline var refusals = 0

    /// An empty lane. `key` tells which members must not share a statement; nil: all may.
    public init(capacity: Int, maximumBatch: Int, key: (@Sendable (Member) -> String)?) {
        self.capacity = capacity
        self.maximumBatch = maximumBatch
        self.key = key
    }

    /// Members that wait.
    @inlinable public var count: Int { waiting.count }

    /// A member comes. `isExempt`: it was let in before and comes back after an unknown outcome; turning it away now would leave it undecided.
    @inlinable
    public mutating func arrived(_ member: Member, isExempt: Bool) -> Admission {
        guard isExempt || waiting.count < capacity else {
            refusals += 1
            return .refused
        }
        waiting.append(member)
        return .accepted
    }

    /// A connection is free: what it shall send, at most `maximumBatch` members, no key twice. Empty if nothing waits.
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

    /// A batch was rolled back for one of its members.
    public static func retry(_ batch: [Member]) -> Retry {
        if batch.count == 1, let only = batch.first { return .fail(only) }
        guard let (first, second) = GroupWrite.halves(of: batch[...]) else { return .halves([], []) }
        return .halves(Array(first), Array(second))
    }
}
