/// What happened in the engine that an operator may want to read.
public enum EngineEvent: Sendable {
    /// A connection to Redis was made; it holds this dataset.
    case redisConnected(dataset: String)
    /// A connection to Redis ended.
    case redisDisconnected(why: String)
    /// Redis serves `products` gated products exactly, behind the breaker's recovery gate. `direct` more are sold through the ledger alone until they can
    /// be installed: those that failed, each with a `leftDirect` of its own, and those for which the time was over.
    /// Those for which Redis holds another ledger's data are among `products`, and have an event of their own: `foreignLedger`.
    case recovered(products: Int, direct: Int, took: Duration)
    /// The breaker's recovery gate failed. Said once until the reason changes.
    case recoveryFailed(why: String)
    /// Redis fails, in its own words. Said once until they change.
    case redisFailed(why: String)
    /// A product was resynced.
    case resynced(ProductID, fence: Fence, stock: Int64)
    /// A product could not be resynced, for a reason of its own, and will be tried again. Said once until the reason changes.
    case resyncFailed(ProductID, why: String)
    /// A gated product is sold through the ledger alone, and why. The others are not touched by it. Said once until the reason changes.
    case leftDirect(ProductID, why: String)
    /// A product that was sold through the ledger alone is sold through Redis again.
    case gatedAgain(ProductID)
    /// So many more events of single products were not told, for there were too many.
    case untold(Int)
    /// Reservations of a product were pending for too long.
    case swept(ProductID, overdue: Int64)
    /// Two looks a second apart found Redis and PostgreSQL apart.
    case auditFound(ProductID, stock: Int64, counter: Int64?, fence: Fence, redisFence: Fence)
    /// The rows of these products have been locked for a second or longer by somebody else's transaction: their requests are told *lock timeout*.
    case productsLocked([ProductID])
    /// A product's row is free again.
    case productUnlocked(ProductID, after: Duration)
    /// The session of a lane of group commit cannot connect, has lost its connection, or may only read; nil: it works again. Once for each change.
    case laneChanged(String, why: String?)
    /// Redis is too old, or its user may not do what the gate needs: each command with Redis' own words. Products are sold without it. Told once.
    case redisRefuses(why: String)
    /// Redis holds the data of another ledger (`theirs`), first seen for this product. It is not used, and the products are sold without Redis. Told once for
    /// all products.
    case foreignLedger(ProductID, theirs: String, ours: String)
    /// No product is in the way of another ledger any more.
    case foreignLedgerGone
    /// Something in the background failed, and will be tried again.
    case trouble(String)
}
