/// What the audit is taken from.
public enum AuditBasis: Sendable {
    /// Both databases and Redis themselves: what proves most.
    case stores(any AuditSource)
    /// The product server's admin port and the orders as the gateway shows them: what can be had of a deployment whose stores are out of reach.
    case http(HTTPBooks)
    /// Nothing: the load alone is measured.
    case none

    /// The basis as a report names it.
    public var name: Audit.Basis {
        switch self {
        case .stores: .stores
        case .http: .http
        case .none: .none
        }
    }

    /// What Redis and PostgreSQL hold now, as far as this basis can tell while a sale runs.
    func look(at product: Int64) async -> (redis: RedisStock?, stock: Int64?) {
        switch self {
        case .stores(let source):
            let redis = await source.redisStock(of: product)
            return (redis, (try? await source.product(product))?.stock)
        case .http(let books):
            let figures = try? await books.figures(of: product)
            return (figures?.redis, figures?.row.stock)
        case .none: return (nil, nil)
        }
    }

    /// Waits until nothing is under way at any of the products, at most `bound`, or until `isOver`.
    func settle(_ products: [Int64], bound: Duration, isOver: () -> Bool = { false }) async throws -> Bool {
        switch self {
        case .stores(let source):
            try await Audit.rest(of: products, bound: bound, isOver: isOver) { try await Audit.quietLook(source, at: $0) }
        case .http(let books): try await Audit.rest(of: products, bound: bound, isOver: isOver) { await books.quietLook(at: $0) }
        case .none: true
        }
    }
}
