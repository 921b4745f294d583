public import PostgresClient

/// The ledger's sums for one product: `initialStock + restocked + returned - sold = stock`, always.
public struct LedgerTotals: Hashable, Sendable {
    /// Units when the product was made.
    public var initialStock: Int64
    /// Units now.
    public var stock: Int64
    /// The fence now.
    public var fence: Fence
    /// Whether Redis gates the product.
    public var isGated: Bool
    /// Units added by hand, less those taken by hand.
    public var restocked: Int64
    /// Units decremented for orders.
    public var sold: Int64
    /// Units that came back from orders.
    public var returned: Int64

    /// How many more units a counter in Redis offers than the stock has; negative for fewer. Redis may hold any number, so the difference is clamped to 64
    /// bits.
    public func drift(of counter: Int64) -> Int64 {
        let (difference, overflow) = counter.subtractingReportingOverflow(stock)
        guard overflow else { return difference }
        return counter < 0 ? .min : .max
    }
}

extension PostgresLedger {
    /// The ledger's sums for one product; nil: no such product.
    ///
    /// The sums that the ledger keeps, plus the rows behind them. One statement reads both together with the stock, so that they match. Where more than
    /// `auditRows` rows are behind, the kept sums are brought forward first, `auditRows` at a time. That progress stays, even if the time runs out.
    /// - Throws: also `timedOut` if the sums are still behind after `auditTime`; the next call goes on from there
    public func totals(of product: ProductID) async throws(PostgresError) -> LedgerTotals? {
        let deadline = ContinuousClock.now + auditTime
        // Each round takes `auditRows` rows that were not in the sums; the deadline bounds the rounds.
        while true {
            let rows = try await reads.query(Self.totalsStatement, [.int(product.rawValue), .int(auditRows)])
            guard let row = rows.first else { return nil }
            let behind = try row.decode(7, as: Int64.self)
            if behind < auditRows {
                // Brings the sums forward, so that the next audit reads little. This answer does not need it, so it may fail.
                if behind > auditRows / 2 { _ = try? await advance(product) }
                return LedgerTotals(
                    initialStock: try row.decode(0),
                    stock: try row.decode(1),
                    fence: try row.decode(2),
                    isGated: try row.decode(3),
                    restocked: try row.decode(4),
                    sold: try row.decode(5),
                    returned: try row.decode(6)
                )
            }
            guard ContinuousClock.now < deadline else {
                throw PostgresError(
                    code: .timedOut(outcomeUnknown: false),
                    message: "the kept sums of product \(product) are still behind its ledger; the next audit goes on from there"
                )
            }
            try await advance(product)
        }
    }

    private func advance(_ product: ProductID) async throws(PostgresError) {
        _ = try await reads.query("select stock_ledger_advance($1, $2)", [.int(product.rawValue), .int(auditRows)])
    }

    private static let totalsStatement = """
        select s.initial_stock, s.stock, s.fence, s.is_gated,
          (coalesce(t.restocked, 0) + l.restocked)::bigint, (coalesce(t.sold, 0) + l.sold)::bigint, (coalesce(t.returned, 0) + l.returned)::bigint,
          l.entries
        from product_stock s left join stock_ledger_totals t on t.product_id = s.product_id
        cross join lateral (
          select count(*) as entries,
            coalesce(sum(quantity) filter (where direction = 'IN' and reason <> 'ORDER_INCREMENT'), 0)
              - coalesce(sum(quantity) filter (where direction = 'OUT' and reason <> 'ORDER_DECREMENT'), 0) as restocked,
            coalesce(sum(quantity) filter (where direction = 'OUT' and reason = 'ORDER_DECREMENT'), 0) as sold,
            coalesce(sum(quantity) filter (where direction = 'IN' and reason = 'ORDER_INCREMENT'), 0) as returned
          from (
            select r.quantity, r.direction, r.reason from stock_ledger r
            where r.product_id = s.product_id and r.id > coalesce(t.up_to_id, 0) order by r.id limit $2
          ) l
        ) l
        where s.product_id = $1
        """
}
