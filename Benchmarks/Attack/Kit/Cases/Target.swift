/// Where a case is sent: a server's or the gateway's port, and the kind of request that changes something there.
enum Target: Int, CaseIterable, Sendable {
    case productHot, productRouter, productAdmin
    case orderHot, orderRouter, orderAsync
    case gatewayProductHot, gatewayProductRouter
    case gatewayOrderHot, gatewayOrderAsync

    var name: String {
        switch self {
        case .productHot: "product hot"
        case .productRouter: "product router"
        case .productAdmin: "product admin"
        case .orderHot: "order hot"
        case .orderRouter: "order router"
        case .orderAsync: "order v2"
        case .gatewayProductHot: "gateway product hot"
        case .gatewayProductRouter: "gateway product router"
        case .gatewayOrderHot: "gateway order hot"
        case .gatewayOrderAsync: "gateway order v2"
        }
    }

    var isGateway: Bool { rawValue >= Target.gatewayProductHot.rawValue }

    /// The target of the same route without the gateway.
    var direct: Target {
        switch self {
        case .gatewayProductHot: .productHot
        case .gatewayProductRouter: .productRouter
        case .gatewayOrderHot: .orderHot
        case .gatewayOrderAsync: .orderAsync
        default: self
        }
    }

    /// Whether the target belongs to the product server.
    var isProduct: Bool {
        switch self {
        case .productHot, .productRouter, .productAdmin, .gatewayProductHot, .gatewayProductRouter: true
        default: false
        }
    }

    /// What is in front of a server's own path.
    var prefix: String { !isGateway ? "" : isProduct ? "/product-service" : "/order-service" }

    /// The targets of each column of the table.
    static let columns: [(title: String, targets: [Target])] = [
        ("product: hot / router / admin", [.productHot, .productRouter, .productAdmin]),
        ("order: hot / router / v2", [.orderHot, .orderRouter, .orderAsync]),
        ("gateway: product", [.gatewayProductHot, .gatewayProductRouter]),
        ("gateway: orders", [.gatewayOrderHot, .gatewayOrderAsync]),
    ]
}

/// The goods that are attacked.
struct Goods: Sendable, Equatable {
    /// A product that is sold through Redis.
    var hot: Int64
    var hotCode: String
    /// A product that is sold through the ledger alone, for changes by hand: each of them would make Redis resync the hot product.
    var plain: Int64
    let price: Int64 = 1000
}

/// Makes the requests of one run: each has a number of its own, so that no two can be taken for each other in the stores.
struct Requests: Sendable {
    /// Letters and digits that no other run has.
    let run: String
    let goods: Goods
    /// Added to all order ids of the ledger.
    let base: Int64
    /// What the product server's own port asks for on its stock routes; nil where it asks for nothing. The gateway shows a token of its own.
    var token: String?

    /// Keys of this run begin so in the ledger.
    var keyPrefixes: [String] { ["DEC-\(run).", "ATK-\(run)."] }
    /// Buyers of this run begin so.
    var buyerPrefix: String { "atk-\(run)." }

    /// The request of a target that changes something, number `number` of the run.
    func changing(_ target: Target, _ number: Int, port: Int) -> Draft {
        let host = "127.0.0.1:\(port)"
        let name = "\(run).\(number)"
        let key: String?
        let method: String
        let path: String
        let body: String
        let effect: String
        switch target {
        case .productHot, .gatewayProductHot, .productRouter, .gatewayProductRouter:
            let isHot = target.direct == .productHot
            method = "PATCH"
            path = "/products/\(goods.hot)/stock" + (isHot ? "/decrease-by-order" : "")
            body = "{\"orderId\":\(base + Int64(number)),\"quantity\":1}"
            key = "DEC-\(name)"
            effect = "DEC-\(name)"
        case .productAdmin:
            method = "POST"
            path = "/admin/products/\(goods.plain)/stock-adjustments"
            body = "{\"quantity\":1,\"reason\":\"attack\"}"
            key = "ATK-\(name)"
            effect = "ATK-\(name)"
        case .orderHot, .gatewayOrderHot, .orderAsync, .gatewayOrderAsync:
            method = "POST"
            path = target.direct == .orderHot ? "/orders" : "/v2/orders"
            body = "{\"productId\":\(goods.hot),\"quantity\":1,\"buyerId\":\"atk-\(name)\"}"
            key = "atk-\(name)"
            effect = "atk-\(name)"
        case .orderRouter:
            method = "POST"
            path = "/atk-\(name)/orders"
            body = "{\"productId\":\"\(goods.hotCode)\",\"qty\":1,\"unitPrice\":\(goods.price)}"
            key = "atk-\(name)"
            effect = "atk-\(name)"
        }
        var lines = ["Host: \(host)", "X-Request-Id: \(name)", "Content-Type: application/json"]
        if let key { lines.append("Idempotency-Key: \(key)") }
        if let token, target == .productHot || target == .productRouter { lines.append("Authorization: Bearer \(token)") }
        lines.append("Content-Length: \(body.byteCount)")
        return Draft(method: method, target: target.prefix + path, lines: lines, body: body, id: name, effect: effect)
    }

    /// A read that any buyer may do.
    func reading(_ target: Target, _ number: Int, port: Int) -> Draft {
        let path =
            target == .productAdmin
            ? "/admin/audit/products/\(goods.plain)" : target.isProduct ? "/products/\(goods.hot)" : "/orders?size=1"
        return bodiless("GET", target.prefix + path, number, port)
    }

    /// The request that shows whether a connection is still in step: it is answered with its own id, and closes.
    func probe(_ target: Target, _ number: Int, port: Int) -> Draft {
        bodiless("GET", target.prefix + (target == .productAdmin ? "/metrics" : "/livez"), number, port).adding("Connection: close")
    }

    /// A request without a body.
    func bodiless(_ method: String, _ target: String, _ number: Int, _ port: Int) -> Draft {
        let id = "\(run).\(number)"
        return Draft(
            method: method,
            target: target,
            lines: ["Host: 127.0.0.1:\(port)", "X-Request-Id: \(id)"],
            body: "",
            id: id,
            effect: nil
        )
    }
}
