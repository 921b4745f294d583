/// What happened in the engine that an operator may want to read.
public enum EngineEvent: Sendable {
    /// A connection to Redis was made. Redis holds this dataset.
    case redisConnected(dataset: String)
    /// A connection to Redis ended.
    case redisDisconnected(why: String)
    /// The sentinels name another master than before, or again a master after they named none that could be used. `saidBy` is the sentinel that was asked. Both
    /// are `host:port`.
    case redisMaster(String, saidBy: String)
    /// The sentinels name no master that can be used. `why` has what each of them said. Reported again only when the words change. Connections that exist are
    /// kept.
    case redisMasterUnknown(why: String)
    /// These masters (`host:port`) serve the slots of the cluster, as the node `saidBy` says. Reported for each new map, and for the first one after no node named
    /// a map. `uncovered` slots have no master. `moved` gated products have another master than before; they are resynced there.
    case redisMap(masters: [String], uncovered: Int, moved: Int, saidBy: String)
    /// No node of the cluster says who serves its slots. `why` has what each of them said. Reported again only when the words change. The last map stays in use.
    case redisMapUnknown(why: String)
    /// What happened at one master of a cluster (`host:port`).
    indirect case atMaster(String, EngineEvent)
    /// A recovery passed: Redis serves `products` gated products exactly. `direct` more products are sold through the ledger alone until they can be installed:
    /// those that failed, each with a `leftDirect` of its own, and those for which there was no time left. Products for which Redis holds another ledger's data
    /// are counted in `products`, and have an event of their own: `foreignLedger`.
    case recovered(products: Int, direct: Int, took: Duration)
    /// A recovery failed. Reported again only when the reason changes.
    case recoveryFailed(why: String)
    /// Redis fails, in its own words. Reported again only when they change.
    case redisFailed(why: String)
    case resynced(ProductID, fence: Fence, stock: Int64)
    /// A product could not be resynced, for a reason that concerns this product alone, and will be tried again. Reported again only when the reason changes.
    case resyncFailed(ProductID, why: String)
    /// A gated product is sold through the ledger alone, and why. Other products are not affected. Reported again only when the reason changes.
    case leftDirect(ProductID, why: String)
    /// A product that was sold through the ledger alone is sold through Redis again.
    case gatedAgain(ProductID)
    /// This many more events of single products were left out, because there were too many in a second.
    case untold(Int)
    /// Reservations of a product were pending for too long. If that happens to very many products, only some are reported.
    case swept(ProductID, overdue: Int64)
    /// Two looks a second apart found that Redis and PostgreSQL differ, while no resync of the product was under way. If that happens to very many products,
    /// only some are reported.
    case auditFound(ProductID, stock: Int64, counter: Int64?, fence: Fence, redisFence: Fence)
    /// Another transaction has held the rows of these products locked for a second or longer. Requests for them are told *lock timeout*.
    case productsLocked([ProductID])
    /// A product's row is free again.
    case productUnlocked(ProductID, after: Duration)
    /// The session of a group commit lane cannot connect, has lost its connection, or may only read; nil: the session works again. Reported once for each
    /// change.
    case laneChanged(String, why: String?)
    /// Redis is too old, or its user lacks a permission that the gate needs. `why` has each command with Redis' own words. Products are sold without Redis.
    /// Reported once.
    case redisRefuses(why: String)
    /// Redis cannot be reached by TLS, in words that say which end is in the way. Products are sold without it. Told once until the words change.
    case redisTLSFailed(why: String)
    /// The ledger's sessions have reached another history of its data: a standby was promoted, or a backup restored. Commits of the one before may be lost. All
    /// gated products are sold without Redis until each has been installed again.
    case ledgerMoved(now: String, before: String)
    /// Redis holds the data of another ledger (`theirs`), first seen for this product. The data is not used, and such products are sold without Redis. Reported
    /// once for all products.
    case foreignLedger(ProductID, theirs: String, ours: String)
    /// Redis holds another ledger's data for no product any more.
    case foreignLedgerGone
    /// Something in the background failed, and will be tried again.
    case trouble(String)
}
