/// The ids of the last messages seen, so that a second copy counts as a repeat although neither its sender nor the broker says so.
///
/// Invariant: `ids` is the set of what `ring` holds. Bound: `capacity` ids; the oldest is forgotten first. Forgetting one costs no correctness: the ledger
/// knows every key, and only this process' memory of *sold out* might tell the second copy no.
struct RecentMessages: Sendable {
    private let capacity: Int
    private var ring: [String] = []
    private var next = 0
    private var ids: Set<String> = []

    init(capacity: Int = 16_384) {
        self.capacity = capacity
    }

    /// Takes note of an id; false if it was seen before.
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
