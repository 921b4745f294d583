import CircuitBreaker
import RedisClient
import ServerKit
import StockGate
import StrictJSON

/// The health checks behind a product server's `/readyz`.
extension HealthCheck {
    /// Asks the sessions that sell, because another connection may work while these do not. If some lanes can sell, this server is ready.
    static func database(_ engine: StockEngine) -> HealthCheck {
        HealthCheck("database") {
            let (selling, giving) = await engine.ledger.laneTroubles()
            let troubles = selling.compactMap(\.self)
            guard let first = troubles.first ?? giving else { return HealthReport(.up) }
            return HealthReport(
                troubles.count == selling.count ? .down : .degraded,
                detail: [
                    "reason": .string(String(describing: first)), "lanes": .int(Int64(selling.count)),
                    "lanesInTrouble": .int(Int64(troubles.count)), "canGiveBack": .bool(giving == nil),
                ]
            )
        }
    }

    /// With an open breaker this server is ready, because the fallback serves.
    static func redis(_ engine: StockEngine) -> HealthCheck {
        HealthCheck("redis", timeoutState: .degraded) {
            let breakers = engine.breakers
            let foreign = engine.foreignProductCount
            let cluster = engine.redisClusterSnapshot()
            let troubled = breakers.first { $0.state != .closed }
            let isUp = troubled == nil && !breakers.isEmpty && foreign == 0 && (cluster?.uncoveredSlots ?? 0) == 0
            // In a cluster: that of a master that is not well, if there is one.
            let state = (troubled ?? breakers.first)?.state ?? .open
            var detail = [JSONMember("breaker", .string(state.rawValue))]
            if let cluster {
                detail.append(JSONMember("breakers", .object(breakers.map { JSONMember($0.name, .string($0.state.rawValue)) })))
                if cluster.uncoveredSlots > 0 { detail.append(JSONMember("uncoveredSlots", .int(Int64(cluster.uncoveredSlots)))) }
            }
            if foreign > 0 { detail.append(JSONMember("foreignProducts", .int(Int64(foreign)))) }
            // The master that the sentinels have named last, which may be away.
            if let master = engine.redisMaster { detail.append(JSONMember("master", .string(master.description))) }
            return HealthReport(isUp ? .up : .degraded, detail: .object(detail))
        }
    }
}
