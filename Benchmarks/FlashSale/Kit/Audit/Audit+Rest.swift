// The books are read when nothing is under way any more.
extension Audit {
    /// Waits until nothing is under way any more: no PENDING order, no pending reservation, Redis under PostgreSQL's fence
    /// with PostgreSQL's stock, twice in a row. Returns whether that came within `bound`. The audit follows either way.
    public static func settle(
        _ source: some AuditSource,
        product: Int64,
        bound: Duration,
        interval: Duration = .milliseconds(300)
    ) async throws -> Bool {
        try await rest(of: [product], bound: bound, interval: interval) { try await quietLook(source, at: $0) }
    }

    /// What Redis holds of a product at which nothing is under way; nil if something is.
    static func quietLook(_ source: some AuditSource, at product: Int64) async throws -> RedisStock? {
        let orders = try await source.orderTotals(of: product)
        let redis = await source.redisStock(of: product)
        let row = try await source.product(product)
        guard orders.pending == 0, let redis, redis.pending == 0, let row, redis.fence == row.fence, redis.counter == row.stock else {
            return nil
        }
        return redis
    }

    /// Looks at all products in rounds, until two looks in a row at each have found the same rest. The products wait side by side: each round looks at those alone that
    /// have not come to rest, so that many products take hardly longer than one.
    /// - Parameters:
    ///   - isOver: ends the wait early.
    ///   - look: what is seen of a product at rest; nil for one that is not.
    static func rest<Look: Equatable>(
        of products: [Int64],
        bound: Duration,
        interval: Duration = .milliseconds(300),
        isOver: () -> Bool = { false },
        look: (Int64) async throws -> Look?
    ) async throws -> Bool {
        let deadline = ContinuousClock.now + bound
        var waiting = products
        var seen: [Int64: Look] = [:]
        while true {
            var restless: [Int64] = []
            for product in waiting {
                if isOver() { return false }
                let now = try await look(product)
                if let now, seen[product] == now { continue }
                seen[product] = now
                restless.append(product)
            }
            guard !restless.isEmpty else { return true }
            guard ContinuousClock.now < deadline else { return false }
            waiting = restless
            try await Task.sleep(for: interval)
        }
    }
}
