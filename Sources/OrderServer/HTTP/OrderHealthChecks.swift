import CircuitBreaker
import MessageBroker
import PostgresClient
import ServerKit
import StrictJSON

/// The health checks behind an order server's `/readyz`.
extension HealthCheck {
    /// Asks the sessions that write orders, because another connection may work while these do not.
    static func database(_ insertion: OrderInsertion, _ completion: OrderCompletion, _ keys: KeyLookup) -> HealthCheck {
        HealthCheck("database") {
            async let inserting = insertion.troubleWriting()
            async let completing = completion.troubleWriting()
            async let looking = keys.troubleWriting()
            let (insert, complete, look) = await (inserting, completing, looking)
            guard let trouble = insert ?? complete ?? look else { return HealthReport(.up) }
            return HealthReport(
                insert == nil && complete == nil ? .degraded : .down,
                detail: [
                    "reason": .string(String(describing: trouble)), "canMakeOrders": .bool(insert == nil),
                    "canCompleteOrders": .bool(complete == nil), "canFindKeys": .bool(look == nil),
                ]
            )
        }
    }

    /// Without the product server, an order server can still show and keep orders.
    static func productServer(_ breaker: CircuitBreaker, _ answering: ProductAnswering) -> HealthCheck {
        HealthCheck(breaker.name, timeoutState: .degraded) {
            let (state, trouble) = (breaker.state, answering.trouble)
            var detail = [JSONMember("breaker", .string(state.rawValue))]
            if let trouble { detail.append(JSONMember("why", .string(trouble))) }
            return HealthReport(state == .closed && trouble == nil ? .up : .degraded, detail: .object(detail))
        }
    }

    /// Degraded: the broker is away, takes no messages (memory, disk or a queue is full), or brought no results for what it took. The server still sells over
    /// HTTP and accepts orders up to a bound. It is down if both ways are closed: the bound of waiting orders is reached, and the breaker of every cell keeps
    /// calls from the product servers.
    static func broker(_ endpoints: MessageEndpoints, _ backlog: OutboxBacklog, _ cells: ProductCells) -> HealthCheck {
        HealthCheck("broker", timeoutState: .degraded) {
            let snapshots = [endpoints.publisher.snapshot(), endpoints.events.snapshot(), endpoints.results.snapshot()]
            let (publisher, events, results) = (snapshots[0].isConnected, snapshots[1].isConnected, snapshots[2].isConnected)
            // Several connections may fail with the same words, which are reported once.
            let failures = Set(snapshots.compactMap { $0.isConnected ? nil : $0.lastFailure.map { Redaction.masked($0.message) } })
            let nodes = Set(snapshots.compactMap { $0.isConnected ? $0.address?.description : nil })
            let blocked = snapshots[0].blockedReason ?? snapshots[1].blockedReason
            let refused = Set(snapshots.flatMap(\.refusedRoutes)).sorted()
            let unanswered = backlog.unanswered
            let isFull = backlog.orders >= backlog.maximumOrders
            let state: HealthState =
                if isFull, cells.areAllWaiting {
                    .down
                } else if publisher, events, results, blocked == nil, refused.isEmpty, unanswered == 0, !isFull { .up } else {
                    .degraded
                }
            return HealthReport(
                state,
                detail: [
                    "commandsConnected": .bool(publisher), "eventsConnected": .bool(events), "resultsConnected": .bool(results),
                    "nodes": .array(nodes.sorted().map { .string($0) }), "blocked": blocked.map { .string($0) } ?? .null,
                    "refused": .array(refused.map { .string($0) }), "unansweredOrders": .int(Int64(unanswered)),
                    "waitingOrders": .int(Int64(backlog.orders)), "maximumWaitingOrders": .int(Int64(backlog.maximumOrders)),
                    "waitingEvents": .int(Int64(backlog.events)),
                    "failures": .array(failures.sorted().map { .string($0) }),
                ]
            )
        }
    }
}
