// Masters and a replica of each, all private and on loopback.

/// Redis Cluster. Where a shard is down, the others go on (`cluster-require-full-coverage no`).
public final class PrivateCluster: Sendable {
    /// The nodes that are masters at the start, each with an equal part of the slots, in their order.
    public let masters: [PrivateRedis]
    /// The replica of each master, in the same order; empty without replicas.
    public let replicas: [PrivateRedis]

    private init(masters: [PrivateRedis], replicas: [PrivateRedis]) {
        self.masters = masters
        self.replicas = replicas
    }

    /// Starts everything, and waits until every node knows all others and each replica follows.
    /// - Parameters:
    ///   - count: masters; three or more, for a failover needs most of them.
    ///   - hasReplicas: whether each has a replica.
    ///   - nodeTimeout: how long a node must be silent before the others take it for dead, milliseconds.
    ///   - tls: what every node shows at a second port, and to the other nodes; nil for no TLS.
    public static func start(
        masters count: Int = 3,
        hasReplicas: Bool = true,
        nodeTimeout: Int = 2000,
        tls: PrivateCertificates.Port? = nil
    ) async throws -> PrivateCluster {
        func node() throws -> (PrivateRedis, bus: Int) {
            // The port of the bus is the client's plus 10,000 unless it is given, which may be no port.
            let bus = try LoopbackPort.free()
            let options = [
                "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-port", "\(bus)", "--cluster-node-timeout",
                "\(nodeTimeout)", "--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0",
                "--cluster-allow-replica-migration", "no", "--repl-diskless-sync-delay", "0",
            ]
            // Nodes that do not speak TLS among themselves do not know each other's ports of TLS.
            let secure = tls == nil ? [] : ["--tls-cluster", "yes", "--tls-replication", "yes"]
            return (try PrivateRedis.start(options: options + secure, tls: tls), bus)
        }
        let nodes = try (0..<(hasReplicas ? 2 * count : count)).map { _ in try node() }
        let cluster = PrivateCluster(masters: nodes.prefix(count).map(\.0), replicas: nodes.dropFirst(count).map(\.0))
        for (index, (node, _)) in nodes.enumerated() { try node.ordered(["CLUSTER", "SET-CONFIG-EPOCH", "\(index + 1)"]) }
        for (index, master) in cluster.masters.enumerated() {
            let slots = cluster.slots(of: index)
            try master.ordered(["CLUSTER", "ADDSLOTSRANGE", "\(slots.lowerBound)", "\(slots.upperBound)"])
        }
        for (node, _) in nodes.dropFirst() {
            try node.ordered(["CLUSTER", "MEET", "127.0.0.1", "\(nodes[0].0.tlsPort ?? nodes[0].0.port)", "\(nodes[0].bus)"])
        }
        try await until("every node knows the others") {
            try cluster.nodes.allSatisfy { try $0.call(["CLUSTER", "INFO"]).contains("cluster_known_nodes:\(nodes.count)") }
        }
        for (master, replica) in zip(cluster.masters, cluster.replicas) {
            try replica.ordered(["CLUSTER", "REPLICATE", try cluster.id(of: master)])
        }
        try await until("every replica follows, and every node says that the cluster is well") {
            guard try cluster.replicas.allSatisfy({ try $0.call(["INFO", "replication"]).contains("master_link_status:up") }) else {
                return false
            }
            return try cluster.nodes.allSatisfy {
                let info = try $0.call(["CLUSTER", "INFO"])
                let replicas = try $0.call(["CLUSTER", "NODES"]).split(separator: "\n").count { $0.contains("slave") }
                return info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384") && replicas == cluster.replicas.count
            }
        }
        return cluster
    }

    /// All nodes.
    public var nodes: [PrivateRedis] { masters + replicas }

    /// The address as a setting has it, with every node.
    public var url: String { "redis+cluster://\(nodes.map { "127.0.0.1:\($0.port)" }.joined(separator: ","))" }

    /// The slots that a master has at the start.
    public func slots(of master: Int) -> ClosedRange<Int> {
        16384 * master / masters.count...16384 * (master + 1) / masters.count - 1
    }

    /// Kills a master and waits until its replica says that it is one, and the other nodes that the cluster is well.
    public func failOver(_ master: Int) async throws {
        masters[master].kill()
        try await untilFailedOver(master)
    }

    /// Waits until a master's replica says that it is a master, and that the cluster is well.
    public func untilFailedOver(_ master: Int) async throws {
        let replica = replicas[master]
        try await until("the replica took over") {
            guard try replica.call(["ROLE"]).contains("master") else { return false }
            return try replica.call(["CLUSTER", "INFO"]).contains("cluster_slots_ok:16384")
        }
    }

    /// Begins to hand a slot over: its keys may be at either end.
    public func beginMove(of slot: Int, from source: PrivateRedis, to target: PrivateRedis) throws {
        try target.ordered(["CLUSTER", "SETSLOT", "\(slot)", "IMPORTING", try id(of: source)])
        try source.ordered(["CLUSTER", "SETSLOT", "\(slot)", "MIGRATING", try id(of: target)])
    }

    /// Moves all keys of a slot.
    public func moveKeys(of slot: Int, from source: PrivateRedis, to target: PrivateRedis) throws {
        while true {
            // A length in front of each key, and their number in front of all.
            let keys = try source.call(["CLUSTER", "GETKEYSINSLOT", "\(slot)", "100"]).split(separator: "\r\n")
                .filter { !$0.hasPrefix("*") && !$0.hasPrefix("$") }.map(String.init)
            guard !keys.isEmpty else { return }
            _ = try source.call(["MIGRATE", "127.0.0.1", "\(target.port)", "", "0", "5000", "KEYS"] + keys)
        }
    }

    /// Ends the handing over: the slot is the target's.
    public func endMove(of slot: Int, from source: PrivateRedis, to target: PrivateRedis) throws {
        let id = try self.id(of: target)
        try target.ordered(["CLUSTER", "SETSLOT", "\(slot)", "NODE", id])
        try source.ordered(["CLUSTER", "SETSLOT", "\(slot)", "NODE", id])
    }

    /// Stops everything.
    public func stop() { for node in nodes { node.kill() } }

    private func id(of node: PrivateRedis) throws -> String {
        let reply = try node.call(["CLUSTER", "MYID"]).split(separator: "\r\n")
        guard reply.count == 2 else { throw PrivateRedis.Failure(description: "CLUSTER MYID: \(reply)") }
        return String(reply[1])
    }
}

extension PrivateRedis {
    /// Sends a command that must be answered OK.
    fileprivate func ordered(_ arguments: [String]) throws {
        let reply = try call(arguments)
        guard reply.hasPrefix("+OK") else { throw Failure(description: "\(arguments.prefix(2).joined(separator: " ")): \(reply)") }
    }
}
