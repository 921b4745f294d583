import APIErrors
import HTTPTypes
import Hummingbird
import PostgresClient
import ServerKit
import ServiceLifecycle
import StockContract
import StrictJSON

/// The routes that only read orders. A server that sells and a server that follows have the same ones.
struct OrderReadRoutes: Sendable {
    /// The longest `wait` that a caller may ask for.
    static let maximumWait: Duration = .seconds(30)

    let store: OrderStore
    let changes: OrderWatch
    var eventStreams = OrderEventStream.Configuration()

    func register(on router: ServerRouter) {
        router.versioned(.get, "/orders", query: ["buyerId", "status"] + Listing.parameters) { request, _ in try await list(request) }
        router.versioned(.get, "/orders/{id}", query: ["expand", "wait"]) { request, context in try await show(request, context) }
        router.versioned(.get, "/orders/{id}/events") { request, context in try await events(request, context) }
        router.on("/{userId}/orders", method: .get, query: Listing.parameters) { request, context in
            try await listOfUser(request, context)
        }
        router.on("/health_check", method: .get) { _, _ in Response.text("The order server is working.\n") }
    }

    // MARK: Lists

    private func list(_ request: Request) async throws -> Response {
        let buyer = try request.query("buyerId", maximumLength: Values.userIDLength.upperBound)
        let status = try request.query("status", as: OrderStatus.self)
        let listing = try request.listing()
        let (orders, page) = try await shaped { () throws(PostgresError) in
            try await store.orders(buyer: buyer, status: status, listing)
        }
        return .list(orders, listing, try ListFacts(page, bound: store.listBound)) { $0.write(to: &$1) }
    }

    private func listOfUser(_ request: Request, _ context: ServerRequestContext) async throws -> Response {
        let user = try context.pathText("userId", length: Values.userIDLength, orThrow: .notFound)
        let listing = try request.listing(defaultSize: 100)
        let (orders, page) = try await shaped { () throws(PostgresError) in
            try await store.orders(buyer: user, status: nil, listing)
        }
        // The list's format has no member for `next`. A client takes the id of the last order shown.
        _ = try ListFacts(page, bound: store.listBound)
        return .json { $0.array(orders) { $1.writeForUser(to: &$0) } }
    }

    // MARK: One order

    /// The values of `expand`.
    private enum Expansion: String, CaseIterable {
        case saga
    }

    private func show(_ request: Request, _ context: ServerRequestContext) async throws -> Response {
        let id = try context.pathID(orThrow: .orderNotFound)
        let expansion = try request.query("expand", as: Expansion.self)
        var order: Order?
        if let wait = try request.wait(), wait > .zero { order = try await settled(id, within: wait, context) }
        guard expansion == .saga else {
            if order == nil { order = try await shaped { () throws(PostgresError) in try await store.order(id: id) } }
            guard let order else { throw APIError(.orderNotFound) }
            return .json { order.write(to: &$0) }
        }
        guard let found = try await shaped({ () throws(PostgresError) in try await store.orderWithSteps(id: id) }) else {
            throw APIError(.orderNotFound)
        }
        return .json { json in
            json.object { json in
                found.order.writeMembers(to: &json)
                json.name("saga")
                json.raw(found.steps.utf8)
            }
        }
    }

    /// The order once it is not PENDING any more. If the wait is over, the client has gone or the server stops, the order as it is then.
    private func settled(_ id: Int64, within wait: Duration, _ context: ServerRequestContext) async throws -> Order {
        let deadline = ContinuousClock.now + wait
        var current = try await self.current(id)
        // A request that comes while the server stops is answered in the same way as those that wait then.
        guard !current.isSettled, let place = try changes.placeUnlessStopped() else { return current.order }
        // The loop ends with the deadline. Each round is one change that leaves the order PENDING.
        while !current.isSettled {
            let seen = current.version
            let outcome = await changes.endingWithServer {
                await DisconnectHandler.watch(context.channel) { await place.next(order: id, after: seen, within: deadline - .now) }
            }
            switch outcome {
            case .changed(let next): current = next
            case .timedOut, .cancelled: return current.order
            // The order was last looked up up to one sweep ago. All waiting requests look at once now, which may be more than the database's connections serve.
            // A request that finds no free connection answers with the order that it has.
            case .stopped:
                let last = try? await self.current(id)
                return last?.order ?? current.order
            }
        }
        return current.order
    }

    private func current(_ id: Int64) async throws -> VersionedOrder {
        guard let found = try await shaped({ () throws(PostgresError) in try await store.versionedOrder(id: id) }) else {
            throw APIError(.orderNotFound)
        }
        return found
    }

    private func events(_ request: Request, _ context: ServerRequestContext) async throws -> Response {
        let id = try context.pathID(orThrow: .orderNotFound)
        let seen = try request.lastEventID()
        let current = try await self.current(id)
        let stream = OrderEventStream(settings: eventStreams, changes: changes, first: current, seen: seen)
        return try stream.response(on: context.channel)
    }
}

extension Request {
    /// The value of `wait`, such as `500ms` or `2s`; nil if it is missing.
    /// - Throws: `VALIDATION_ERROR`
    fileprivate func wait() throws(APIError) -> Duration? {
        guard let text = try query("wait", maximumLength: 20) else { return nil }
        guard let wait = Duration(settingText: text), wait <= OrderReadRoutes.maximumWait else {
            throw .invalid(
                field: "wait",
                ErrorMessage(
                    en: "{field} must be a duration such as 500ms or 2s, at most {maximum}.",
                    ko: "{field} 값은 500ms, 2s와 같은 기간이어야 하며 최대 {maximum}입니다."
                ),
                JSONMember("maximum", .string(OrderReadRoutes.maximumWait.settingText))
            )
        }
        return wait
    }

    /// The value of `Last-Event-ID`, a version that the client has seen. If it is missing or no such version, the result is 0, so that the client gets the
    /// present state.
    fileprivate func lastEventID() throws(APIError) -> Int64 {
        guard let name = HTTPField.Name("Last-Event-ID"), let text = headers[name] else { return 0 }
        return Values.id(text) ?? 0
    }
}

extension OrderWatch {
    /// Runs a wait. When the server begins to stop, all waits end.
    func endingWithServer<Value: Sendable>(_ wait: @Sendable () async -> Value) async -> Value {
        await withGracefulShutdownHandler {
            await wait()
        } onGracefulShutdown: {
            self.shutdown()
        }
    }
}
