/// Which master of a cluster serves which slot, as one of its nodes says.
///
/// Invariant: each slot has one master or none, and no master is named twice.
/// Bounds: `maximumMasters` masters, and `maximumNodes` in one shard; a map beyond them is refused, as is one in which two masters have the same slot.
public struct SlotMap: Sendable, Hashable {
    /// Masters in one map at most.
    public static let maximumMasters = 128
    /// Nodes of one shard at most: its master, its replicas, and masters that have failed.
    static let maximumNodes = 64

    /// Why a node's answer cannot be used as a map. The text holds no secret.
    struct Refusal: Error, Hashable, CustomStringConvertible {
        let description: String
        init(_ description: String) { self.description = description }
    }

    /// The masters that serve at least one slot, in the order of their first slots.
    public private(set) var masters: [RedisEndpoint] = []
    /// How many slots no master serves.
    public private(set) var uncovered = HashSlot.count
    /// For each slot the index of its master among `masters`, and `none` without one.
    private var table = [UInt8](repeating: none, count: HashSlot.count)
    // The indices of `maximumMasters` masters are below it.
    private static let none = UInt8.max

    /// The master that serves a slot; nil if none does.
    public subscript(slot: HashSlot) -> RedisEndpoint? {
        let index = table[Int(slot.rawValue)]
        return index == Self.none ? nil : masters[Int(index)]
    }

    /// How many slots a master serves.
    func count(of master: RedisEndpoint) -> Int {
        guard let index = masters.firstIndex(of: master) else { return 0 }
        return table.count { $0 == UInt8(index) }
    }

    private typealias Served = (range: ClosedRange<Int>, master: RedisEndpoint)

    private init(_ served: [Served]) throws(Refusal) {
        for (range, master) in served.sorted(by: { $0.range.lowerBound < $1.range.lowerBound }) {
            if !masters.contains(master) {
                guard masters.count < Self.maximumMasters else { throw Refusal("it names more than \(Self.maximumMasters) masters") }
                masters.append(master)
            }
            guard let index = masters.firstIndex(of: master) else { continue }
            for slot in range {
                guard table[slot] == Self.none else { throw Refusal("it names two masters for slot \(slot)") }
                table[slot] = UInt8(index)
            }
            uncovered -= range.count
        }
        guard !masters.isEmpty else { throw Refusal("it names no slot") }
    }

    /// Reads the reply to `CLUSTER SHARDS`, which Redis 7 and later know.
    /// - Parameters:
    ///   - asked: the node that replied, which stands where an answer names no host.
    ///   - usesTLS: whether ports of TLS are wanted.
    init(shards reply: RedisValue, asked: RedisEndpoint, usesTLS: Bool) throws(Refusal) {
        guard let shards = reply.array else { throw Refusal("its answer to CLUSTER SHARDS cannot be read") }
        // More than masters in a map: a master without slots is a shard of its own, which the map leaves out.
        guard shards.count <= 4 * Self.maximumMasters else { throw Refusal("it names too many shards") }
        var served: [Served] = []
        for shard in shards {
            let fields = try Self.fields(shard)
            guard let bounds = fields["slots"]?.array, let nodes = fields["nodes"]?.array else {
                throw Refusal("a shard in its answer cannot be read")
            }
            guard !bounds.isEmpty else { continue }
            guard nodes.count <= Self.maximumNodes else { throw Refusal("a shard has more than \(Self.maximumNodes) nodes") }
            guard let master = try Self.master(of: nodes, asked: asked, usesTLS: usesTLS) else { continue }
            guard bounds.count % 2 == 0, bounds.count <= 2 * HashSlot.count else { throw Refusal("the slots of a shard cannot be read") }
            for index in stride(from: 0, to: bounds.count, by: 2) {
                served.append((try Self.range(bounds[index], bounds[index + 1]), master))
            }
        }
        try self.init(served)
    }

    /// Reads the reply to `CLUSTER SLOTS`.
    /// - Parameter asked: the node that replied, which stands where an answer names no host.
    init(slots reply: RedisValue, asked: RedisEndpoint) throws(Refusal) {
        guard let entries = reply.array else { throw Refusal("its answer to CLUSTER SLOTS cannot be read") }
        guard entries.count <= HashSlot.count else { throw Refusal("it names too many ranges of slots") }
        var served: [Served] = []
        for entry in entries {
            guard let parts = entry.array, parts.count >= 3, let master = parts[2].array, master.count >= 2 else {
                throw Refusal("a range in its answer cannot be read")
            }
            let range = try Self.range(parts[0], parts[1])
            guard let host = Self.host(master[0], asked: asked) else { continue }
            served.append((range, RedisEndpoint(host: host, port: try Self.port(master[1]))))
        }
        try self.init(served)
    }

    private static func range(_ first: RedisValue, _ last: RedisValue) throws(Refusal) -> ClosedRange<Int> {
        guard let first = first.int, let last = last.int, first >= 0, first <= last, last < HashSlot.count else {
            throw Refusal("it names slots that no cluster has")
        }
        return Int(first)...Int(last)
    }

    private static func port(_ value: RedisValue?) throws(Refusal) -> Int {
        guard let port = value?.int, (1...65535).contains(port) else { throw Refusal("it names a port that there is not") }
        return Int(port)
    }

    /// Nil where the node does not know the host. Such slots are served by nobody.
    private static func host(_ value: RedisValue?, asked: RedisEndpoint) -> String? {
        guard let value, let host = value.string, !host.isEmpty else { return asked.host }
        return host == "?" ? nil : host
    }

    /// Names and values by turns, as a map of RESP2.
    private static func fields(_ value: RedisValue) throws(Refusal) -> [String: RedisValue] {
        guard let parts = value.array, parts.count % 2 == 0, parts.count <= 64 else { throw Refusal("a part of its answer cannot be read") }
        var fields: [String: RedisValue] = [:]
        for index in stride(from: 0, to: parts.count, by: 2) {
            guard let name = parts[index].string else { throw Refusal("a part of its answer cannot be read") }
            fields[name] = parts[index + 1]
        }
        return fields
    }

    /// The master of a shard. After a failover the one before may stand there as a master too: the one that is well counts.
    private static func master(of nodes: [RedisValue], asked: RedisEndpoint, usesTLS: Bool) throws(Refusal) -> RedisEndpoint? {
        var well: [[String: RedisValue]] = []
        var failed: [[String: RedisValue]] = []
        for node in nodes {
            let fields = try self.fields(node)
            guard fields["role"]?.string == "master" else { continue }
            if fields["health"]?.string == "online" { well.append(fields) } else { failed.append(fields) }
        }
        let masters = well.isEmpty ? failed : well
        guard masters.count <= 1 else { throw Refusal("it names two masters for the same slots") }
        // A shard that has only replicas waits for its new master.
        guard let master = masters.first, let host = host(master["endpoint"], asked: asked) else { return nil }
        // A node that speaks no TLS names no port for it, so this client cannot use it.
        guard let port = master[usesTLS ? "tls-port" : "port"] else { return nil }
        return RedisEndpoint(host: host, port: try self.port(port))
    }
}
