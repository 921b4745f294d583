// Bounds: `capacity` codes are remembered; when there are more, all are forgotten and learned again. A code belongs to one product for ever, so that it may be
// remembered; a price may not. Two attempts a look-up, each within its timeout.

import NIOCore
import NIOHTTP1
import ServerKit
import Synchronization

/// What the order server needs to know of a product.
struct ProductFacts: Sendable, Equatable {
    var id: Int64
    /// In the currency's smallest unit.
    var price: Int64
}

/// Looks products up at the product server's public port.
final class ProductCatalogue: Sendable {
    private let peers: HTTPPeers
    private let timeout: Duration
    private let capacity: Int
    private let ids = Mutex<[String: Int64]>([:])

    init(peers: HTTPPeers, timeout: Duration, capacity: Int = 10_000) {
        self.peers = peers
        self.timeout = timeout
        self.capacity = capacity
    }

    /// The id of a product.
    /// - Throws: `PRODUCT_NOT_FOUND`, `DEPENDENCY_FAILED`
    func id(of product: IDOrCode) async throws(APIError) -> Int64 {
        switch product {
        case .id(let id): return id
        case .code(let code):
            if let id = self.ids.withLock({ $0[code] }) { return id }
            return try await self.facts(of: product).id
        }
    }

    /// A product's id and price as they are now.
    /// - Throws: `PRODUCT_NOT_FOUND`, `DEPENDENCY_FAILED`
    func facts(of product: IDOrCode) async throws(APIError) -> ProductFacts {
        // Both forms are of characters that a path may have as they are.
        let name =
            switch product {
            case .id(let id): String(id)
            case .code(let code): code
            }
        var cause = "NO_ANSWER"
        for _ in 0..<2 {
            let answer: HTTPAnswer
            do {
                answer = try await self.peers.next().call(.init(method: .GET, path: "/products/" + name), timeout: self.timeout).get()
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
            if answer.status == 404, let body, (try? body.text("error")) == "PRODUCT_NOT_FOUND" {
                throw APIError(.productNotFound)
            }
            cause = "HTTP_\(answer.status)"
        }
        throw APIError(.dependencyFailed, details: ["cause": .string(cause)], retryAfter: .seconds(1))
    }

    private func remember(_ code: String, _ id: Int64) {
        self.ids.withLock { ids in
            if ids.count >= self.capacity { ids = [:] }
            ids[code] = id
        }
    }
}
