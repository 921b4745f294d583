import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import Synchronization

@testable import FlashSaleKit

/// A stand-in for both servers, the gateway, the databases and Redis: enough to hold a sale in memory.
///
/// It is *down* (Redis, that is) while a file exists that the stand-in for the stack script makes and removes; its breaker follows.
final class Shop: Sendable, AuditSource {
    /// What it does wrong.
    struct Faults: Sendable {
        /// Every n-th order's first answer is 503 although the order was confirmed.
        var unclearEvery: Int?
        /// Every n-th order's first answer never comes.
        var silentEvery: Int?
        /// The n-th order is confirmed to the buyer and forgotten.
        var forgets: Int64?
        /// The n-th order is confirmed, and its buyer is told that it is sold out.
        var denies: Int64?
        /// The n-th order's buyer is told of the order before.
        var confuses: Int64?
        /// Every n-th repeat of a key makes another order.
        var splits = false
        /// Cancellations are promised and forgotten.
        var forgetsCancellations = false
        /// Every order is refused.
        var refusesAll = false
        /// How long an accepted order stays PENDING.
        var decidesAfter = Duration.zero
        /// Messages that are never sent.
        var messages = OutboxTotals(open: 0, dead: 0)
        /// What the product server asks for.
        var token: String?
        /// The gateway does not show the product.
        var hidesProduct = false
        /// How long each answer takes.
        var delay = TimeAmount.zero
        /// What the gateway asks every request to have, as `Name: value`.
        var header: String?
        /// Whether it speaks TLS.
        var isEncrypted = false
        /// What the admin port asks for.
        var adminToken: String?
        /// By how much Redis is off.
        var drift: Int64 = 0
        /// Products that it makes.
        var makesAtMost = Int.max
    }

    private struct State {
        var units: Int64 = 0
        var stock: Int64 = 0
        var orders: [(key: String, row: OrderRow)] = []
        var byKey: [String: Int] = [:]
        var attempts: [String: Int] = [:]
        var soldOut: Set<String> = []
        var isDown = false
        var breaker = "CLOSED"
        var backAt: ContinuousClock.Instant?
        var events: [[String: String]] = []
        var soldWhileDown = 0
        var malformed = 0
        var strangers = 0
        var productsMade = 0
        var endings: [OrderEnding] = []
        /// When the last accepted order is decided.
        var decidedAt: ContinuousClock.Instant?
    }

    private let state = Mutex(State())
    private let faults: Faults
    private let downFile: String
    private let group: MultiThreadedEventLoopGroup
    private let channel: Mutex<(any Channel)?> = Mutex(nil)

    init(faults: Faults = Faults(), downFile: String = "/nonexistent") {
        self.faults = faults
        self.downFile = downFile
        group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    }

    /// Requests without the header that the gateway asks for.
    var strangers: Int { state.withLock { $0.strangers } }
    var productsMade: Int { state.withLock { $0.productsMade } }

    func open() async throws -> String {
        let tls = try faults.isEncrypted ? Self.tls() : nil
        let channel = try await ServerBootstrap(group: group)
            .serverChannelOption(.backlog, value: 256)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    if let tls { try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: tls)) }
                    try channel.pipeline.syncOperations.configureHTTPServerPipeline()
                    try channel.pipeline.syncOperations.addHandler(ShopHandler(self))
                }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        self.channel.withLock { $0 = channel }
        return "\(faults.isEncrypted ? "https" : "http")://127.0.0.1:\(channel.localAddress?.port ?? 0)"
    }

    private static func tls() throws -> NIOSSLContext {
        let certificates = try NIOSSLCertificate.fromPEMBytes(Array(TestCertificate.certificate.utf8))
        let key = try NIOSSLPrivateKey(bytes: Array(TestCertificate.key.utf8), format: .pem)
        return try NIOSSLContext(
            configuration: .makeServerConfiguration(certificateChain: certificates.map { .certificate($0) }, privateKey: .privateKey(key))
        )
    }

    func close() async {
        let channel = self.channel.withLock { $0 }
        try? await channel?.close().get()
        try? await group.shutdownGracefully()
    }

    /// Puts units on sale without a product server's help.
    func stock(_ units: Int64) {
        state.withLock {
            $0.units = units
            $0.stock = units
        }
    }

    /// Orders confirmed while Redis was down.
    var soldWhileDown: Int { state.withLock { $0.soldWhileDown } }
    /// Requests without a key, and repeats whose attempt number is wrong.
    var malformed: Int { state.withLock { $0.malformed } }

    enum Reply {
        case answer(HTTPResponseStatus, String, after: TimeAmount)
        case silence
    }

    fileprivate func reply(to head: HTTPRequestHead, body: String) -> Reply {
        state.withLock { state in
            follow(&state)
            if let header = faults.header, head.uri.hasPrefix("/order-service") || head.uri.hasPrefix("/product-service") {
                let parts = header.components(separatedBy: ": ")
                guard head.headers[parts[0]] == [parts[1]] else {
                    state.strangers += 1
                    return .answer(.unauthorized, "{\"error\":\"UNAUTHORIZED\"}", after: .zero)
                }
            }
            if let token = faults.adminToken, head.uri.hasPrefix("/admin"), head.headers["authorization"] != ["Bearer \(token)"] {
                return .answer(.unauthorized, "{\"error\":\"UNAUTHORIZED\"}", after: .zero)
            }
            if head.method == .GET, let shown = show(head.uri, state) { return shown }
            switch (head.method, head.uri) {
            case (.POST, "/products"):
                guard faults.token == nil || head.headers.first(name: "authorization") == faults.token.map({ "Bearer \($0)" }) else {
                    return .answer(.unauthorized, "{\"error\":\"UNAUTHORIZED\"}", after: .zero)
                }
                guard state.productsMade < faults.makesAtMost else { return .answer(.serviceUnavailable, "{}", after: .zero) }
                state.productsMade += 1
                let object = (try? JSONSerialization.jsonObject(with: Data(body.utf8))) as? [String: Any]
                state.units = (object?["stock"] as? NSNumber)?.int64Value ?? 0
                state.stock = state.units
                return .answer(.ok, "{\"id\":1,\"stock\":\(state.units),\"stockStrategy\":\"REDIS_FIRST\"}", after: .zero)
            case (.GET, "/product-service/products/1"):
                return faults.hidesProduct
                    ? .answer(.notFound, "{\"error\":\"PRODUCT_NOT_FOUND\"}", after: .zero)
                    : .answer(.ok, "{\"id\":1,\"stock\":\(state.stock)}", after: .zero)
            case (.POST, let path) where path.hasSuffix("/cancel"):
                return cancel(path, &state)
            case (.POST, "/order-service/orders"):
                return order(head, &state)
            case (.POST, "/order-service/v2/orders"):
                return accept(head, &state)
            case (.GET, "/admin/circuitbreakers"):
                return .answer(.ok, "{\"circuitBreakers\":{\"redisStock\":{\"state\":\"\(state.breaker)\"}}}", after: .zero)
            case (.GET, "/admin/circuitbreakerevents"):
                let data = (try? JSONEncoder().encode(["circuitBreakerEvents": state.events])) ?? Data()
                return .answer(.ok, String(decoding: data, as: UTF8.self), after: .zero)
            default:
                return .answer(.notFound, "{\"error\":\"NOT_FOUND\"}", after: .zero)
            }
        }
    }

    /// What the admin port says of the product, and single orders as the gateway shows them.
    private func show(_ path: String, _ state: State) -> Reply? {
        if path == "/admin/audit/products/1" {
            let text = """
                {"initialStock":\(state.units),"restocked":0,"sold":\(state.units - state.stock),"returned":0,"databaseStock":\(state.stock),
                "redisStock":\(state.stock + faults.drift),"redisPending":0,"fence":1,"redisFence":1,"drift":\(faults.drift)}
                """
            return .answer(.ok, text, after: .zero)
        }
        let orders = "/order-service/orders/"
        guard path.hasPrefix(orders), let id = Int64(path.dropFirst(orders.count)) else { return nil }
        guard let row = rows(state).first(where: { $0.id == id }) else {
            return .answer(.notFound, "{\"error\":\"ORDER_NOT_FOUND\"}", after: .zero)
        }
        return .answer(.ok, "{\"id\":\(id),\"status\":\"\(row.status)\",\"quantity\":\(row.quantity)}", after: .zero)
    }

    private func follow(_ state: inout State) {
        func enter(_ breaker: String) {
            let time = Date.now.formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true))
            state.events.append(["type": "STATE_TRANSITION", "creationTime": time, "stateTransition": "\(state.breaker)_TO_\(breaker)"])
            state.breaker = breaker
        }
        let isDown = FileManager.default.fileExists(atPath: downFile)
        if isDown, !state.isDown { enter("OPEN") }
        if !isDown, state.isDown { state.backAt = .now }
        state.isDown = isDown
        if let backAt = state.backAt, !isDown {
            let since = ContinuousClock.now - backAt
            if state.breaker == "OPEN", since > .milliseconds(100) { enter("HALF_OPEN") }
            if state.breaker == "HALF_OPEN", since > .milliseconds(200) { enter("CLOSED") }
        }
    }

    private func order(_ head: HTTPRequestHead, _ state: inout State) -> Reply {
        guard let key = head.headers.first(name: "idempotency-key") else {
            state.malformed += 1
            return .answer(.badRequest, "{\"error\":\"VALIDATION_ERROR\"}", after: .zero)
        }
        let attempt = state.attempts[key, default: 0] + 1
        state.attempts[key] = attempt
        if (head.headers.first(name: "idempotency-attempt").flatMap { Int($0) } ?? 1) != attempt { state.malformed += 1 }
        if faults.refusesAll { return .answer(.internalServerError, "{\"error\":\"INTERNAL\"}", after: .zero) }
        if faults.splits, attempt == 2 { state.byKey[key] = nil }
        if state.byKey[key] == nil, !state.soldOut.contains(key) {
            if state.stock > 0 {
                state.stock -= 1
                let id = Int64(state.orders.count + 1)
                state.byKey[key] = state.orders.count
                state.orders.append((key, OrderRow(id: id, status: "CONFIRMED", quantity: 1, key: key, buyer: "buyer")))
                if state.isDown { state.soldWhileDown += 1 }
            } else {
                state.soldOut.insert(key)
            }
        }
        let number = state.attempts.count
        if attempt == 1, let every = faults.silentEvery, number.isMultiple(of: every) { return .silence }
        if attempt == 1, let every = faults.unclearEvery, number.isMultiple(of: every) {
            return .answer(.serviceUnavailable, "{\"error\":\"UNAVAILABLE\"}", after: faults.delay)
        }
        guard let index = state.byKey[key] else { return .answer(.badRequest, "{\"error\":\"INSUFFICIENT_STOCK\"}", after: faults.delay) }
        let id = state.orders[index].row.id
        if id == faults.denies { return .answer(.badRequest, "{\"error\":\"INSUFFICIENT_STOCK\"}", after: faults.delay) }
        return .answer(
            .ok,
            "{\"id\":\(id == faults.confuses ? id - 1 : id),\"status\":\"CONFIRMED\",\"failReason\":null}",
            after: faults.delay
        )
    }

    private func cancel(_ path: String, _ state: inout State) -> Reply {
        let id = path.split(separator: "/").dropLast().last.flatMap { Int($0) } ?? 0
        guard state.orders.indices.contains(id - 1), state.orders[id - 1].row.status == "CONFIRMED" else {
            return .answer(.badRequest, "{\"error\":\"INVALID_STATE\"}", after: .zero)
        }
        if !faults.forgetsCancellations {
            state.orders[id - 1].row.status = "CANCELLED"
            state.stock += 1
        }
        return .answer(.ok, "{\"id\":\(id),\"status\":\"CANCELLED\"}", after: .zero)
    }

    /// Accepts 50 orders more than there are units, as a server does that learns of the sold-out product late.
    private func accept(_ head: HTTPRequestHead, _ state: inout State) -> Reply {
        let key = head.headers.first(name: "idempotency-key") ?? ""
        let attempt = state.attempts[key, default: 0] + 1
        state.attempts[key] = attempt
        if state.byKey[key] == nil {
            guard state.orders.count < state.units + 50 else {
                return .answer(.badRequest, "{\"error\":\"INSUFFICIENT_STOCK\"}", after: faults.delay)
            }
            let id = Int64(state.orders.count + 1)
            let isSold = state.stock > 0
            if isSold { state.stock -= 1 }
            state.byKey[key] = state.orders.count
            state.orders.append((key, OrderRow(id: id, status: isSold ? "CONFIRMED" : "FAILED", quantity: 1)))
            let now = Int64(Date.now.timeIntervalSince1970 * 1e6)
            state.endings.append(
                OrderEnding(
                    id: id,
                    status: isSold ? "CONFIRMED" : "FAILED",
                    failReason: isSold ? nil : "INSUFFICIENT_STOCK",
                    createdAt: now,
                    updatedAt: now + faults.decidesAfter.components.attoseconds / 1_000_000_000_000
                )
            )
            state.decidedAt = .now + faults.decidesAfter
        }
        let number = state.attempts.count
        if attempt == 1, let every = faults.unclearEvery, number.isMultiple(of: every) {
            return .answer(.serviceUnavailable, "{\"error\":\"UNAVAILABLE\"}", after: faults.delay)
        }
        let id = (state.byKey[key] ?? 0) + 1
        return .answer(.accepted, "{\"id\":\(id),\"status\":\"PENDING\",\"failReason\":null}", after: faults.delay)
    }

    // MARK: The books

    private func rows(_ state: State) -> [OrderRow] {
        state.orders.map(\.row).filter { $0.id != faults.forgets }
    }
    private func confirmed(_ state: State) -> [OrderRow] { rows(state).filter { $0.status == "CONFIRMED" } }
    private func pending(_ state: State) -> Int64 { state.decidedAt.map { $0 > .now } ?? false ? 1 : 0 }

    func orderEndings(of product: Int64, after: Int64, limit: Int) async throws -> [OrderEnding] {
        state.withLock { Array($0.endings.filter { $0.id > after && $0.id != faults.forgets }.prefix(limit)) }
    }
    func outbox(of product: Int64) async throws -> OutboxTotals { faults.messages }
    func hasWaitingMessages() async throws -> Bool { false }

    func product(_ id: Int64) async throws -> ProductRow? {
        state.withLock { ProductRow(stock: $0.stock, fence: 1, initialStock: $0.units) }
    }
    func ledgerTotals(of product: Int64) async throws -> LedgerTotals {
        state.withLock { state in
            let returned = Int64(state.orders.count { $0.row.status == "CANCELLED" })
            return LedgerTotals(sold: state.units - state.stock + returned, returned: returned, restocked: 0)
        }
    }
    func orderTotals(of product: Int64) async throws -> OrderTotals {
        state.withLock {
            OrderTotals(confirmedUnits: Int64(confirmed($0).count), confirmed: Int64(confirmed($0).count), pending: pending($0))
        }
    }
    func redisStock(of product: Int64) async -> RedisStock? {
        state.withLock { state in
            FileManager.default.fileExists(atPath: downFile) ? nil : RedisStock(counter: state.stock, fence: 1, pending: 0)
        }
    }
    func orders(of product: Int64, after: Int64, limit: Int) async throws -> [OrderRow] {
        state.withLock { Array(rows($0).filter { $0.id > after }.prefix(limit)) }
    }
    func ledger(of product: Int64, after: Int64, limit: Int) async throws -> [LedgerRow] {
        state.withLock { state in
            Array(
                state.orders.filter { $0.row.status != "FAILED" }.map {
                    let returned: Int64 = $0.row.status == "CANCELLED" ? 1 : 0
                    return LedgerRow(orderID: $0.row.id, decrements: 1, decremented: 1, increments: returned, incremented: returned)
                }
                .filter { $0.orderID > after }.prefix(
                    limit
                )
            )
        }
    }
}

private final class ShopHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let shop: Shop
    private var head: HTTPRequestHead?
    private var body = ByteBuffer()

    init(_ shop: Shop) {
        self.shop = shop
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        switch unwrapInboundIn(data) {
        case .head(let head):
            self.head = head
            body.clear()
        case .body(var bytes):
            body.writeBuffer(&bytes)
        case .end:
            guard let head, case .answer(let status, let text, let delay) = shop.reply(to: head, body: String(buffer: body)) else { return }
            guard delay > .zero else { return answer(context, status, text) }
            let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
            context.eventLoop.scheduleTask(in: delay) { bound.value.0.answer(bound.value.1, status, text) }
        }
    }

    private func answer(_ context: ChannelHandlerContext, _ status: HTTPResponseStatus, _ text: String) {
        let bytes = ByteBuffer(string: text)
        let headers = HTTPHeaders([("Content-Type", "application/json"), ("Content-Length", String(bytes.readableBytes))])
        context.write(wrapOutboundOut(.head(HTTPResponseHead(version: .http1_1, status: status, headers: headers))), promise: nil)
        context.write(wrapOutboundOut(.body(.byteBuffer(bytes))), promise: nil)
        context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: nil)
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        context.close(promise: nil)
    }
}
