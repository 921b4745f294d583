// What the engine knows of its Redis and its gated products, for health checks, metrics and operators.

public import CircuitBreaker
public import RedisClient

extension StockEngine {
    // MARK: Redis

    /// The breakers around all calls to Redis, by name: `redisStock`, or in a cluster one for each master, `redisStock@host:port`.
    public var breakers: [CircuitBreaker] { parts.shards.breakers }

    /// Calls `onChange` with all breakers now, and whenever a cluster has other masters. For one listener.
    public func followBreakers(_ onChange: @escaping @Sendable ([CircuitBreaker]) -> Void) { parts.shards.follow(onChange) }

    /// The breaker of the master that serves a product's keys; nil if a cluster has no such master, or did not say which yet.
    public func breaker(of product: ProductID) -> CircuitBreaker? { parts.products.shard(of: product)?.breaker }

    /// What the connections to Redis have done, summed over the nodes of a cluster.
    public func redisSnapshot() -> RedisSnapshot {
        switch parts.redis {
        case .one(let client): client.snapshot()
        case .cluster(let cluster): cluster.snapshot().all
        }
    }

    /// What the client of a cluster has done; nil without a cluster.
    public func redisClusterSnapshot() -> RedisClusterSnapshot? {
        if case .cluster(let cluster) = parts.redis { cluster.snapshot() } else { nil }
    }

    /// The master that sentinels have named last; nil before they have, and where the address names none.
    public var redisMaster: RedisEndpoint? {
        if case .one(let client) = parts.redis { client.master } else { nil }
    }

    // MARK: Gated products

    /// The number of gated products that this server knows.
    public var gatedProductCount: Int { parts.products.count }

    /// How many of them are sold through the ledger alone now, although the breaker lets calls through. Looks at each of them.
    public var directProductCount: Int { parts.products.directCount }

    /// Gated products that are sold without Redis, because it holds another ledger's data for them.
    public var foreignProductCount: Int { parts.products.foreignCount }

    /// The name that marks this ledger's data in Redis. Empty until `start`, and where the database role may not ask for it.
    public var ledgerName: String { parts.products.ledgerName }

    // MARK: After a restore

    /// Compares Redis with the ledger for every gated product, and makes Redis right where they differ, for an operator who has restored a backup. The engine
    /// need not have been started, and other servers may go on selling. Products of a cluster's master that does not answer are found to be unreadable and stay as
    /// they are, and so are those whose slot no master serves.
    ///
    /// - Throws: also `RedisError` if Redis cannot be reached, or a cluster does not say which masters it has
    /// - Returns: how many products were looked at, and what was found of those that differ
    public func restoreCheck() async throws -> (products: Int, findings: [RestoreFinding]) {
        _ = try await refreshProducts()
        let patience: Duration = .seconds(5)
        switch parts.redis {
        case .one(let client): try await client.waitUntilConnected(timeout: patience)
        case .cluster(let cluster):
            try await cluster.waitForMap(until: .now + configuration.mapWait)
            await withDiscardingTaskGroup { group in
                for shard in parts.shards.all { group.addTask { try? await shard.redis.waitUntilConnected(timeout: patience) } }
            }
        }
        return (parts.products.count, try await parts.restoreCheck.run())
    }
}
