import Foundation

/// Asks the gateway, in every way of writing a path, for what it must not open.
struct AccessPart {
    let stand: Stand
    let requests: Requests

    private struct Attempt: Sendable {
        var name: String
        var draft: Draft
        /// Whether the gateway may find it malformed instead of unknown.
        var isDisguised: Bool
    }

    /// A path that is for the shop's services or its operators alone.
    private struct Forbidden: Sendable {
        var method: String
        var prefix: String
        var path: String
        var body: String?
        var key: String?
    }

    private func forbidden() -> [Forbidden] {
        let product = requests.goods.hot
        let none = Int64.max
        let decrease = "{\"orderId\":1,\"quantity\":1}"
        var list: [Forbidden] = []
        func add(_ method: String, _ path: String, _ body: String? = nil, key: String? = nil, order: Bool = false) {
            list.append(Forbidden(method: method, prefix: order ? "/order-service" : "/product-service", path: path, body: body, key: key))
        }
        for version in ["", "/v1"] {
            add("PATCH", "\(version)/products/\(product)/stock/decrease-by-order", decrease, key: "DEC-")
            add("PATCH", "\(version)/products/\(product)/stock/increase-by-order", decrease, key: "INC-")
            add("PATCH", "\(version)/products/\(product)/stock", decrease, key: "DEC-")
            add("GET", "\(version)/products/\(product)/stock/requests/DEC-1")
            add("GET", "\(version)/products/\(product)/stock/ledger")
            add("POST", "\(version)/products", "{}")
            add("PATCH", "\(version)/products/\(none)", "{\"price\":1}")
            add("DELETE", "\(version)/products/\(none)")
        }
        add("POST", "/internal/stock/batch", "{\"items\":[]}")
        add("POST", "/admin/products/\(product)/stock-adjustments", "{\"quantity\":1}", key: "ATK-")
        add("POST", "/admin/products/\(product)/load-stock-redis")
        add("GET", "/admin/audit/products/\(product)")
        add("POST", "/internal/orders/1/retry", order: true)
        add("GET", "/internal/outbox", order: true)
        add("POST", "/internal/outbox/1/requeue", order: true)
        for isOrder in [false, true] {
            for path in [
                "/admin/circuitbreakers", "/admin/circuitbreakerevents", "/actuator/circuitbreakers", "/actuator", "/metrics", "/dashboard",
            ] {
                add("GET", path, order: isOrder)
            }
        }
        return list
    }

    /// Other ways to write a path that some reader on the way may take for the same.
    static func disguises(prefix: String, path: String, host: String) -> [(name: String, target: String)] {
        let plain = prefix + path
        let segments = path.split(separator: "/").map(String.init)
        let last = segments.last ?? ""
        let percent = { (text: String) in
            text.unicodeScalars.first.map { "%" + String($0.value, radix: 16) + String(text.unicodeScalars.dropFirst()) } ?? text
        }
        let doubly = { (text: String) in percent(text).replacing("%", with: "%25") }
        let folder = segments.dropLast().map { "/" + $0 }.joined()
        let encoded = segments.map { "/" + percent($0) }.joined()
        return [
            ("as it is", plain),
            ("a letter of each segment encoded", prefix + encoded),
            ("a letter of the last segment encoded", prefix + folder + "/" + percent(last)),
            ("encoded twice", prefix + folder + "/" + doubly(last)),
            ("a letter of the prefix encoded", "/" + percent(String(prefix.dropFirst())) + path),
            ("slashes encoded", prefix + "/" + segments.joined(separator: "%2F")),
            ("two slashes", prefix + "/" + path),
            ("two slashes within", prefix + segments.map { "/" + $0 }.joined(separator: "/")),
            ("a dot segment", prefix + "/." + path),
            ("dot segments from health", prefix + "/livez/.." + path),
            ("dot segments, encoded", prefix + "/livez/%2e%2e" + path),
            ("dot segments, half encoded", prefix + "/livez/.%2E" + path),
            ("dot segments from the other server", (prefix == "/order-service" ? "/product-service" : "/order-service") + "/.." + plain),
            ("out of the prefix and back", prefix + "/../" + String(prefix.dropFirst()) + path),
            ("a slash at the end", plain + "/"),
            ("two slashes at the end", plain + "//"),
            ("an encoded slash at the end", plain + "%2F"),
            ("a dot at the end", plain + "/."),
            ("a path parameter", plain + ";a=b"),
            ("a path parameter within", prefix + folder + ";a=b/" + last),
            ("a query", plain + "?a=b"),
            ("an empty query", plain + "?"),
            ("an encoded question mark", plain + "%3F"),
            ("a fragment", plain + "#a"),
            ("capitals", prefix + path.uppercased()),
            ("a capital prefix", prefix.uppercased() + path),
            ("a backslash", prefix + folder + "\\" + last),
            ("a NUL, encoded", plain + "%00"),
            ("a space, encoded", plain + "%20"),
            ("a line end, encoded", plain + "%0a"),
            ("overlong UTF-8 slash", prefix + "/" + segments.joined(separator: "%c0%af")),
            ("absolute-form", "http://\(host)" + plain),
            ("absolute-form of a server", "http://127.0.0.1/" + path),
        ]
    }

    private func attempts() -> [Attempt] {
        let port = stand.gatewayPort
        var attempts: [Attempt] = []
        var number = 3_000_000
        for one in forbidden() {
            for (index, (disguise, target)) in Self.disguises(prefix: one.prefix, path: one.path, host: "127.0.0.1:\(port)").enumerated() {
                number += 1
                let id = "\(requests.run).\(number)"
                var draft = requests.bodiless(one.method, target, number, port).adding("Connection: close")
                if let key = one.key { draft.lines.append("Idempotency-Key: \(key)\(id)") }
                if let body = one.body {
                    draft.lines += ["Content-Type: application/json", "Content-Length: \(body.byteCount)"]
                    draft.body = body
                }
                attempts.append(Attempt(name: "\(one.method) \(one.prefix)\(one.path), \(disguise)", draft: draft, isDisguised: index > 0))
            }
            // A body that cannot be read: the gateway refuses the path before it has read the body, and meets the malformed chunk only then.
            number += 1
            var draft = requests.bodiless(one.method, one.prefix + one.path, number, port).adding("Connection: close")
            draft.lines += ["Content-Type: application/json", "Transfer-Encoding: chunked"]
            draft.body = "zz\r\n"
            attempts.append(
                Attempt(name: "\(one.method) \(one.prefix)\(one.path), a body that cannot be read", draft: draft, isDisguised: true)
            )
        }
        return attempts
    }

    /// What a buyer reaches: method, path, body.
    private func open(order: Int64) -> [(String, String, String?)] {
        let goods = requests.goods
        let buyer = "\(requests.buyerPrefix)open"
        let body = "{\"productId\":\(goods.hot),\"quantity\":1,\"buyerId\":\"\(buyer)\"}"
        return [
            ("GET", "/product-service/products?size=1", nil), ("GET", "/product-service/products/\(goods.hot)", nil),
            ("GET", "/product-service/v1/products/\(goods.hot)", nil), ("GET", "/product-service/products/\(goods.hotCode)", nil),
            ("GET", "/product-service/livez", nil), ("GET", "/product-service/readyz", nil),
            ("GET", "/order-service/livez", nil), ("GET", "/order-service/readyz", nil), ("GET", "/order-service/health_check", nil),
            ("POST", "/order-service/orders", body), ("POST", "/order-service/v1/orders", body), ("POST", "/order-service/v2/orders", body),
            ("GET", "/order-service/orders?size=1", nil), ("GET", "/order-service/orders/\(order)", nil),
            ("GET", "/order-service/v1/orders/\(order)", nil), ("POST", "/order-service/orders/\(order)/cancel", nil),
            ("POST", "/order-service/\(buyer)/orders", "{\"productId\":\"\(goods.hotCode)\",\"qty\":1,\"unitPrice\":\(goods.price)}"),
            ("GET", "/order-service/\(buyer)/orders", nil),
        ]
    }

    func run(_ effects: EffectReader) async throws -> PartReport {
        let began = ContinuousClock.now
        var report = PartReport(name: "access through the gateway")
        let before = try await effects.settled()
        try await stand.setPublicStock(false)
        let caller = Caller(port: stand.gatewayPort)
        let attempts = attempts()
        // A gateway with new settings lets its old workers finish: the new ones answer in a moment.
        if let first = attempts.first {
            _ = try? await Workers.run {
                let deadline = ContinuousClock.now + .seconds(3)
                while ContinuousClock.now < deadline, try caller.send(first.draft).status != 404 { usleep(50_000) }
            }
        }
        let isMissing = try await effects.settled()
        for (attempt, answer) in zip(
            attempts,
            await Workers.map(attempts, workers: 4) { attempt in Result { try caller.send(attempt.draft) } }
        ) {
            report.cases += 1
            func note(_ rule: Violation.Rule, _ text: String) {
                report.violations.append(Violation(part: "access", subject: attempt.name, place: "gateway", rule: rule, text: text))
            }
            switch answer {
            case .failure(let error): note(.access, "\(error)")
            case .success(let answer):
                let text = answer.body.latin1
                let isUnknown = answer.status == 404 && text.contains("\"NOT_FOUND\"")
                let isMalformed = attempt.isDisguised && answer.status == 400 && text.contains("\"VALIDATION_ERROR\"")
                if isUnknown || isMalformed {
                    report.refused += 1
                } else {
                    note(.access, "\(attempt.draft.target) is answered \(answer.status) \(text.shown(limit: 80))")
                }
                for (rule, text) in Judge.faults(of: [answer]) { note(rule, text) }
            }
        }
        let after = try await effects.settled()
        for (key, count) in after where isMissing[key] == nil && before[key] == nil {
            report.violations.append(
                Violation(
                    part: "access",
                    subject: "stock through the gateway",
                    place: "gateway",
                    rule: .access,
                    text: "\(key) was carried out \(count) times"
                )
            )
        }

        let order = try caller.call("POST", "/order-service/orders", body: open(order: 0)[9].2)
        let digits = order.body.latin1.drop { !$0.isNumber }.prefix { $0.isNumber }
        for (method, path, body) in open(order: Int64(digits) ?? 0) {
            report.cases += 1
            do {
                let answer = try await Workers.run { try caller.call(method, path, body: body) }
                if answer.isSuccess {
                    report.answered += 1
                } else {
                    let text = "\(answer.status) \(answer.body.latin1.shown(limit: 80))"
                    report.violations.append(
                        Violation(
                            part: "access",
                            subject: "\(method) \(path)",
                            place: "gateway",
                            rule: .access,
                            text: "a buyer gets \(text)"
                        )
                    )
                }
            } catch {
                report.violations.append(
                    Violation(part: "access", subject: "\(method) \(path)", place: "gateway", rule: .access, text: "\(error)")
                )
            }
        }
        try await stand.setPublicStock(true)
        report.took = ContinuousClock.now - began
        return report
    }
}
