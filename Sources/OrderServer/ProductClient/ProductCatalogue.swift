// Invariant: what is answered was read from the product server after it was asked for, so that a price is never older than the request that is judged by it. Nothing of a price
// is remembered. Those who ask for one product while a look-up of it is out share the next one, which begins when that one ends: a rush costs one call at a time.
// A code belongs to one product for ever: its id is remembered.
//
// Bounds: `maximumWaiting` callers wait, one more is OVERLOADED; `maximumCalls` look-ups are out, further products wait for their turn, in order. A look-up has two attempts within
// `timeout`, the first for half of it, so that an instance that hangs leaves time for another; and a caller who has waited twice as long for his turn is given up: each is answered within three times `timeout`. `capacity` codes are remembered; when there are more, all
// are forgotten and learned again. A product server that hangs holds up look-ups alone, never orders that name no price.

import APIErrors
import NIOCore
import NIOHTTP1
import ServerKit
import StockContract
import StrictJSON
import Synchronization

/// What the order server needs to know of a product.
struct ProductFacts: Sendable, Equatable {
    var id: Int64
    /// In the currency's smallest unit.
    var price: Int64
}

/// Looks products up at the product server's public port.
final class ProductCatalogue: Sendable {
    private struct Caller {
        var since: ContinuousClock.Instant
        var requestID: String?
        var done: @Sendable (Result<ProductFacts, APIError>) -> Void
    }

    private struct State {
        /// Callers of the next look-up of each product that has one out, or to come.
        var waiting: [IDOrCode: [Caller]] = [:]
        /// Products whose look-up is to begin when a call has ended.
        var ready: [IDOrCode] = []
        var waiters = 0
        var calls = 0
    }

    /// A look-up that begins now.
    private struct Lookup {
        var product: IDOrCode
        var callers: [Caller]
    }

    /// What follows once the lock is let go of.
    private struct Next {
        var lookup: Lookup?
        /// They have waited too long for their turn.
        var givenUp: [Caller] = []
    }

    private let peers: HTTPPeers
    private let timeout: Duration
    private let capacity: Int
    private let maximumWaiting: Int
    private let maximumCalls: Int
    private let state = Mutex(State())
    private let ids = Mutex<[String: Int64]>([:])

    init(peers: HTTPPeers, timeout: Duration, capacity: Int = 10_000, maximumWaiting: Int = 10_000, maximumCalls: Int = 32) {
        self.peers = peers
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
            if let id = self.ids.withLock({ $0[code] }) { return id }
            return try await self.facts(of: product, requestID: requestID).id
        }
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
            guard state.waiters < self.maximumWaiting else { return nil }
            state.waiters += 1
            if state.waiting[product] != nil {
                state.waiting[product]?.append(caller)
                return Next()
            }
            state.waiting[product] = [caller]
            state.ready.append(product)
            return self.begin(&state)
        }
        guard let next else { return caller.done(.failure(APIError(.overloaded))) }
        self.run(next)
    }

    /// The next look-up, if another call may go out. While it is out, its product keeps an entry, in which the callers of the one after it gather.
    private func begin(_ state: inout State) -> Next {
        var next = Next()
        let now = ContinuousClock.now
        // Ends: each round takes a product.
        while state.calls < self.maximumCalls, !state.ready.isEmpty {
            let product = state.ready.removeFirst()
            let all = state.waiting.updateValue([], forKey: product) ?? []
            let callers = all.filter { now - $0.since < self.timeout * 2 }
            if callers.count < all.count {
                let late = all.filter { now - $0.since >= self.timeout * 2 }
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
        for caller in next.givenUp { caller.done(.failure(ProductCatalogue.noAnswer("TIMED_OUT"))) }
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
        // Both forms are of characters that a path may have as they are.
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
        var cause = "NO_ANSWER"
        for attempt in 1...2 {
            let left = attempt == 1 ? self.timeout / 2 : deadline - .now
            guard left > .zero else { break }
            let answer: HTTPAnswer
            do {
                answer = try await self.peers.next().call(request, timeout: left).get()
            } catch {
                cause = (error as? HTTPCallFailure)?.cause ?? "CONNECTION_LOST"
                continue
            }
            let body = try? JSONObjectReader(Array(answer.body.readableBytesView))
            if answer.status == 200, let body, let id = try? body.int("id", in: Values.idRange),
                let price = try? body.int("price", in: Values.priceRange)
            {
                if case .code(let code) = product { self.remember(code, id) }
                return ProductFacts(id: id, price: price)
            }
            if answer.status == 404, let body, (try? body.text("error")) == APIErrorCode.productNotFound.rawValue {
                throw APIError(.productNotFound)
            }
            cause = "HTTP_\(answer.status)"
        }
        throw ProductCatalogue.noAnswer(cause)
    }

    private static func noAnswer(_ cause: String) -> APIError {
        APIError(.dependencyFailed, details: ["cause": .string(cause)], retryAfter: .seconds(1))
    }

    private func remember(_ code: String, _ id: Int64) {
        self.ids.withLock { ids in
            if ids.count >= self.capacity { ids = [:] }
            ids[code] = id
        }
    }
}
