import Logging
import StockGate

extension EngineEvent {
    /// Logs the event as one line, with figures as metadata.
    func log(_ logger: Logger) {
        switch self {
        case .redisConnected(let dataset): logger.info("connected to Redis", metadata: ["dataset": "\(dataset)"])
        case .redisDisconnected(let why): logger.warning("connection to Redis ended", metadata: ["why": "\(why)"])
        case .redisMaster(let master, let sentinel):
            logger.notice("the sentinels name the master of Redis", metadata: ["master": "\(master)", "saidBy": "\(sentinel)"])
        case .redisMasterUnknown(let why):
            logger.warning("the sentinels name no master of Redis that can be used", metadata: ["why": "\(why)"])
        case .redisMap(let masters, let uncovered, let moved, let node):
            logger.notice(
                "the cluster of Redis names its masters",
                metadata: [
                    "masters": "\(masters.joined(separator: ","))", "uncoveredSlots": "\(uncovered)", "movedProducts": "\(moved)",
                    "saidBy": "\(node)",
                ]
            )
        case .redisMapUnknown(let why):
            logger.warning("no node of the cluster of Redis says which masters it has", metadata: ["why": "\(why)"])
        case .atMaster(let master, let event):
            var logger = logger
            logger[metadataKey: "master"] = "\(master)"
            event.log(logger)
        case .recovered(let products, let direct, let took):
            logger.notice(
                "recovery passed: products are sold through Redis again",
                metadata: ["products": "\(products)", "direct": "\(direct)", "took": "\(took)"]
            )
        case .redisFailed(let why): logger.warning("a call to Redis failed", metadata: ["why": "\(why)"])
        case .leftDirect(let product, let why):
            logger.warning(
                "the product is sold without Redis until it can be installed",
                metadata: ["product": "\(product)", "why": "\(why)"]
            )
        case .gatedAgain(let product): logger.notice("the product is sold through Redis again", metadata: ["product": "\(product)"])
        case .untold(let count):
            logger.warning("further products have trouble, which is not logged one by one", metadata: ["lines": "\(count)"])
        case .recoveryFailed(let why): logger.warning("recovery failed", metadata: ["why": "\(why)"])
        case .resynced(let product, let fence, let stock):
            logger.debug("resynced", metadata: ["product": "\(product)", "fence": "\(fence)", "stock": "\(stock)"])
        case .resyncFailed(let product, let why):
            logger.warning("a resync of the product failed and is tried again", metadata: ["product": "\(product)", "why": "\(why)"])
        case .swept(let product, let overdue):
            logger.warning(
                "reservations were pending for too long: the product is resynced",
                metadata: ["product": "\(product)", "overdue": "\(overdue)"]
            )
        case .auditFound(let product, let stock, let counter, let fence, let redisFence):
            logger.error(
                "audit: Redis and PostgreSQL differ",
                metadata: [
                    "product": "\(product)", "stock": "\(stock)", "counter": "\(counter.map(String.init) ?? "none")", "fence": "\(fence)",
                    "redisFence": "\(redisFence)",
                ]
            )
        case .productsLocked(let products):
            logger.warning(
                "rows of products are locked by another transaction; their requests are told LOCK_TIMEOUT",
                metadata: [
                    "products": "\(products.prefix(8).map(\.description).joined(separator: ","))", "count": "\(products.count)",
                ]
            )
        case .productUnlocked(let product, let after):
            logger.notice("the row of a product is free again", metadata: ["product": "\(product)", "after": "\(after)"])
        case .laneChanged(let lane, let why?):
            logger.warning("a lane of sales cannot use PostgreSQL", metadata: ["lane": "\(lane)", "why": "\(why)"])
        case .laneChanged(let lane, nil): logger.notice("a lane of sales uses PostgreSQL again", metadata: ["lane": "\(lane)"])
        case .redisRefuses(let why):
            logger.error("Redis refuses commands that are needed: all products are sold without Redis", metadata: ["why": "\(why)"])
        case .redisTLSFailed(let why):
            logger.error("Redis cannot be reached by TLS, and everything is sold without it", metadata: ["why": "\(why)"])
        case .ledgerMoved(let now, let before):
            logger.error(
                "the ledger is another server's data than before, which may lack commits: every product is installed in Redis again before it is sold through it",
                metadata: ["now": "\(now)", "before": "\(before)"]
            )
        case .foreignLedger(let product, let theirs, let ours):
            logger.error(
                "Redis holds another ledger's data: its products are sold without Redis until its keys sg:{…} are deleted, or this server has a Redis of its own",
                metadata: ["product": "\(product)", "theirs": "\(theirs)", "ours": "\(ours)"]
            )
        case .foreignLedgerGone: logger.notice("Redis holds no other ledger's data any more: it is used for all products again")
        case .trouble(let what): logger.warning("\(what)")
        }
    }
}
