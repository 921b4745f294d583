import APIErrors
import HotPath
import Hummingbird
import ServerKit
import StockContract
import StockGate
import StrictJSON

/// The routes for stock: decrease and increase by order, and the ledger's entry for a key.
struct StockRoutes: Sendable {
    let engine: StockEngine
    let store: CatalogStore
    let own: OwnProducts

    func register(on router: ServerRouter) {
        router.versioned(.patch, "/products/{id}/stock/decrease-by-order") { request, context -> Response in
            try await decrease(request, context, key: try StockRequestHead.decreaseKey(request))
        }
        router.versioned(.patch, "/products/{id}/stock/increase-by-order") { request, context -> Response in
            try await increase(request, context, key: try StockRequestHead.increaseKey(request))
        }
        router.versioned(.patch, "/products/{id}/stock") { request, context -> Response in
            let key = try StockRequestHead.key(request)
            return key.hasPrefix(StockKey.increasePrefix)
                ? try await increase(request, context, key: try StockKey.checkedIncrease(key))
                : try await decrease(request, context, key: try StockKey.checkedDecrease(key))
        }
        router.versioned(.get, "/products/{id}/stock/requests/{key}") { _, context -> Response in
            let id = try context.pathID(orThrow: .productNotFound)
            try own.check(id)
            let key = try context.pathKey(orThrow: .notFound)
            guard let entry = try await engine.ledger.entry(forKey: key, reader: true), entry.product.rawValue == id,
                entry.direction != .closed
            else {
                throw APIError(.notFound)
            }
            return StockResult(remaining: entry.remaining, message: "OK", isReplayed: true).response()
        }
        router.versioned(.get, "/products/{id}/stock/ledger", query: Listing.parameters) { request, context -> Response in
            let id = try context.pathID(orThrow: .productNotFound)
            try own.check(id)
            let listing = try request.listing()
            guard let (rows, facts) = try await store.ledger(id, listing) else { throw APIError(.productNotFound) }
            return Response.list(rows, listing, facts) { row, json in
                json.object { json in
                    json.member("direction", row.direction)
                    json.member("quantity", row.quantity)
                    json.member("reason", row.reason)
                    json.member("orderId", row.orderID)
                    json.member("requestId", row.requestID)
                    json.member("createdAt", row.createdAt)
                }
            }
        }
    }

    private func decrease(_ request: Request, _ context: ServerRequestContext, key: String) async throws -> Response {
        let id = try context.pathID(orThrow: .productNotFound)
        try own.check(id)
        let head = try StockRequestHead(request)
        let decrease = try DecreaseRequest(try await request.jsonObject(), product: id, key: key, head)
        let loop = context.channel.eventLoop
        let answer = await withCheckedContinuation { continuation in
            loop.execute { engine.decrease(decrease, on: loop, isPatient: head.isPatient) { continuation.resume(returning: $0) } }
        }
        return try answer.result().response()
    }

    private func increase(_ request: Request, _ context: ServerRequestContext, key: String) async throws -> Response {
        let id = try context.pathID(orThrow: .productNotFound)
        try own.check(id)
        _ = try request.idempotencyAttempt()
        let increase = try IncreaseRequest(try await request.jsonObject(), product: id, key: key)
        let loop = context.channel.eventLoop
        let isPatient = StockRequestHead.isPatient(prefer: request.field("prefer"))
        let answer = await withCheckedContinuation { continuation in
            loop.execute { engine.increase(increase, on: loop, isPatient: isPatient) { continuation.resume(returning: $0) } }
        }
        return try answer.result().response()
    }
}

extension DecreaseRequest {
    /// Reads the body of a decrease. Its buyer is checked, but not kept.
    /// - Throws: `VALIDATION_ERROR`, also for a member that a decrease does not know
    init(_ body: JSONObjectReader, product: Int64, key: String, _ head: StockRequestHead) throws(APIError) {
        try body.refuseMembers(otherThan: ["orderId", "quantity", "buyerId"])
        self.init(
            product: ProductID(product),
            key: key,
            orderID: try body.int("orderId", in: Values.idRange),
            quantity: Quantity(try body.int("quantity", in: Values.quantityRange)),
            isRepeat: head.isRepeat,
            since: head.since
        )
        _ = try body.optionalString("buyerId", length: Values.userIDLength)
    }
}

extension IncreaseRequest {
    /// Reads the body of an increase. Its reason is checked, but not kept.
    /// - Throws: `VALIDATION_ERROR`, also for a member that an increase does not know
    init(_ body: JSONObjectReader, product: Int64, key: String) throws(APIError) {
        try body.refuseMembers(otherThan: ["orderId", "quantity", "reason"])
        self.init(
            product: ProductID(product),
            key: key,
            orderID: try body.int("orderId", in: Values.idRange),
            quantity: Quantity(try body.int("quantity", in: Values.quantityRange))
        )
        _ = try body.optionalString("reason", length: Values.reasonLength)
    }
}
