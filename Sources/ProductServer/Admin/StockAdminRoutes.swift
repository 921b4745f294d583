import APIErrors
import Hummingbird
import Logging
import ServerKit
import StockContract
import StockGate
import StrictJSON

/// The routes by which operators change stock, and ask about it.
struct StockAdminRoutes: Sendable {
    let engine: StockEngine
    let own: OwnProducts

    func register(on router: ServerRouter) {
        router.post("/admin/products/{id}/load-stock-redis") { _, context -> Response in
            let id = try context.pathID(orThrow: .productNotFound)
            guard let isGated = try await engine.ledger.isGated(ProductID(id)) else { throw APIError(.productNotFound) }
            guard isGated else { throw APIError(.invalidState, message: .notGated, details: ["stockStrategy": "DB_ONLY"]) }
            // Two rounds: if a newer install came between, the first round says nothing about its stock, but the second one does.
            for _ in 0..<2 {
                let outcome = await engine.resync(ProductID(id))
                if let theirs = outcome.foreignLedger {
                    throw APIError(.invalidState, details: ["redisLedger": .string(theirs), "ledger": .string(engine.ledgerName)])
                }
                if case .installed(let ledger) = outcome {
                    engine.setGated(ProductID(id), true)
                    context.logger.info("stock loaded into Redis", metadata: ["product": "\(id)", "fence": "\(ledger.fence)"])
                    return .json { json in
                        json.object { json in
                            json.member("productId", id)
                            json.member("stock", ledger.stock)
                            json.member("fence", ledger.fence.rawValue)
                        }
                    }
                }
            }
            throw APIError(.unavailable, retryAfter: .seconds(1))
        }
        router.post("/admin/products/{id}/stock-adjustments") { request, context -> Response in
            let id = try context.pathID(orThrow: .productNotFound)
            try own.check(id)
            let key = try request.requiredIdempotencyKey()
            // Keys of these forms belong to orders.
            let isOfOrder = [StockKey.decreasePrefix, StockKey.increasePrefix].contains { key.hasPrefix($0) }
            if isOfOrder { throw APIError.invalid(field: "Idempotency-Key") }
            let body = try await request.jsonObject()
            let maximum = Values.stockRange.upperBound
            let quantity = try body.int("quantity", in: -maximum...maximum)
            guard quantity != 0 else {
                throw APIError.invalid(field: "quantity", .signedQuantity, JSONMember("maximum", .int(maximum)))
            }
            let reason = try body.optionalString("reason", length: Values.reasonLength)
            let (outcome, remaining) = try await engine.adjust(ProductID(id), key: key, by: quantity, maximum: maximum)
            switch outcome {
            case .done, .duplicate:
                context.logger.notice(
                    "stock adjusted",
                    metadata: [
                        "product": "\(id)", "quantity": "\(quantity)", "key": "\(key)", "by": "\(context.actor ?? "")",
                        "reason": "\(reason ?? "")", "replayed": "\(outcome == .duplicate)",
                    ]
                )
                return StockResult(remaining: remaining, message: "OK", isReplayed: outcome == .duplicate).response()
            case .belowZero: throw APIError(.insufficientStock, details: ["remainingStock": .int(remaining)])
            case .aboveMaximum: throw APIError.invalid(field: "quantity", .stockRange)
            case .keyReused: throw APIError(.keyReused)
            case .productMissing: throw APIError(.productNotFound)
            }
        }
        router.get("/admin/audit/products/{id}") { _, context -> Response in
            let id = try context.pathID(orThrow: .productNotFound)
            guard let (ledger, gate) = try await engine.audit(ProductID(id)) else { throw APIError(.productNotFound) }
            let counter = gate?.counter
            return .json { json in
                json.object { json in
                    json.member("initialStock", ledger.initialStock)
                    json.member("restocked", ledger.restocked)
                    json.member("sold", ledger.sold)
                    json.member("returned", ledger.returned)
                    json.member("databaseStock", ledger.stock)
                    json.member("redisStock", counter)
                    json.member("redisPending", gate.map { Int64($0.pending) })
                    json.member("fence", ledger.fence.rawValue)
                    json.member("redisFence", gate?.fence.rawValue)
                    // How many more units Redis offers than the ledger has. Units of pending reservations are held back, though the ledger has not taken them
                    // yet.
                    json.member("drift", counter.map(ledger.drift))
                }
            }
        }
    }
}
