/// Names of the statements that are prepared on one connection, by SQL text and parameter types.
///
/// Bound: `capacity` entries; at the bound the one that was unused for longest is dropped. Types are part of the key, because for a `NULL` parameter the server
/// chooses the type, and may choose another one than the next call's value has.
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

    /// The name of the prepared statement, if there is one. Asking counts as a use.
    mutating func name(for key: Key) -> String? {
        uses += 1
        guard let index = entries.index(forKey: key) else { return nil }
        entries.values[index].lastUse = uses
        return entries.values[index].name
    }

    /// The statement to deallocate before another one is prepared. This scans all entries, but only when a round trip is needed anyway.
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
