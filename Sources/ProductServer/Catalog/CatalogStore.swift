import APIErrors
import PostgresClient
import ServerKit
import StockContract
import StockGate
import StrictJSON

/// The catalogue's SQL. Whether a product is on sale and gated concerns the engine too: such a change and the raise of the fence are in the transaction that
/// changes the catalogue.
struct CatalogStore: Sendable {
    /// Connections for changes.
    private let pool: PostgresPool
    /// Connections for reads of one product.
    private let lookups: PostgresPool
    /// Connections for lists.
    private let reads: PostgresPool
    /// How many rows one statement of a list walks at most.
    private let listBound: Int64
    /// New products get ids of these; nil: any.
    private let ids: ProductIDs?

    init(ledger: PostgresLedger, listBound: Int64, ids: ProductIDs? = nil) {
        self.ids = ids
        pool = ledger.pool
        lookups = ledger.lookups
        reads = ledger.reads
        self.listBound = listBound
    }

    enum CreateOutcome {
        case created(Product)
        /// The product that the same request has made before, as it is now.
        case replayed(Product)
        /// Another request has made a product under the key.
        case keyReused
        case codeTaken
        /// The sequence gives ids that do not belong to this server's cell.
        case idsUsedUp
    }

    private static let columns = """
        p.id, p.code, p.name, p.price, s.stock, p.status, p.stock_strategy, p.created_at, p.updated_at
        """

    /// Makes a product. Under a key that happens only the first time.
    ///
    /// One statement writes product, stock and key, so that a key is used exactly if its product was made. Of two concurrent requests with one key, the second
    /// one waits at the index for the first. Then it either finds the key taken, or makes the product because the first one did not.
    /// - Parameter code: the code for a request that names none; nil: a code made from the product's id
    func create(_ new: NewProduct, key: String?, otherwise code: String? = nil) async throws -> CreateOutcome {
        // An id in a range may belong to another cell by its own name. So the sequence has a few tries.
        for _ in 0..<CatalogStore.idTries {
            if let outcome = try await attemptToCreate(new, key: key, otherwise: code) { return outcome }
        }
        return .idsUsedUp
    }

    private static let idTries = 64

    /// Nil if the sequence gave an id that this cell does not have.
    private func attemptToCreate(_ new: NewProduct, key: String?, otherwise code: String?) async throws -> CreateOutcome? {
        let ranges = ids?.ranges ?? [1...Int64.max]
        let claim =
            """
            , claimed as (
              insert into product_requests (idempotency_key, product_id, code, name, price, stock, stock_strategy)
              select $9, id, $10, $2, $3, $5, $4 from given on conflict (idempotency_key) do nothing
              returning product_id as id)
            """
        let source = key == nil ? "given" : "claimed"
        do throws(PostgresError) {
            let row = try await pool.query(
                """
                with given as (
                  select n.id from (select nextval(pg_get_serial_sequence('products', 'id')) as id) as n
                  where exists (select from unnest($6::bigint[], $7::bigint[]) as r(low, high) where n.id between r.low and r.high)
                    and n.id <> all($8::bigint[]))\(key == nil ? "" : claim),
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
                    + [.ints(ranges.map(\.lowerBound)), .ints(ranges.map(\.upperBound)), .ints(Array(ids?.excluded ?? []))]
                    + (key.map { [.text($0), .optionalText(new.code)] } ?? [])
            ).first
            if let row { return .created(try Self.product(row)) }
        } catch {
            if error.constraint == "products_code" { return .codeTaken }
            throw error
        }
        guard key != nil else { return nil }
        // Nothing was made, so the key is taken, or the id was another cell's. This is a separate statement, because only a new one sees the row that the first
        // request has written meanwhile.
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
        ).first
        guard let row else { return nil }
        return try row.decode(9, as: Bool.self) ? .replayed(try Self.product(row)) : .keyReused
    }

    func find(_ which: IDOrCode) async throws -> Product? {
        let rows: PostgresResult
        switch which {
        case .id(let id):
            rows = try await lookups.query(
                "select \(Self.columns) from products p join product_stock s on s.product_id = p.id where p.id = $1",
                [.int(id)]
            )
        case .code(let code):
            rows = try await lookups.query(
                "select \(Self.columns) from products p join product_stock s on s.product_id = p.id where p.code = $1",
                [.text(code)]
            )
        }
        return try rows.first.map { try Self.product($0) }
    }

    /// Products in the order of their ids.
    func list(query: String?, status: Product.Status?, _ listing: Listing) async throws -> (products: [Product], facts: ListFacts) {
        var list = KeyedList(of: "products", alias: "p", newestFirst: false, bound: listBound)
        if let status { list.enter(.text(status.rawValue)) { "p.status = \($0)" } }
        if let query {
            list.filter(.text(query)) { "position(lower(\($0)) in lower(p.name)) > 0 or position(lower(\($0)) in lower(p.code)) > 0" }
        }
        let join = "join product_stock s on s.product_id = p.id"
        let (products, page) = try await list.page(listing, Self.columns, join: join, of: reads) { row throws(PostgresError) in
            try Self.product(row, from: 1)
        }
        return (products, try ListFacts(page, bound: listBound))
    }

    /// Changes a product; nil if there is none. `engineMustKnow`: whether it is on sale or gated has changed, and the fence was raised.
    func change(_ id: Int64, _ change: ProductChange) async throws -> (product: Product, engineMustKnow: Bool)? {
        try await pool.transaction { transaction in
            let found = try transaction.query(
                "select status, stock_strategy from products where id = $1 for update",
                [.int(id)]
            ).first
            guard let found else { return nil }
            let status = try change.status?.rawValue ?? found.decode(0, as: String.self)
            let strategy = try change.stockStrategy?.rawValue ?? found.decode(1, as: String.self)
            let engineMustKnow = try status != found.decode(0, as: String.self) || strategy != found.decode(1, as: String.self)
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

    /// A row of the ledger, as callers see it.
    struct LedgerRow: Sendable {
        var direction: String
        var quantity: Int64
        var reason: String
        var orderID: Int64?
        var requestID: String
        var createdAt: Timestamp
    }

    /// A product's ledger rows, newest first; nil if there is no such product.
    func ledger(_ id: Int64, _ listing: Listing) async throws -> (rows: [LedgerRow], facts: ListFacts)? {
        guard try await lookups.query("select from product_stock where product_id = $1", [.int(id)]).count == 1 else { return nil }
        var list = KeyedList(of: "stock_ledger", alias: "l", newestFirst: true, bound: listBound)
        list.enter(.int(id)) { "l.product_id = \($0)" }
        list.filter("l.direction <> 'CLOSED'")
        let columns = "l.direction, l.quantity, l.reason, nullif(l.order_id, 0), l.request_id, l.created_at"
        let (rows, page) = try await list.page(listing, columns, of: reads) { row throws(PostgresError) in
            LedgerRow(
                direction: try row.decode(1),
                quantity: try row.decode(2),
                reason: try row.decode(3),
                orderID: try row.decode(4),
                requestID: try row.decode(5),
                createdAt: Timestamp(try row.decode(6))
            )
        }
        return (rows, try ListFacts(page, bound: listBound))
    }

    private static func product(_ row: PostgresRow, from first: Int = 0) throws(PostgresError) -> Product {
        Product(
            id: try row.decode(first),
            code: try row.decode(first + 1),
            name: try row.decode(first + 2),
            price: try row.decode(first + 3),
            stock: try row.decode(first + 4),
            status: try row.decode(first + 5),
            stockStrategy: try row.decode(first + 6),
            createdAt: Timestamp(try row.decode(first + 7)),
            updatedAt: Timestamp(try row.decode(first + 8))
        )
    }
}

extension Product.Status: PostgresDecodable {}
extension Product.StockStrategy: PostgresDecodable {}

extension Timestamp {
    fileprivate init(_ time: PostgresTimestamp) { self.init(microsecondsSinceEpoch: time.microsecondsSinceEpoch) }
}
