import PostgresClient
import RedisClient
import ServerMetrics
import StockGate
import Synchronization

extension MetricsRegistry {
    /// Registers the engine's figures under this project's metric names.
    func register(_ engine: StockEngine) {
        let metrics = engine.metrics
        func counter(_ name: String, _ help: String, _ counter: EngineCounter) {
            collector("stockgate_" + name, help: help, kind: .counter) { [.init(Double(counter.count))] }
        }
        counter("reserves_total", "Reserves sent to Redis.", metrics.reserves)
        counter("reserve_calls_total", "Script calls that the reserves went in.", metrics.reserveCalls)
        counter("sold_out_from_memory_total", "Decreases rejected by this process' memory of sold out.", metrics.soldOutFromMemory)
        counter("sold_out_at_gate_total", "Decreases that Redis called sold out.", metrics.soldOutAtGate)
        counter("decreases_sold_total", "Decreases committed.", metrics.sold)
        counter("decreases_replayed_total", "Decreases that were duplicates of committed ones.", metrics.replayed)
        counter("decreases_refused_total", "Decreases that were refused.", metrics.refused)
        counter("decreases_direct_total", "Decreases that went to the ledger without a reservation.", metrics.direct)
        counter("decreases_overloaded_total", "Requests turned away because too much was in flight.", metrics.overloaded)
        counter("decreases_timed_out_total", "Requests not answered in time.", metrics.timedOut)
        counter("commits_unknown_total", "Changes that were sent again because their outcome was unknown.", metrics.unknownCommits)
        counter("increases_total", "Increases that added units.", metrics.increases)
        counter("applies_total", "Stock changes told to Redis under another fence than their reservation's.", metrics.applies)
        counter("applies_lost_total", "Applies that failed or are unknown, each followed by a bump.", metrics.lostApplies)
        counter("untold_total", "Settles and releases that could not be sent.", metrics.untold)
        counter("resyncs_total", "Resyncs that installed or found a newer install.", metrics.resyncs)
        counter("resyncs_not_needed_total", "Resyncs that had nothing to install.", metrics.resyncsNotNeeded)
        counter("resyncs_failed_total", "Resyncs that failed.", metrics.resyncsFailed)
        counter("spoiled_total", "Times that a product's keys in Redis could not be used and were made anew.", metrics.spoiled)
        counter("swept_total", "Products resynced for an overdue reservation.", metrics.swept)
        counter("audit_findings_total", "Differences between Redis and PostgreSQL found in two looks.", metrics.auditFindings)
        counter("fences_raised_total", "Fences that were raised because Redis was ahead of the ledger.", metrics.raisedAboveRedis)
        counter("ledger_moves_total", "Times that the ledger's sessions reached another history of its data.", metrics.ledgerMoves)
        counter("products_moved_total", "Products that another master of a cluster serves than before.", metrics.moved)
        counter("marks_pruned_total", "Settled marks past their retention that were pruned in the background.", metrics.prunedMarks)
        gauge("stockgate_foreign_products", help: "Gated products sold without Redis, which holds another ledger's data for them.") {
            Double(engine.foreignProductCount)
        }
        gauge("stockgate_in_flight", help: "Requests in flight.") { Double(metrics.inFlight.load(ordering: .relaxed)) }
        gauge("stockgate_gated_products", help: "Gated products that this server knows.") { Double(engine.gatedProductCount) }
        gauge("stockgate_direct_products", help: "Gated products that are sold through the ledger alone until they can be installed.") {
            Double(engine.directProductCount)
        }
        lanes("waiting", .gauge, "Requests that wait for group commit.", engine) { Double($0.waiting) }
        lanes("batches_total", .counter, "Statements of group commit.", engine) { Double($0.batches) }
        lanes("members_total", .counter, "Requests in the statements of group commit.", engine) { Double($0.members) }
        lanes("largest_batch", .gauge, "Requests in the largest statement of group commit.", engine) { Double($0.largestBatch) }
        lanes("refused_total", .counter, "Requests refused because the lane was full.", engine) { Double($0.refused) }
        lanes("rolled_back_total", .counter, "Statements rolled back.", engine) { Double($0.rolledBack) }
        lanes("unknown_total", .counter, "Statements whose outcome is unknown.", engine) { Double($0.unknown) }
        lanes("put_out_total", .counter, "Requests put out of a statement because their product's row was locked.", engine) {
            Double($0.putOut)
        }
        lanes("seconds_total", .counter, "Seconds spent in statements.", engine) { $0.seconds }
        let locked = engine.ledger.lockedProducts
        gauge("stockgate_locked_products", help: "Products whose row is known to be locked by another transaction.") {
            Double(locked.snapshot().locked)
        }
        gauge("stockgate_locked_waiting", help: "Requests that wait for a locked row.") { Double(locked.snapshot().waiting) }
        collector("stockgate_locked_products_total", help: "Rows of products found locked.", kind: .counter) {
            [.init(Double(locked.snapshot().found))]
        }
        collector("stockgate_locked_refused_total", help: "Requests refused because too many waited for locked rows.", kind: .counter) {
            [.init(Double(locked.snapshot().refused))]
        }
        collector("stockgate_locked_timed_out_total", help: "Requests that waited for a locked row in vain.", kind: .counter) {
            [.init(Double(locked.snapshot().timedOut))]
        }
        collector("stockgate_redis_connections_total", help: "Connections made to Redis.", kind: .counter) {
            [.init(Double(engine.redisSnapshot().connects))]
        }
        collector("stockgate_redis_timeouts_total", help: "Redis commands that were not answered in time.", kind: .counter) {
            [.init(Double(engine.redisSnapshot().timeouts))]
        }
        sentinels(engine)
        cluster(engine)
        gauge("stockgate_redis_pending", help: "Redis commands without a reply yet.") { Double(engine.redisSnapshot().pending) }
        gauge("stockgate_ledger_pool_busy", help: "Busy connections of the ledger's pool.") { Double(engine.ledger.pool.snapshot().busy) }
        collector("stockgate_ledger_pool_rejected_total", help: "Calls that found the ledger's pool full.", kind: .counter) {
            [.init(Double(engine.ledger.pool.snapshot().rejected))]
        }
        readPools(engine)
    }

    /// All are 0 where the address of Redis names no sentinels.
    private func sentinels(_ engine: StockEngine) {
        collector("stockgate_redis_master_searches_total", help: "Searches for Redis' master among the sentinels.", kind: .counter) {
            [.init(Double(engine.redisSnapshot().masterSearches))]
        }
        collector("stockgate_redis_master_searches_failed_total", help: "Searches that found no master to use.", kind: .counter) {
            [.init(Double(engine.redisSnapshot().masterSearchesFailed))]
        }
        collector("stockgate_redis_master_changes_total", help: "Times that another master was found than before.", kind: .counter) {
            [.init(Double(engine.redisSnapshot().masterChanges))]
        }
        collector("stockgate_redis_switches_heard_total", help: "Messages of sentinels that the master has changed.", kind: .counter) {
            [.init(Double(engine.redisSnapshot().masterSwitchesHeard))]
        }
        gauge("stockgate_redis_sentinels_heard", help: "1 while a sentinel is listened to.") {
            Double(engine.redisSnapshot().sentinelsHeard)
        }
    }

    /// All are 0 where the address of Redis names no cluster.
    private func cluster(_ engine: StockEngine) {
        func figure(_ name: String, _ kind: Kind, _ help: String, _ read: @escaping @Sendable (RedisClusterSnapshot) -> Int) {
            collector(name, help: help, kind: kind) {
                [.init(Double(engine.redisClusterSnapshot().map(read) ?? 0))]
            }
        }
        figure("stockgate_redis_map_searches_total", .counter, "Searches for the map of the cluster's slots.") { $0.mapSearches }
        figure("stockgate_redis_map_searches_failed_total", .counter, "Searches that found no map to use.") { $0.mapSearchesFailed }
        figure("stockgate_redis_map_changes_total", .counter, "Times that another map was found than before.") { $0.mapChanges }
        figure("stockgate_redis_masters", .gauge, "Masters of the cluster that serve slots.") { $0.nodes.count }
        figure("stockgate_redis_uncovered_slots", .gauge, "Slots of the cluster that no master serves.") { $0.uncoveredSlots }
    }

    private func readPools(_ engine: StockEngine) {
        let pools = [("lists", engine.ledger.reads), ("lookups", engine.ledger.lookups)]
        collector("stockgate_read_pool_waiting", help: "Readers that wait for a connection of their pool.", kind: .gauge) {
            pools.map { .init(labels: [("pool", $0.0)], Double($0.1.snapshot().waiting)) }
        }
        collector("stockgate_read_pool_refused_total", help: "Readers that got no connection of their pool in time.", kind: .counter) {
            pools.map { pool in
                let snapshot = pool.1.snapshot()
                return .init(labels: [("pool", pool.0)], Double(snapshot.rejected) + Double(snapshot.expired))
            }
        }
    }

    private func lanes(
        _ name: String,
        _ kind: Kind,
        _ help: String,
        _ engine: StockEngine,
        _ read: @escaping @Sendable (LaneSnapshot) -> Double
    ) {
        collector("stockgate_lane_" + name, help: help, kind: kind) {
            engine.ledger.decreaseLaneSnapshots().enumerated().map { index, lane in
                .init(labels: [("lane", "decrease-\(index)")], read(lane))
            } + [.init(labels: [("lane", "increase")], read(engine.ledger.increaseLaneSnapshot()))]
        }
    }
}
