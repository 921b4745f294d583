import FlashSaleKit
import Foundation
import NIOCore
import PostgresClient
import RedisClient

/// One kind of work done by one side: how to prepare it, load it, and check it.
struct Assignment: Sendable, Hashable {
    let work: Work
    let side: Side

    /// Everything that is measured, each of ours beside its peers. `accepted` measures `drained` as well.
    static let all: [Assignment] = [
        Assignment(work: .order, side: .gobatch), Assignment(work: .order, side: .stockGate), Assignment(work: .order, side: .go),
        Assignment(work: .order, side: .gateway), Assignment(work: .order, side: .plain),
        Assignment(work: .durable, side: .gobatch), Assignment(work: .durable, side: .stockGate), Assignment(work: .durable, side: .go),
        Assignment(work: .durable, side: .nginxLuaFsync), Assignment(work: .durable, side: .tarantool),
        Assignment(work: .durable, side: .pgbenchUnits), Assignment(work: .durable, side: .pgbenchFunction),
        Assignment(work: .direct, side: .pgbenchRow), Assignment(work: .direct, side: .stockGate),
        Assignment(work: .accepted, side: .stockGate),
        Assignment(work: .rejected, side: .gobatch), Assignment(work: .rejected, side: .stockGate), Assignment(work: .rejected, side: .go),
        Assignment(work: .soldOut, side: .gobatch), Assignment(work: .soldOut, side: .stockGate),
        Assignment(work: .soldOut, side: .nginxLua),
        Assignment(work: .soldOut, side: .webdis),
    ]

    /// What `--only` names, such as `order StockGate`.
    var name: String { "\(work.rawValue) \(side.rawValue)" }

    /// Connections that it is measured with: those that the table has rows for.
    var clients: [Int] {
        let rows = Row.all
        let works: Set<Work> = work == .accepted ? [.accepted, .drained] : [work]
        let own = rows.filter { works.contains($0.work) && $0.side == side }.map(\.clients)
        let asPeer = rows.filter { works.contains($0.peerWork) && $0.peer == side }.map(\.peerClients)
        return Set(own + asPeer).sorted()
    }

    /// The assignments whose name begins with one of these words, whatever their case; all without words.
    static func selected(_ words: [String]) -> [Assignment] {
        guard !words.isEmpty else { return all }
        return all.filter { one in words.contains { one.name.lowercased().hasPrefix($0.lowercased()) } }
    }
}

/// What one run gave.
struct Outcome: Sendable {
    var samples: [Sample] = []
    var relay: PeerResult.Relay?
}

extension Bench {
    static func decrease(_ path: String, _ turn: Turn) -> ClosedLoop.Request {
        ClosedLoop.Request(
            "PATCH",
            path,
            .numbered(before: "{\"orderId\":", after: ",\"quantity\":1}", keyPrefix: "DEC-"),
            after: turn.firstKey + 1
        )
    }

    private static func order(_ path: String, _ product: Int64, _ turn: Turn, withKeys: Bool = true) -> ClosedLoop.Request {
        let body = "{\"productId\":\(product),\"quantity\":1,\"buyerId\":\"u-1\"}"
        return ClosedLoop.Request("POST", path, .constant(body, keyPrefix: withKeys ? "compare-" : nil), after: turn.firstKey)
    }

    /// Does one assignment once.
    func run(_ assignment: Assignment, _ turn: Turn) async throws -> Outcome {
        switch (assignment.work, assignment.side) {
        case (.order, .gobatch): try await peerOrders(.gobatch, .gobatchOrder, .gobatchProduct, "gobatch", turn)
        case (.order, .go): try await peerOrders(.go, .goOrder, .goProduct, "gopeer", turn)
        case (.order, let side): try await orders(side, turn)
        case (.durable, .gobatch): try await peerDecreases(.gobatch, .gobatchProduct, "gobatch", turn)
        case (.durable, .go): try await peerDecreases(.go, .goProduct, "gopeer", turn)
        case (.durable, .nginxLuaFsync): try await fsyncDecreases(turn)
        case (.durable, .tarantool): try await tarantoolDecreases(turn)
        case (.durable, .pgbenchFunction): try await ledgerFunction(turn)
        case (.durable, .pgbenchUnits): try await unitRows(turn)
        case (.durable, _): try await decreases(.durable, turn)
        case (.direct, .pgbenchRow): try await hotRow(turn)
        case (.direct, _): try await withoutRedis(turn)
        case (.accepted, _), (.drained, _): try await acceptedOrders(turn)
        case (.rejected, .gobatch):
            try await peerRejections(.gobatch, .gobatchOrder, .gobatchProduct, Expectation(statuses: [200, 400]), turn)
        case (.rejected, .go): try await peerRejections(.go, .goOrder, .goProduct, .every(200), turn)
        case (.rejected, _): try await rejections(turn)
        case (.soldOut, .nginxLua): try await counterRefusals(.nginxLua, turn)
        case (.soldOut, .webdis): try await counterRefusals(.webdis, turn)
        case (.soldOut, .gobatch): try await peerRefusals(turn)
        case (.soldOut, _): try await refusals(turn)
        }
    }

    // MARK: StockGate

    func decreases(_ work: Work, _ turn: Turn) async throws -> Outcome {
        let id = try await makeProduct(Self.plenty)
        let load = Load(
            work: work,
            side: .stockGate,
            request: Self.decrease("/products/\(id)/stock/decrease-by-order", turn),
            url: try url("PRODUCT_PORT"),
            expectation: .every(200)
        )
        let (sample, figures) = try await drive(load, turn)
        try await check(id, sold: figures.answers)
        return Outcome(samples: [sample])
    }

    /// The breaker held open: what Redis being down means for every request, without its first second.
    private func withoutRedis(_ turn: Turn) async throws -> Outcome {
        let id = try await makeProduct(Self.plenty)
        try await setBreaker("FORCE_OPEN", until: "FORCED_OPEN")
        let load = Load(
            work: .direct,
            side: .stockGate,
            request: Self.decrease("/products/\(id)/stock/decrease-by-order", turn),
            url: try url("PRODUCT_PORT"),
            expectation: .every(200)
        )
        let (sample, figures) = try await drive(load, turn)
        try await setBreaker("CLOSE", until: "CLOSED")
        try await check(id, sold: figures.answers)
        return Outcome(samples: [sample])
    }

    private func refusals(_ turn: Turn) async throws -> Outcome {
        let id = try await makeSoldOutProduct(turn)
        let load = Load(
            work: .soldOut,
            side: .stockGate,
            request: Self.decrease("/products/\(id)/stock/decrease-by-order", turn),
            url: try url("PRODUCT_PORT"),
            expectation: .every(400)
        )
        let (sample, _) = try await drive(load, turn)
        try await check(id, sold: 10)
        return Outcome(samples: [sample])
    }

    /// Whole orders: every one is CONFIRMED, and nothing but CONFIRMED is in the books in the end.
    private func orders(_ side: Side, _ turn: Turn) async throws -> Outcome {
        let id = try await makeProduct(Self.plenty)
        let dropped = try await droppedEvents()
        let (url, path) =
            switch side {
            case .gateway: (try url("GATEWAY_PORT"), "/order-service/orders")
            case .plain: ("http://127.0.0.1:\(plainPort)", "/orders")
            default: (try url("ORDER_PORT"), "/orders")
            }
        let load = Load(
            work: .order,
            side: side,
            request: Self.order(path, id, turn, withKeys: side != .plain),
            url: url,
            expectation: .every(200)
        )
        let (sample, figures) = try await drive(load, turn) { try await untilRelayed() }
        guard try await droppedEvents() == dropped else {
            throw Failure(description: "order, \(side.rawValue): events of orders were dropped, so the work was less than it should be")
        }
        try await check(id, sold: figures.answers, orders: figures.answers)
        return Outcome(samples: [sample])
    }

    /// The first order after the remembered *sold out* ran out asks again; it is refused like the others, and leaves a FAILED order.
    private func rejections(_ turn: Turn) async throws -> Outcome {
        let id = try await makeSoldOutProduct(turn)
        let load = Load(
            work: .rejected,
            side: .stockGate,
            request: Self.order("/orders", id, turn),
            url: try url("ORDER_PORT"),
            expectation: .every(400)
        )
        let (sample, figures) = try await drive(load, turn) { try await untilRelayed() }
        // The ten units were sold by a decrease that belongs to no order, which an audit of orders would report.
        let failed = Int(try await books.orderTotals(of: id).failed)
        guard failed * 20 <= figures.answers + 20 * turn.clients else {
            throw Failure(description: "rejected: \(failed) of \(figures.answers) sold-out orders were not refused at once")
        }
        try await check(id, sold: 10, failed: 0...failed)
        return Outcome(samples: [sample])
    }

    /// How many are accepted a second while the ones before them are sold, and how many a second reach CONFIRMED.
    private func acceptedOrders(_ turn: Turn) async throws -> Outcome {
        let id = try await makeProduct(Self.plenty)
        let load = Load(
            work: .accepted,
            side: .stockGate,
            request: Self.order("/v2/orders", id, turn),
            url: try url("ORDER_PORT"),
            expectation: .every(202)
        )
        let (sample, figures) = try await drive(load, turn) {
            try await untilRelayed()
            _ = try await Audit.settle(books, product: id, bound: .seconds(60), interval: .milliseconds(100))
        }
        try await check(id, sold: figures.answers, orders: figures.answers)
        var drained = sample
        drained.work = .drained
        drained.requests = figures.answers
        drained.seconds = try await drainSeconds(id)
        var outcome = Outcome(samples: [sample, drained])
        if turn.clients == 128 { outcome.relay = try await relayAtHalfLoad(turn, full: sample.rate) }
        return outcome
    }

    /// From the first acceptance to the last confirmation, by the order database's own times.
    private func drainSeconds(_ product: Int64) async throws -> Double {
        var first = Int64.max
        var last = Int64.min
        var after: Int64 = 0
        // Until a page is not full: the number of orders bounds it.
        while true {
            let page = try await books.orderEndings(of: product, after: after, limit: 25_000)
            for order in page {
                first = min(first, order.createdAt)
                last = max(last, order.updatedAt)
            }
            guard page.count == 25_000, let end = page.last else { break }
            after = end.id
        }
        guard last > first else { throw Failure(description: "drained: the orders have no times") }
        return Double(last - first) / 1e6
    }

    /// Places orders at about half of the rate just sustained: how long their messages take to the broker.
    private func relayAtHalfLoad(_ turn: Turn, full: Double) async throws -> PeerResult.Relay {
        let id = try await makeProduct(Self.plenty)
        let before = try await orderMetrics().buckets("stockgate_outbox_relay_seconds", label: "kind=\"commands\"")
        // A connection's turn is its wait and the answer's time, which is some 5 ms at this load.
        let pause = max(1, Double(turn.clients) * 2000 / max(full, 1) - 5)
        var half = turn
        half.firstKey += 500_000_000
        let load = Load(
            work: .accepted,
            side: .stockGate,
            request: Self.order("/v2/orders", id, half),
            url: try url("ORDER_PORT"),
            expectation: .every(202),
            pause: .seconds(pause / 1000)
        )
        let (sample, figures) = try await drive(load, half) { try await untilRelayed() }
        let delays = try await orderMetrics().buckets("stockgate_outbox_relay_seconds", label: "kind=\"commands\"").since(before)
        guard let p50 = delays.bound(at: 0.5), let p99 = delays.bound(at: 0.99) else {
            throw Failure(description: "relay: no message was counted")
        }
        try await check(id, sold: figures.answers, orders: figures.answers)
        // JSON has no word for a bound that is infinite.
        func milliseconds(_ bound: Double) -> Double { min(bound, 1e6) * 1000 }
        return PeerResult.Relay(rate: sample.rate, fullRate: full, p50: milliseconds(p50), p99: milliseconds(p99))
    }

    // MARK: The Go peers

    private func peerOrders(_ side: Side, _ order: PeerStand.Name, _ product: PeerStand.Name, _ schema: String, _ turn: Turn) async throws
        -> Outcome
    {
        try await resetGo(product, Self.plenty)
        let load = Load(
            work: .order,
            side: side,
            request: Self.order("/orders", 1, turn),
            url: try peers.endpoint(order).url,
            expectation: .every(200)
        )
        let (sample, figures) = try await drive(load, turn)
        try await checkPeer(side, answered: figures.answers) { try await peerStock(schema) }
        return Outcome(samples: [sample])
    }

    private func peerDecreases(_ side: Side, _ peer: PeerStand.Name, _ schema: String, _ turn: Turn) async throws -> Outcome {
        try await resetGo(peer, Self.plenty)
        let load = Load(
            work: .durable,
            side: side,
            request: Self.decrease("/products/1/stock/decrease-by-order", turn),
            url: try peers.endpoint(peer).url,
            expectation: .every(200)
        )
        let (sample, figures) = try await drive(load, turn)
        try await checkPeer(side, answered: figures.answers) { try await peerStock(schema) }
        return Outcome(samples: [sample])
    }

    private func peerRejections(
        _ side: Side,
        _ order: PeerStand.Name,
        _ product: PeerStand.Name,
        _ expectation: Expectation,
        _ turn: Turn
    ) async throws -> Outcome {
        try await resetGo(product, 0)
        let load = Load(
            work: .rejected,
            side: side,
            request: Self.order("/orders", 1, turn),
            url: try peers.endpoint(order).url,
            expectation: expectation
        )
        return Outcome(samples: [try await drive(load, turn).sample])
    }

    private func peerRefusals(_ turn: Turn) async throws -> Outcome {
        try await resetGo(.gobatchProduct, 0)
        let load = Load(
            work: .soldOut,
            side: .gobatch,
            request: Self.decrease("/products/1/stock/decrease-by-order", turn),
            url: try peers.endpoint(.gobatchProduct).url,
            expectation: .every(400)
        )
        return Outcome(samples: [try await drive(load, turn).sample])
    }
}
