import Foundation
public import NIOCore
import NIOHTTP1

/// The books over HTTP: the product server's own audit of a product, and each order that a buyer was told of, looked up through the gateway.
///
/// These books prove less than the stores do: a server that lost an order's row and its decrement alike agrees with itself. They do show a buyer who was told
/// what the order is not, units sold beyond the stock, and a Redis that differs from the ledger.
/// Bounds: `connections` look-ups at a time, at most `lookupLimit` orders, spread evenly over those that buyers were told of.
public struct HTTPBooks: Sendable {
    /// Why the books cannot be read.
    public struct Failure: Error, CustomStringConvertible {
        /// What was asked and what came of it.
        public let description: String
    }

    /// What the admin port says of one product.
    struct Figures: Equatable {
        var row: ProductRow
        var ledger: LedgerTotals
        var redis: RedisStock?
    }

    /// Orders that are looked up at most.
    public static let lookupLimit = 50_000
    private static let connections = 32

    private let admin: HTTPEndpoint
    private let gateway: HTTPEndpoint
    private let adminToken: String?
    private let headers: [HeaderField]
    private let ordersPath: String
    private let eventLoop: any EventLoop

    /// - Parameters:
    ///   - admin: the product server's admin port.
    ///   - gateway: where orders are shown, under `ordersPath`/id.
    ///   - headers: sent to the gateway.
    public init(
        admin: HTTPEndpoint,
        adminToken: String?,
        gateway: HTTPEndpoint,
        headers: [HeaderField],
        ordersPath: String = "/order-service/orders",
        eventLoop: any EventLoop
    ) {
        self.admin = admin
        self.adminToken = adminToken
        self.gateway = gateway
        self.headers = headers
        self.ordersPath = ordersPath
        self.eventLoop = eventLoop
    }

    /// Asks for a product that cannot be: says whether the port is there and lets this caller in.
    public func check() async throws {
        let answer = try await ask(0)
        guard answer.status < 500, answer.status != 401, answer.status != 403 else {
            throw Failure(
                description: "the admin port at \(admin.url) answers \(answer.status)" + (answer.status < 500 ? ": set ADMIN_TOKEN" : "")
            )
        }
    }

    private func ask(_ product: Int64) async throws -> HTTPAnswer {
        let caller = try await HTTPCaller.make(endpoint: admin, eventLoop: eventLoop, timeout: .seconds(10))
        defer { caller.close() }
        let token = adminToken.map { [("Authorization", "Bearer \($0)")] } ?? []
        do {
            return try await caller.call(.GET, "/admin/audit/products/\(product)", headers: token)
        } catch {
            throw Failure(description: "the admin port at \(admin.url): \(error)")
        }
    }

    /// The product's figures.
    func figures(of product: Int64) async throws -> Figures {
        let answer = try await ask(product)
        guard answer.status == 200, let figures = Self.figures(json: Data(answer.body.readableBytesView)) else {
            throw Failure(description: "the admin port at \(admin.url) has no audit of product \(product): \(answer.status)")
        }
        return figures
    }

    /// Reads an answer of `/admin/audit/products/{id}`.
    static func figures(json: Data) -> Figures? {
        struct Body: Decodable {
            var initialStock: Int64
            var restocked: Int64
            var sold: Int64
            var returned: Int64
            var databaseStock: Int64
            var redisStock: Int64?
            var redisPending: Int64?
            var fence: Int64
            var redisFence: Int64?
        }
        guard let body = try? JSONDecoder().decode(Body.self, from: json) else { return nil }
        let redis =
            body.redisStock == nil && body.redisFence == nil
            ? nil : RedisStock(counter: body.redisStock, fence: body.redisFence, pending: body.redisPending ?? 0)
        return Figures(
            row: ProductRow(stock: body.databaseStock, fence: body.fence, initialStock: body.initialStock),
            ledger: LedgerTotals(sold: body.sold, returned: body.returned, restocked: body.restocked),
            redis: redis
        )
    }

    /// The figures of a product of which Redis is under the ledger's fence with the ledger's stock and nothing pending; nil if it is not so, or cannot be read.
    func quietLook(at product: Int64) async -> Figures? {
        guard let figures = try? await figures(of: product), let redis = figures.redis, redis.pending == 0,
            redis.fence == figures.row.fence, redis.counter == figures.row.stock
        else { return nil }
        return figures
    }

    // MARK: The audit

    /// What was found out about the orders that buyers were told of.
    struct Orders: Equatable {
        var matching = OrderMatching()
        var confirmedUnits: Int64 = 0
        var confirmed: Int64 = 0
        var pending: Int64 = 0
        var lookedUp = 0
        var told = 0
    }

    /// An order as the gateway shows it; nil where it shows none.
    struct Seen: Equatable, Sendable {
        var status: String
        var quantity: Int64
    }

    /// Reads the figures, looks the orders up, and judges.
    func audit(_ product: Int64, load: LoadFigures, place: Int = 0) async throws -> Audit {
        let figures = try await figures(of: product)
        var orders = try await lookUp(confirmed: load.told(ofProduct: place).confirmed, refused: load.told(ofProduct: place).refused)
        let sold = figures.ledger.sold - figures.ledger.returned
        // The orders that were looked up are a part of those that exist.
        if orders.confirmedUnits > sold {
            orders.matching.add(unitsWithoutDecrement: orders.confirmedUnits - sold)
        }
        return Audit(
            Audit.Input(
                product: figures.row,
                ledger: figures.ledger,
                orders: OrderTotals(confirmedUnits: orders.confirmedUnits, confirmed: orders.confirmed, pending: orders.pending),
                redis: figures.redis,
                matching: orders.matching,
                soldOut: load.soldOut,
                failed: load.failed,
                errors: load.errors
            ),
            basis: .http,
            remarks: [
                "audited over HTTP: the server's own figures, and \(orders.lookedUp.grouped) of the \(orders.told.grouped) orders that buyers were told of"
            ]
        )
    }

    private func lookUp(confirmed: [Int64], refused: [Int64]) async throws -> Orders {
        let told = confirmed.map { ($0, true) } + refused.map { ($0, false) }
        let step = max(1, (told.count + Self.lookupLimit - 1) / Self.lookupLimit)
        let chosen = stride(from: 0, to: told.count, by: step).map { told[$0] }
        var result = Orders()
        result.told = told.count
        result.lookedUp = chosen.count
        result.matching.answersChecked = chosen.count
        // An id that was given to two buyers is seen without asking anybody.
        var known: Set<Int64> = []
        for id in confirmed where !known.insert(id).inserted {
            result.matching.addLostAnswer(order: id, because: "and so was another buyer, by the same id")
        }
        let parts = (0..<Self.connections).map { part in stride(from: part, to: chosen.count, by: Self.connections).map { chosen[$0] } }
        let seen = try await withThrowingTaskGroup(of: [(id: Int64, wasConfirmed: Bool, seen: Seen?)].self) { group in
            for part in parts where !part.isEmpty {
                group.addTask { try await look(at: part) }
            }
            return try await group.reduce(into: []) { $0 += $1 }
        }
        for (id, wasConfirmed, order) in seen { Self.judge(id, wasConfirmed: wasConfirmed, order, &result) }
        return result
    }

    static func judge(_ id: Int64, wasConfirmed: Bool, _ order: Seen?, _ result: inout Orders) {
        if order?.status == "PENDING" { result.pending += 1 }
        if order?.status == "CONFIRMED" {
            result.confirmed += 1
            result.confirmedUnits += order?.quantity ?? 0
        }
        let reason = order.map { "the order is \($0.status)" } ?? "the gateway shows no such order"
        if wasConfirmed {
            // A buyer may have cancelled since: then the success was durable all the same.
            if order?.status != "CONFIRMED", order?.status != "CANCELLED" { result.matching.addLostAnswer(order: id, because: reason) }
        } else if order?.status != "FAILED" {
            result.matching.addWrongRefusal(order: id, because: reason)
        }
    }

    private func look(at orders: [(Int64, Bool)]) async throws -> [(id: Int64, wasConfirmed: Bool, seen: Seen?)] {
        let caller = try await HTTPCaller.make(endpoint: gateway, eventLoop: eventLoop, timeout: .seconds(10))
        defer { caller.close() }
        let fields = headers.map { ($0.name, $0.value) }
        var seen: [(id: Int64, wasConfirmed: Bool, seen: Seen?)] = []
        for (id, wasConfirmed) in orders {
            var tries = 0
            while true {
                tries += 1
                let answer = try? await caller.call(.GET, "\(ordersPath)/\(id)", headers: fields)
                if let answer, answer.status == 200 || answer.status == 404 {
                    seen.append((id, wasConfirmed, answer.status == 200 ? Self.order(answer.body) : nil))
                    break
                }
                guard tries < 5 else {
                    throw Failure(
                        description: "order \(id) cannot be looked up at \(gateway.url): \(answer.map { "\($0.status)" } ?? "no answer")"
                    )
                }
                try await Task.sleep(for: .milliseconds(200 * tries))
            }
        }
        return seen
    }

    static func order(_ body: ByteBuffer) -> Seen? {
        struct Body: Decodable {
            var status: String
            var quantity: Int64?
        }
        let order = try? JSONDecoder().decode(Body.self, from: Data(body.readableBytesView))
        return order.map { Seen(status: $0.status, quantity: $0.quantity ?? 0) }
    }
}
