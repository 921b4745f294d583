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
            let snapshot = engine.breaker.snapshot()
            let foreign = engine.foreignProductCount
            let isUp = snapshot.state == .closed && foreign == 0
            var detail = [JSONMember("breaker", .string(snapshot.state.rawValue))]
            if foreign > 0 { detail.append(JSONMember("foreignProducts", .int(Int64(foreign)))) }
            // The master that the sentinels have named last, which may be away.
            if let master = engine.redis.master { detail.append(JSONMember("master", .string(master.description))) }
            return HealthReport(isUp ? .up : .degraded, detail: .object(detail))
        }
    }
}
