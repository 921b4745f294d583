/// The ids of the last messages, so that a second copy of a message counts as a repeat even if neither its sender nor the broker marks it as one.
///
/// Invariant: `ids` is the set of what `ring` holds. Bound: `capacity` ids; the oldest is forgotten first. Forgetting an id does not break correctness: the
/// ledger knows every key, and only this process' memory of *sold out* could answer the second copy with *no*.
struct RecentMessages: Sendable {
    private let capacity: Int
    private var ring: [String] = []
    private var next = 0
    private var ids: Set<String> = []

    init(capacity: Int = 16_384) {
        self.capacity = capacity
    }

    /// Records an id. Returns false if it was seen before.
    mutating func insert(_ id: String) -> Bool {
        guard ids.insert(id).inserted else { return false }
        if ring.count < capacity {
            ring.append(id)
        } else {
            ids.remove(ring[next])
            ring[next] = id
            next = (next + 1) % capacity
        }
        return true
    }
}
