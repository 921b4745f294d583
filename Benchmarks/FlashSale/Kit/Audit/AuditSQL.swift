/// What the audit asks the databases, and the names of Redis' keys. The one place that knows the servers' schemas.
///
/// Every statement takes the product's id as `$1`; pages take the last id as `$2` and their size as `$3`.
enum AuditSQL {
    /// Product database: stock, fence, initial stock.
    static let product = """
        SELECT stock, fence, initial_stock FROM product_stock WHERE product_id = $1
        """

    /// Product database: units sold, returned, restocked; decrements that name no order.
    static let ledgerTotals = """
        SELECT
            coalesce(sum(quantity) FILTER (WHERE reason = 'ORDER_DECREMENT' AND direction = 'OUT'), 0)::bigint,
            coalesce(sum(quantity) FILTER (WHERE reason = 'ORDER_INCREMENT' AND direction = 'IN'), 0)::bigint,
            coalesce(sum(CASE direction WHEN 'IN' THEN quantity WHEN 'OUT' THEN -quantity END)
                FILTER (WHERE reason NOT IN ('ORDER_DECREMENT', 'ORDER_INCREMENT')), 0)::bigint,
            count(*) FILTER (WHERE reason = 'ORDER_DECREMENT' AND direction = 'OUT' AND order_id <= 0)
        FROM stock_ledger WHERE product_id = $1
        """

    /// Product database: one row for each order, a page in the order of their ids; 0 stands for no order. The ledger has no index on orders
    /// (it would cost every sale something), so a page reads the product's whole ledger: pages are large.
    static let ledgerPage = """
        SELECT order_id,
            count(*) FILTER (WHERE reason = 'ORDER_DECREMENT' AND direction = 'OUT'),
            coalesce(sum(quantity) FILTER (WHERE reason = 'ORDER_DECREMENT' AND direction = 'OUT'), 0)::bigint,
            count(*) FILTER (WHERE reason = 'ORDER_INCREMENT' AND direction = 'IN'),
            coalesce(sum(quantity) FILTER (WHERE reason = 'ORDER_INCREMENT' AND direction = 'IN'), 0)::bigint
        FROM stock_ledger WHERE product_id = $1 AND order_id > greatest($2, 0)
        GROUP BY order_id ORDER BY order_id LIMIT $3
        """

    /// Order database: units of confirmed orders, then orders confirmed, pending, failed, cancelled.
    static let orderTotals = """
        SELECT
            coalesce(sum(quantity) FILTER (WHERE status = 'CONFIRMED'), 0)::bigint,
            count(*) FILTER (WHERE status = 'CONFIRMED'),
            count(*) FILTER (WHERE status = 'PENDING'),
            count(*) FILTER (WHERE status = 'FAILED'),
            count(*) FILTER (WHERE status = 'CANCELLED')
        FROM orders WHERE product_id = $1
        """

    /// Order database: a page of orders in the order of their ids.
    static let orderPage = """
        SELECT id::bigint, status::text, quantity::bigint, idempotency_key::text, buyer_id::text FROM orders WHERE product_id = $1 AND id > $2 ORDER BY id LIMIT $3
        """

    /// Order database: a page of orders in the order of their ids, with their times in microseconds since 1970.
    static let orderEndings = """
        SELECT id::bigint, status::text, fail_reason::text,
            (extract(epoch FROM created_at) * 1000000)::bigint, (extract(epoch FROM updated_at) * 1000000)::bigint
        FROM orders WHERE product_id = $1 AND id > $2 ORDER BY id LIMIT $3
        """

    /// Order database: messages that are not sent, and of these the dead ones. Events name no product.
    static let outbox = """
        SELECT count(*), count(*) FILTER (WHERE status = 'DEAD')
        FROM outbox WHERE status IN ('NEW', 'FAILED', 'DEAD') AND (product_id = $1 OR product_id IS NULL)
        """

    /// Order database: whether anything waits for the relay. No parameters.
    static let waitingMessages = """
        SELECT count(*) FROM (SELECT FROM outbox WHERE status IN ('NEW', 'FAILED') LIMIT 1) waiting
        """

    /// Redis: the counter, the hash with field `fence`, the hash of pending reservations.
    static func redisKeys(_ product: Int64) -> (stock: String, meta: String, pending: String) {
        ("sg:{\(product)}:stock", "sg:{\(product)}:meta", "sg:{\(product)}:pending")
    }
}
