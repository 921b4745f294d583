import PostgresClient
import ServerKit
import StockGate

/// The catalogue's SQL. Changes of what the engine must know (on sale, gated) are made in the same transaction as the catalogue's, and raise the fence.
struct CatalogStore: Sendable {
    let pool: PostgresPool

    enum CreateOutcome {
        case created(Product)
        /// The product that the same request made before, as it is now.
        case replayed(Product)
        /// Another request made a product under the key.
        case keyReused
        case codeTaken
    }

    private static let columns = """
        p.id, p.code, p.name, p.price, s.stock, p.status, p.stock_strategy, p.created_at, p.updated_at
        """

    /// Makes a product; under a key, the first time alone.
    ///
    /// Product, stock and key are one statement, so that a key is used exactly if its product was made. Of two requests with one key at the same time the
    /// second waits in the index for the first: either finds the key taken, or makes the product because the first did not.
    /// - Parameter code: what to use where the request names none; nil makes one of the product's id
    func create(_ new: NewProduct, key: String?, otherwise code: String? = nil) async throws -> CreateOutcome {
        let claim =
            """
            , claimed as (
              insert into product_requests (idempotency_key, product_id, code, name, price, stock, stock_strategy)
              select $6, id, $7, $2, $3, $5, $4 from given on conflict (idempotency_key) do nothing
              returning product_id as id)
            """
        let source = key == nil ? "given" : "claimed"
        do {
            let row = try await pool.query(
                """
                with given as (select nextval(pg_get_serial_sequence('products', 'id')) as id)\(key == nil ? "" : claim),
                made as (
                  insert into products (id, code, name, price, stock_strategy)
                  select id, coalesce($1, 'PRODUCT-' || id), $2, $3, $4 from \(source)
                  returning id, code, name, price, status, stock_strategy, created_at, updated_at),
                stocked as (
                  insert into product_stock (product_id, stock, initial_stock, is_gated)
                  select id, $5, $5, $4 = 'REDIS_FIRST' from \(source) returning stock)
                select p.id, p.code, p.name, p.price, s.stock, p.status, p.stock_strategy, p.created_at, p.updated_at from made p, stocked s
                """,
                [.optionalText(new.code ?? code), .text(new.name), .int(new.price), .text(new.stockStrategy.rawValue), .int(new.stock)]
                    + (key.map { [.text($0), .optionalText(new.code)] } ?? [])
            ).first
            if let row { return .created(try Self.product(row)) }
        } catch let error as PostgresError where error.constraint == "products_code" {
            return .codeTaken
        }
        // Only a taken key makes nothing. A statement of its own sees the row that the first one has written meanwhile.
        let row = try await pool.query(
            """
            select \(Self.columns), r.code is not distinct from $2 and r.name = $3 and r.price = $4 and r.stock = $5 and r.stock_strategy = $6
            from product_requests r join products p on p.id = r.product_id join product_stock s on s.product_id = p.id
            where r.idempotency_key = $1
            """,
            [
                .optionalText(key), .optionalText(new.code), .text(new.name), .int(new.price), .int(new.stock),
                .text(new.stockStrategy.rawValue),
            ]
        ).one()
        return try row.bool(9) ? .replayed(try Self.product(row)) : .keyReused
    }

    func find(_ which: IDOrCode) async throws -> Product? {
        let rows: PostgresResult
        switch which {
        case .id(let id):
            rows = try await pool.query(
                "select \(Self.columns) from products p join product_stock s on s.product_id = p.id where p.id = $1",
                [.int(id)]
            )
        case .code(let code):
            rows = try await pool.query(
                "select \(Self.columns) from products p join product_stock s on s.product_id = p.id where p.code = $1",
                [.text(code)]
            )
        }
        return try rows.first.map(Self.product)
    }

    func list(query: String?, status: Product.Status?, paging: Paging) async throws -> (products: [Product], total: Int64) {
        let filter = """
            ($1::text is null or position(lower($1) in lower(p.name)) > 0 or position(lower($1) in lower(p.code)) > 0)
            and ($2::text is null or p.status = $2)
            """
        let parameters: [PostgresValue] = [.optionalText(query), .optionalText(status?.rawValue)]
        let rows = try await pool.query(
            """
            select \(Self.columns) from products p join product_stock s on s.product_id = p.id
            where \(filter) order by p.id limit $3 offset $4
            """,
            parameters + [.int(paging.size), .int(paging.offset)]
        )
        let total = try await pool.query("select count(*) from products p where \(filter)", parameters).one().int(0)
        return (try rows.map(Self.product), total)
    }

    /// Changes a product; nil: there is none. `engineMustKnow`: whether it is on sale or gated has changed, and the fence was raised.
    func change(_ id: Int64, _ change: ProductChange) async throws -> (product: Product, engineMustKnow: Bool)? {
        try await pool.transaction { transaction in
            let found = try transaction.query(
                "select status, stock_strategy from products where id = $1 for update",
                [.int(id)]
            ).first
            guard let found else { return nil }
            let status = try change.status?.rawValue ?? found.text(0)
            let strategy = try change.stockStrategy?.rawValue ?? found.text(1)
            let engineMustKnow = try status != found.text(0) || strategy != found.text(1)
            _ = try transaction.query(
                """
                update products set name = coalesce($2, name), price = coalesce($3, price), status = $4, stock_strategy = $5, updated_at = now()
                where id = $1
                """,
                [.int(id), .optionalText(change.name), .optionalInt(change.price), .text(status), .text(strategy)]
            )
            if engineMustKnow {
                _ = try transaction.query(
                    """
                    update product_stock set is_on_sale = $2, is_gated = $3, fence = fence + 1 where product_id = $1
                    """,
                    [
                        .int(id), .bool(status == Product.Status.active.rawValue),
                        .bool(strategy == Product.StockStrategy.redisFirst.rawValue),
                    ]
                )
            }
            let row = try transaction.query(
                "select \(Self.columns) from products p join product_stock s on s.product_id = p.id where p.id = $1",
                [.int(id)]
            ).one()
            return (try Self.product(row), engineMustKnow)
        }
    }

    /// A row of the ledger as callers see it.
    struct LedgerRow: Sendable {
        var direction: String
        var quantity: Int64
        var reason: String
        var orderID: Int64?
        var requestID: String
        var createdAt: Timestamp
    }

    /// Newest first; nil: no such product.
    func ledger(_ id: Int64, paging: Paging) async throws -> (rows: [LedgerRow], total: Int64)? {
        let total = try await pool.query(
            """
            select (select count(*) from stock_ledger l where l.product_id = s.product_id and l.direction <> 'CLOSED')
            from product_stock s where s.product_id = $1
            """,
            [.int(id)]
        ).first
        guard let total else { return nil }
        let rows = try await pool.query(
            """
            select direction, quantity, reason, nullif(order_id, 0), request_id, created_at from stock_ledger
            where product_id = $1 and direction <> 'CLOSED' order by id desc limit $2 offset $3
            """,
            [.int(id), .int(paging.size), .int(paging.offset)]
        )
        return (
            try rows.map { row in
                LedgerRow(
                    direction: try row.text(0),
                    quantity: try row.int(1),
                    reason: try row.text(2),
                    orderID: try row.optionalInt(3),
                    requestID: try row.text(4),
                    createdAt: Timestamp(microsecondsSinceEpoch: try row.timestampMicros(5))
                )
            },
            try total.int(0)
        )
    }

    private static func product(_ row: PostgresRow) throws -> Product {
        guard let status = Product.Status(rawValue: try row.text(5)), let strategy = Product.StockStrategy(rawValue: try row.text(6)) else {
            throw PostgresError(code: .decoding, message: "a product has a status or strategy that is not known")
        }
        return Product(
            id: try row.int(0),
            code: try row.text(1),
            name: try row.text(2),
            price: try row.int(3),
            stock: try row.int(4),
            status: status,
            stockStrategy: strategy,
            createdAt: Timestamp(microsecondsSinceEpoch: try row.timestampMicros(7)),
            updatedAt: Timestamp(microsecondsSinceEpoch: try row.timestampMicros(8))
        )
    }
}
