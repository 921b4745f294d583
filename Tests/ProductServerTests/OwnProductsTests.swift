import HTTPTypes
import HotPath
import NIOCore
import PostgresClient
import ServerKit
import StockContract
import StockGate
import StrictJSON
import Testing

@testable import ProductServer

/// A product server of a cell, and the products that it does not have.
@Suite("Products of a cell", .serialized, .timeLimit(.minutes(5))) struct OwnProductsTests {
    private func prepare(_ server: ProductServerFixture, _ ids: String) async throws {
        try await ProductSequence(pool: server.engine.ledger.pool, ids: try .init(ids)).prepare()
    }

    private func setSequence(_ server: ProductServerFixture, _ next: Int64) async throws {
        _ = try await server.engine.ledger.pool.query("select setval('products_id_seq', $1, false)", [.int(next)])
    }

    @Test("new products get ids of the ranges, jump over those of other cells, and none when the ranges are used up")
    func newProducts() async throws {
        try await ProductServerFixture.with(["PRODUCT_IDS": "7,1000-1004,!1001"]) { server in
            try await prepare(server, "7,1000-1004,!1001")
            #expect(try await server.addProduct(stock: 1) == 1000)
            // A second server of the cell starts, and moves nothing back.
            try await prepare(server, "7,1000-1004,!1001")
            let body = #"{"name":"Keyboard","price":1,"stock":1}"#
            let keyed = try await server.ask(.post, "/products", body, key: "k-1")
            #expect(keyed["id"] == 1002, "\(keyed.body)")
            #expect(try await server.ask(.post, "/products", body, key: "k-1")["id"] == 1002)
            // The repeat has used an id up.
            #expect(try await server.addProduct(stock: 1) == 1004)
            for key in [nil, "k-2"] {
                let none = try await server.ask(.post, "/products", body, key: key)
                #expect(none.status == 503 && none.error == "UNAVAILABLE", "\(none.body)")
            }
            let count = try await server.engine.ledger.pool.query("select count(*) from products", []).one().decode(0, as: Int64.self)
            #expect(count == 3, "no row without an answer")
        }
    }

    @Test("a server does not start over a sequence that is outside of its ranges, and says so without a secret")
    func sequenceOutside() async throws {
        try await ProductServerFixture.with { server in
            try await setSequence(server, 5)
            try await prepare(server, "1-10")
            try await prepare(server, "5-10")
            for (next, ids) in [(11 as Int64, "1-10"), (2_000_000, "1-999999,2000001-")] {
                try await setSequence(server, next)
                let error = await #expect(throws: SettingsError.self) { try await prepare(server, ids) }
                #expect(error?.description.contains("PRODUCT_IDS") == true && error?.description.contains("\(next)") == true)
                #expect(error?.description.contains("postgresql://") == false)
            }
            // One that was used goes on where it is, even below: only a new database is set.
            _ = try await server.engine.ledger.pool.query("select setval('products_id_seq', 3, true)", [])
            await #expect(throws: SettingsError.self) { try await prepare(server, "1000-") }
            // Cells of single products make none.
            try await prepare(server, "5,9")
        }
    }

    @Test("of another cell's product nothing is decided, on no route, whatever stands in the ledger")
    func misdirected() async throws {
        try await ProductServerFixture.with(["PRODUCT_IDS": "1-999999,!1"]) { server in
            // It was sold here before it moved.
            _ = try await server.engine.ledger.pool.query("insert into products (id, code, name, price) values (1, 'MOVED', 'n', 1)", [])
            _ = try await server.engine.ledger.pool.query(
                "insert into product_stock (product_id, stock, initial_stock) values (1, 5, 5)",
                []
            )
            try await setSequence(server, 2)
            let own = try await server.addProduct(stock: 10)
            #expect(own == 2)
            let change = #"{"orderId":1,"quantity":1}"#
            for id: Int64 in [1, 1_000_000] {
                for (method, path, body, key) in [
                    (HTTPRequest.Method.patch, "/products/\(id)/stock/decrease-by-order", change, "DEC-1"),
                    (.patch, "/products/\(id)/stock/increase-by-order", change, "INC-1"),
                    (.patch, "/products/\(id)/stock", change, "DEC-1"),
                    (.get, "/products/\(id)/stock/requests/DEC-1", nil, nil), (.get, "/products/\(id)/stock/ledger", nil, nil),
                    (.get, "/products/\(id)", nil, nil), (.patch, "/products/\(id)", #"{"price":2}"#, nil),
                    (.delete, "/products/\(id)", nil, nil),
                ] as [(HTTPRequest.Method, String, String?, String?)] {
                    let answer = try await server.ask(method, path, body, key: key)
                    #expect(answer.status == 421 && answer.error == "MISDIRECTED", "\(method) \(path): \(answer.body)")
                    #expect(answer.headers[.retryAfter] == "1")
                }
                let adjusted = try await server.ask(
                    .post,
                    "/admin/products/\(id)/stock-adjustments",
                    #"{"quantity":1}"#,
                    key: "by-hand-\(id)",
                    admin: true
                )
                #expect(adjusted.status == 421, "\(adjusted.body)")
                let item = { (product: Int64, key: String) in
                    #"{"direction":"OUT","productId":\#(product),"orderId":1,"quantity":1,"key":"\#(key)","attempt":2}"#
                }
                let batch = #"{"items":[\#(item(id, "DEC-8")),\#(item(own, "DEC-9\(id)"))]}"#
                for answer in [
                    try await server.ask(.post, "/internal/stock/batch", batch, admin: true),
                    try #require(try await server.askHot("/internal/stock/batch", batch)),
                ] {
                    guard case .array(let items)? = answer["items"] else { throw ProductServerFixture.Missing(what: answer.body) }
                    #expect(items.map { $0["status"] } == [421, 200], "\(answer.body)")
                    #expect(items[0]["error"] == "MISDIRECTED")
                }
            }
            #expect(try await server.ask(.get, "/products/MOVED").error == "PRODUCT_NOT_FOUND")
            let rows = try await server.engine.ledger.pool.query("select count(*) from stock_ledger where product_id <> 2", []).one()
            #expect(try rows.decode(0, as: Int64.self) == 0)
        }
    }
}
