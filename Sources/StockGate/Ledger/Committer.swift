// Group commit: everything that waits is committed together. While one batch is at PostgreSQL, the next gathers.
//
// Invariant: members leave in the order they came, except that a key leaves in one batch at a time: a repeat of a key that is in the
//   forming batch waits for the next one, so that the ordinary rules decide it, in order.
// Bounds: `capacity` members wait at most; the next is refused at once. `maximumBatch` members go in one statement.
// Stop: nothing waits and nothing is out.

import DequeModule

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

    private var waiting: Deque<Member> = []
    private let capacity: Int
    private let maximumBatch: Int
    private let key: @Sendable (Member) -> String

    /// Members refused because `capacity` waited already.
    public private(set) var refused = 0

    /// An empty lane. `key` tells which members must not share a statement.
    public init(capacity: Int, maximumBatch: Int, key: @escaping @Sendable (Member) -> String) {
        self.capacity = capacity
        self.maximumBatch = maximumBatch
        self.key = key
    }

    /// Members that wait.
    public var count: Int { waiting.count }

    /// A member comes. `isExempt`: it was let in before and comes back after an unknown outcome; turning it away now would leave it undecided.
    public mutating func arrived(_ member: Member, isExempt: Bool) -> Admission {
        guard isExempt || waiting.count < capacity else {
            refused += 1
            return .refused
        }
        waiting.append(member)
        return .accepted
    }

    /// A connection is free: what it shall send, at most `maximumBatch` members, no key twice. Empty if nothing waits.
    public mutating func connectionFreed() -> [Member] {
        if waiting.count == 1 { return [waiting.removeFirst()] }
        var batch: [Member] = []
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
        let middle = batch.count / 2
        return .halves(Array(batch[..<middle]), Array(batch[middle...]))
    }
}
