import Foundation
import NIOCore
import NIOHTTP1

// Before the sale. What is wrong with the settings, the servers or the stores is found here, while nothing has been sold yet.
extension Sale {
    /// Looks at everything that the sale will need.
    func check(_ gateway: HTTPEndpoint) async throws {
        try await checkNames()
        try await checkGateway(gateway)
        try await checkAdmin()
        switch basis {
        case .stores(let source):
            do {
                _ = try await source.product(0)
                _ = try await source.orderTotals(of: 0)
            } catch let error as PlanError {
                throw error
            } catch {
                throw Failure(description: "a database of the audit does not answer: \(error)")
            }
            try await checkRedis(source)
        case .http(let books):
            guard !settings.isAsync else {
                throw PlanError("--async needs the databases for its audit (--audit stores), or none (--no-audit)")
            }
            try await books.check()
        case .none: break
        }
        guard settings.products == 1 || !settings.isAsync else { throw PlanError("--async sells one product") }
        guard settings.products == 1 || settings.product == nil else { throw PlanError("--product and --products exclude each other") }
        guard settings.habits.cancellations == 0 || !settings.isAsync else {
            throw PlanError("--cancel is for orders that are decided at once")
        }
    }

    /// The breaker's column is there for the whole sale, or the sale does not begin.
    private func checkAdmin() async throws {
        guard let url = settings.productAdmin else { return }
        let token = settings.adminToken.map { [("Authorization", "Bearer \($0)")] } ?? []
        let caller = try await HTTPCaller.make(
            endpoint: try HTTPEndpoint(url, tls: settings.tls),
            eventLoop: eventLoop,
            timeout: .seconds(10)
        )
        defer { caller.close() }
        do {
            let answer = try await caller.call(.GET, "/admin/circuitbreakers", headers: token)
            guard answer.status != 200 else { return }
            let isRefused = answer.status == 401 || answer.status == 403
            throw Failure(
                description: "the admin port at \(url) answers \(answer.status)"
                    + (isRefused ? ": set ADMIN_TOKEN" : " instead of its breaker")
            )
        } catch let failure as HTTPFailure {
            throw Failure(description: "the admin port at \(url): \(failure). Are the servers up?")
        }
    }

    /// Redis answers for a product that cannot be, or not at all. A connection that is only being made gets a few seconds.
    private func checkRedis(_ source: some AuditSource) async throws {
        let deadline = ContinuousClock.now + .seconds(5)
        repeat {
            if await source.redisStock(of: 0) != nil { return }
            try await Task.sleep(for: .milliseconds(100))
        } while ContinuousClock.now < deadline
        throw Failure(description: "the audit's Redis does not answer: is REDIS_URL right, and Redis up?")
    }

    /// A server that the stack does not have cannot be taken away.
    private func checkNames() async throws {
        try Disruption.checkOverlaps(settings.disruptions)
        var known: [String]?
        if settings.disruptions.contains(where: { $0.kind == .kill || $0.kind == .pause }), let stack = tools.stack {
            do {
                known = Self.servers(in: try await stack.run(["status"]))
            } catch {
                throw Failure(description: "the stack script: \(error)")
            }
        }
        for disruption in settings.disruptions { try tools.check(disruption, known: known) }
    }

    /// The first column of the status table.
    static func servers(in table: String) -> [String] {
        table.split(separator: "\n").compactMap { $0.split(separator: " ").first.map(String.init) }.filter { $0 != "SERVER" }
    }

    private func checkGateway(_ gateway: HTTPEndpoint) async throws {
        let caller = try await HTTPCaller.make(endpoint: gateway, eventLoop: eventLoop, timeout: .seconds(10))
        defer { caller.close() }
        do {
            // No product has this id: whatever is answered below 500 comes from a gateway with a server behind it.
            let answer = try await caller.call(.GET, settings.productPath + "/9223372036854775807", headers: gatewayFields)
            guard answer.status < 500 else {
                throw Failure(description: "the gateway at \(gateway.url) answers \(answer.status). Are the servers up?")
            }
            guard answer.status != 401, answer.status != 403 else {
                throw Failure(
                    description: "the gateway at \(gateway.url) answers \(answer.status): it asks for what only --header can give it"
                )
            }
        } catch let failure as HTTPFailure {
            throw Failure(description: "the gateway at \(gateway.url): \(failure). Are the servers up?")
        }
    }

    var gatewayFields: [(String, String)] { settings.headers.map { ($0.name, $0.value) } }

    /// Makes every product, or reads the given one. Returns them, the hot one first, and the units of all together.
    func putAllOnSale(_ gateway: HTTPEndpoint) async throws -> (products: [Int64], units: Int) {
        var products: [Int64] = []
        var units = 0
        for count in 0..<settings.products {
            try checkInterruption("\(count.grouped) of \(settings.products.grouped) products were made")
            let made = try await putOnSale(gateway)
            products.append(made.product)
            units += made.units
        }
        return (products, units)
    }

    /// Ends a sale that somebody interrupts before it has opened: there is nothing to give back, to tell or to audit yet.
    func checkInterruption(_ state: @autoclosure () -> String) throws {
        if interruption.isSet { throw Interrupted(description: "interrupted before the sale opened: \(state())") }
    }

    private func putOnSale(_ gateway: HTTPEndpoint) async throws -> (product: Int64, units: Int) {
        let isAtGateway = settings.product != nil && settings.readsProductThroughGateway
        let server = isAtGateway ? gateway : try HTTPEndpoint(settings.productServer, tls: settings.tls)
        let path = isAtGateway ? settings.productPath : "/products"
        let caller = try await HTTPCaller.make(endpoint: server, eventLoop: eventLoop, timeout: .seconds(10))
        defer { caller.close() }
        let headers = isAtGateway ? gatewayFields : settings.serviceToken.map { [("Authorization", "Bearer \($0)")] } ?? []
        let answer: HTTPAnswer
        do {
            if let product = settings.product {
                answer = try await caller.call(.GET, "\(path)/\(product)", headers: headers)
            } else {
                let product = "{\"name\":\"Flash sale\",\"price\":39000,\"stock\":\(settings.units),\"stockStrategy\":\"REDIS_FIRST\"}"
                answer = try await caller.call(.POST, path, json: product, headers: headers)
            }
        } catch {
            throw Failure(description: "the product server at \(server.url): \(error). Are the servers up?")
        }
        struct Product: Decodable {
            var id: Int64
            var stock: Int
        }
        guard (200..<300).contains(answer.status),
            let product = try? JSONDecoder().decode(Product.self, from: Data(answer.body.readableBytesView))
        else {
            throw Failure(description: "the product cannot be put on sale: \(answer.status) \(String(buffer: answer.body).prefix(300))")
        }
        return (product.id, product.stock)
    }

    /// A sale whose buyers find nothing is none: the product must be there where they order.
    func look(at product: Int64, through gateway: HTTPEndpoint) async throws {
        let caller = try await HTTPCaller.make(endpoint: gateway, eventLoop: eventLoop, timeout: .seconds(10))
        defer { caller.close() }
        do {
            let answer = try await caller.call(.GET, "\(settings.productPath)/\(product)", headers: gatewayFields)
            guard answer.status != 200 else { return }
            throw Failure(description: "the gateway at \(gateway.url) does not show the product: \(answer.status)")
        } catch let failure as HTTPFailure {
            throw Failure(description: "the gateway at \(gateway.url): \(failure). Are the servers up?")
        }
    }

    /// Waits until the product is sold through Redis, where the audit can tell.
    func waitUntilGated(_ product: Int64) async throws {
        if case .none = basis { return }
        let deadline = ContinuousClock.now + .seconds(15)
        while ContinuousClock.now < deadline {
            if let redis = await basis.look(at: product).redis, redis.counter != nil, redis.fence != nil { return }
            try await Task.sleep(for: .milliseconds(50))
        }
        throw Failure(description: "Redis holds no counter of product \(product) after 15 s: it is not gated")
    }
}
