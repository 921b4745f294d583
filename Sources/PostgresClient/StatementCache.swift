/// Names of the statements prepared on one connection, by SQL text and parameter types.
///
/// Bound: `capacity` entries; at the bound the one unused for longest makes room. Types are part of the key because a `NULL` parameter
/// leaves its type to the server, which may choose another one than the next call's value has.
struct StatementCache {
    struct Key: Hashable {
        var sql: String
        var typeIDs: [UInt32]
    }

    private struct Entry {
        var name: String
        var lastUse: UInt64
    }

    private let capacity: Int
    private var entries: [Key: Entry] = [:]
    private var uses: UInt64 = 0
    private var names: UInt64 = 0

    init(capacity: Int) { self.capacity = max(1, capacity) }

    var count: Int { entries.count }

    /// The prepared statement's name, if there is one; counts as a use.
    mutating func name(for key: Key) -> String? {
        uses += 1
        guard let index = entries.index(forKey: key) else { return nil }
        entries.values[index].lastUse = uses
        return entries.values[index].name
    }

    /// What must be deallocated before one more is prepared. A scan of the entries: it happens only beside a round trip.
    func victim() -> (key: Key, name: String)? {
        guard entries.count >= capacity else { return nil }
        return entries.min { $0.value.lastUse < $1.value.lastUse }.map { ($0.key, $0.value.name) }
    }

    mutating func newName() -> String {
        names += 1
        return "s\(names)"
    }

    mutating func insert(_ key: Key, name: String) {
        uses += 1
        entries[key] = Entry(name: name, lastUse: uses)
    }

    mutating func remove(_ key: Key) { entries[key] = nil }

    mutating func removeAll() { entries.removeAll() }
}
