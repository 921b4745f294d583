// Invariant: an answer was read from the product server after the caller asked, so that a price is never older than the request that it is compared with.
//   Prices are never remembered. Callers that ask for one product while a look-up of it is out share the next look-up, which begins when the present one ends.
//   So a rush costs one call at a time. A code belongs to one product for ever, so its id is remembered.
//
// Bounds: `maximumWaiting` callers wait; one more is OVERLOADED. `maximumCalls` look-ups are out; further products wait for their turn, in order. A look-up has
//   two attempts within `timeout`, the first for half of it, so that an instance that hangs leaves time for another one. A caller that has waited twice
//   `timeout` for its turn is given up. So each caller is answered within three times `timeout`. `capacity` codes are remembered; at the bound all are
//   forgotten and learned again. A product server that hangs delays look-ups alone: an order that names no price
//   needs none.

import APIErrors
import NIOCore
import NIOHTTP1
import StockContract
import StrictJSON
import Synchronization

/// The facts about a product that the order server needs.
struct ProductFacts: Sendable, Equatable {
    var id: Int64
    /// The price in the currency's smallest unit.
    var price: Int64
    /// Units, of a product that is on sale; nil: it is not, or the product server does not say.
    var stock: Int64?
}

/// Looks up products at the product server's public port.
final class ProductCatalogue: Sendable {
    private struct Caller {
        var since: ContinuousClock.Instant
        var requestID: String?
        var done: @Sendable (Result<ProductFacts, APIError>) -> Void
    }

    private struct State {
        /// For each product with a look-up that is out or due: the callers of the next look-up.
        var waiting: [IDOrCode: [Caller]] = [:]
        /// Products whose look-up begins when a call has ended.
        var ready: [IDOrCode] = []
        var waiters = 0
        var calls = 0
    }

    /// A look-up that begins now.
    private struct Lookup {
        var product: IDOrCode
        var callers: [Caller]
    }

    /// What to do after the lock is released.
    private struct Next {
        var lookup: Lookup?
        /// Callers that have waited too long for their turn.
        var givenUp: [Caller] = []
    }

    private let peers: HTTPPeers
    private let timeout: Duration
    private let answering: ProductAnswering
    private let capacity: Int
    private let maximumWaiting: Int
    private let maximumCalls: Int
    private let state = Mutex(State())
    private let ids = Mutex<[String: Int64]>([:])

    init(
        peers: HTTPPeers,
        timeout: Duration,
        answering: ProductAnswering = ProductAnswering(),
        capacity: Int = 10_000,
        maximumWaiting: Int = 10_000,
        maximumCalls: Int = 32
    ) {
        self.peers = peers
        self.answering = answering
        self.timeout = timeout
        self.capacity = capacity
        self.maximumWaiting = maximumWaiting
        self.maximumCalls = maximumCalls
    }

    /// The id of a product.
    /// - Throws: `PRODUCT_NOT_FOUND`, `DEPENDENCY_FAILED`, `OVERLOADED`
    func id(of product: IDOrCode, requestID: String? = nil) async throws(APIError) -> Int64 {
        switch product {
        case .id(let id): return id
        case .code(let code):
            if let id = ids.withLock({ $0[code] }) { return id }
            return try await facts(of: product, requestID: requestID).id
        }
    }

    /// The id of a code that was looked up before.
    func remembered(_ product: IDOrCode) -> Int64? {
        guard case .code(let code) = product else { return nil }
        return ids.withLock { $0[code] }
    }

    /// A product's id and price as they are now.
    /// - Throws: `PRODUCT_NOT_FOUND`, `DEPENDENCY_FAILED`, `OVERLOADED`
    func facts(of product: IDOrCode, requestID: String? = nil) async throws(APIError) -> ProductFacts {
        let result: Result<ProductFacts, APIError> = await withCheckedContinuation { continuation in
            self.ask(product, Caller(since: .now, requestID: requestID) { continuation.resume(returning: $0) })
        }
        return try result.get()
    }

    // MARK: Taking turns

    private func ask(_ product: IDOrCode, _ caller: Caller) {
        let next = self.state.withLock { state -> Next? in
            guard state.waiters < maximumWaiting else { return nil }
            state.waiters += 1
            if state.waiting[product] != nil {
                state.waiting[product]?.append(caller)
                return Next()
            }
            state.waiting[product] = [caller]
            state.ready.append(product)
            return begin(&state)
        }
        guard let next else { return caller.done(.failure(APIError(.overloaded))) }
        run(next)
    }

    /// The next look-up, if another call may be sent. While it is out, its product keeps an entry that gathers the callers of the look-up after it.
    private func begin(_ state: inout State) -> Next {
        var next = Next()
        let now = ContinuousClock.now
        // The loop ends because each round takes a product out.
        while state.calls < maximumCalls, !state.ready.isEmpty {
            let product = state.ready.removeFirst()
            let all = state.waiting.updateValue([], forKey: product) ?? []
            let callers = all.filter { now - $0.since < timeout * 2 }
            if callers.count < all.count {
                let late = all.filter { now - $0.since >= timeout * 2 }
                next.givenUp += late
                state.waiters -= late.count
            }
            if callers.isEmpty {
                state.waiting[product] = nil
                continue
            }
            state.calls += 1
            next.lookup = Lookup(product: product, callers: callers)
            break
        }
        return next
    }

    private func run(_ next: Next) {
        for caller in next.givenUp { caller.done(.failure(ProductCatalogue.noAnswer(NoAnswerCause.timedOut))) }
        guard let lookup = next.lookup else { return }
        Task {
            let result: Result<ProductFacts, APIError>
            do throws(APIError) {
                result = .success(try await self.read(lookup.product, lookup.callers.first?.requestID))
            } catch {
                result = .failure(error)
            }
            let next = self.state.withLock { state -> Next in
                state.waiters -= lookup.callers.count
                state.calls -= 1
                if state.waiting[lookup.product]?.isEmpty ?? true {
                    state.waiting[lookup.product] = nil
                } else {
                    state.ready.append(lookup.product)
                }
                return self.begin(&state)
            }
            self.run(next)
            for caller in lookup.callers { caller.done(result) }
        }
    }

    // MARK: The call

    private func read(_ product: IDOrCode, _ requestID: String?) async throws(APIError) -> ProductFacts {
        // Both forms consist of characters that a path may contain unescaped.
        let name =
            switch product {
            case .id(let id): String(id)
            case .code(let code): code
            }
        let request = HTTPPeer.Request(
            method: .GET,
            path: "/products/" + name,
            headers: requestID.map { ["x-request-id": $0] } ?? [:]
        )
        let deadline = ContinuousClock.now + self.timeout
        var cause = NoAnswerCause.noAnswer
        for attempt in 1...2 {
            let left = attempt == 1 ? self.timeout / 2 : deadline - .now
            guard left > .zero else { break }
            let answer: HTTPAnswer
            do {
                answer = try await peers.next().call(request, timeout: left).get()
            } catch {
                cause = (error as? HTTPCallFailure)?.cause ?? NoAnswerCause.connectionLost
                answering.failed(.products, cause)
                continue
            }
            let body = try? JSONObjectReader(Array(answer.body.readableBytesView))
            if answer.status == 200, let body, let id = try? body.int("id", in: Values.idRange),
                let price = try? body.int("price", in: Values.priceRange)
            {
                answering.answered(.products)
                if case .code(let code) = product { remember(code, id) }
                return ProductFacts(id: id, price: price, stock: ProductCatalogue.stock(body))
            }
            if answer.status == 404, let body, (try? body.text("error")) == APIErrorCode.productNotFound.rawValue {
                answering.answered(.products)
                throw APIError(.productNotFound)
            }
            cause = "HTTP_\(answer.status)"
            answering.failed(.products, cause, status: answer.status)
        }
        throw ProductCatalogue.noAnswer(cause)
    }

    private static func stock(_ body: JSONObjectReader) -> Int64? {
        guard (try? body.text("status")) == ProductCatalogue.onSale else { return nil }
        return try? body.int("stock", in: Values.remainingRange)
    }

    private static let onSale = "ACTIVE"

    private static func noAnswer(_ cause: String) -> APIError {
        APIError(.dependencyFailed, details: ["cause": .string(cause)], retryAfter: .seconds(1))
    }

    private func remember(_ code: String, _ id: Int64) {
        self.ids.withLock { ids in
            if ids.count >= capacity { ids = [:] }
            ids[code] = id
        }
    }
}
