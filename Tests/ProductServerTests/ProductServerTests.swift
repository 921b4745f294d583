import Eventually
import StockContract
import HotPath
import HTTPTypes
import Hummingbird
@testable import ProductServer
import PostgresClient
import ServerKit
import StockGate
import PrivateServers
import StrictJSON
import Testing

@Suite(.serialized, .timeLimit(.minutes(10)))
struct ProductServerTests {
    @Test func everyRouteIsDocumentedAndServed() async throws {
        try await ProductServerFixture.with { server in
            let document = OpenAPIDocument(ProductServer.openAPI)
            let routes = server.routes.publicRouter.routes + server.routes.adminRouter.routes
            let undocumented = try document.undocumentedRoutes(of: routes)
            let unserved = try document.unservedOperations(of: routes)
            #expect(undocumented.isEmpty)
            #expect(unserved.isEmpty)
        }
    }

    @Test func catalogue() async throws {
        try await ProductServerFixture.with { server in
            let made = try await server.ask(
                .post,
                "/v1/products",
                #"{"name":"키보드","price":39000,"stock":100,"code":"CATALOG-002","stockStrategy":"REDIS_FIRST","unknown":[1]}"#
            )
            #expect(made.status == 200)
            #expect(made["code"] == "CATALOG-002" && made["name"] == "키보드" && made["stock"] == 100 && made["status"] == "ACTIVE")
            #expect(try await server.ask(.get, "/products/CATALOG-002").body == made.body)
            let taken = try await server.ask(.post, "/products", #"{"name":"x","price":1,"stock":1,"code":"CATALOG-002"}"#)
            #expect(taken.status == 400 && taken.error == "VALIDATION_ERROR")
            let second = try await server.addProduct(stock: 5, strategy: "DB_ONLY")
            let page = try await server.ask(.get, "/products?query=key&size=1")
            #expect(page["totalElements"] == 1 && page["totalPages"] == 1 && page["size"] == 1)
            let patched = try await server.ask(.patch, "/products/\(second)", #"{"price":5,"stockStrategy":"REDIS_FIRST"}"#)
            #expect(patched["price"] == 5 && patched["stockStrategy"] == "REDIS_FIRST")
            #expect(server.engine.gatedProductCount == 2)
            #expect(try await server.ask(.delete, "/products/\(second)").status == 204)
            #expect(try await server.ask(.get, "/products?status=DISCONTINUED")["totalElements"] == 1)
            let late = try await server.ask(
                .patch,
                "/products/\(second)/stock/decrease-by-order",
                #"{"orderId":1,"quantity":1}"#,
                key: "DEC-1"
            )
            #expect(late.status == 400 && late.error == "INVALID_STATE")
            #expect(try await server.ask(.get, "/products/99")["error"] == "PRODUCT_NOT_FOUND")
        }
    }

    @Test func stockByOrder() async throws {
        try await ProductServerFixture.with { server in
            let id = try await server.addProduct(stock: 10)
            let path = "/products/\(id)/stock/decrease-by-order"
            let first = try await server.ask(.patch, path, #"{"orderId":1,"quantity":3,"buyerId":"u-1"}"#, key: "DEC-1")
            #expect(first.status == 200 && first.body == #"{"success":true,"remainingStock":7,"message":"OK"}"#)
            let replay = try await server.ask(.patch, path, #"{"orderId":1,"quantity":3}"#, key: "DEC-1")
            #expect(replay.body == first.body && replay.headers[.idempotencyReplayed] == "true")
            let reused = try await server.ask(.patch, path, #"{"orderId":1,"quantity":4}"#, key: "DEC-1")
            #expect(reused.status == 422 && reused.error == "KEY_REUSED")
            #expect(reused["details"] == .null, "it tells nothing of the first")
            let tooMany = try await server.ask(.patch, path, #"{"orderId":2,"quantity":8}"#, key: "DEC-2")
            #expect(tooMany.status == 400 && tooMany.error == "INSUFFICIENT_STOCK")
            let back = try await server.ask(
                .patch,
                "/products/\(id)/stock/increase-by-order",
                #"{"orderId":1,"quantity":3,"reason":"cancelled"}"#,
                key: "INC-1"
            )
            #expect(back["remainingStock"] == 10)
            let either = try await server.ask(.patch, "/products/\(id)/stock", #"{"orderId":5,"quantity":1}"#, key: "DEC-5")
            #expect(either["remainingStock"] == 9)
            let found = try await server.ask(.get, "/products/\(id)/stock/requests/DEC-5")
            #expect(found.status == 200 && found["remainingStock"] == 9)
            #expect(try await server.ask(.get, "/products/\(id)/stock/requests/DEC-2").status == 404)
            let empty = try await server.ask(
                .patch,
                "/products/\(id)/stock/increase-by-order",
                #"{"orderId":9,"quantity":1}"#,
                key: "INC-9"
            )
            #expect(empty["message"] == "NOTHING_TO_RETURN")
            let closed = try await server.ask(.patch, path, #"{"orderId":9,"quantity":1}"#, key: "DEC-9")
            #expect(closed.status == 409 && closed.error == "KEY_CLOSED")
            let ledger = try await server.ask(.get, "/products/\(id)/stock/ledger")
            #expect(ledger["totalElements"] == 3)
            let audit = try await server.ask(.get, "/admin/audit/products/\(id)", admin: true)
            #expect(audit["sold"] == 4 && audit["returned"] == 3 && audit["databaseStock"] == 9)
        }
    }

    /// Bad input: the error's shape, the right status, and nothing changed in any store.
    @Test func badInputChangesNothing() async throws {
        try await ProductServerFixture.with { server in
            let id = try await server.addProduct(stock: 10)
            let path = "/products/\(id)/stock/decrease-by-order"
            let keysBefore = try server.redis.call(["DBSIZE"])
            let cases: [(String, HTTPRequest.Method, String, String?, String?, Int, String)] = [
                (
                    "no such product", .patch, "/products/99/stock/decrease-by-order", #"{"orderId":1,"quantity":1}"#, "DEC-1", 404,
                    "PRODUCT_NOT_FOUND"
                ),
                (
                    "no id", .patch, "/products/abc/stock/decrease-by-order", #"{"orderId":1,"quantity":1}"#, "DEC-1", 404,
                    "PRODUCT_NOT_FOUND"
                ),
                ("quantity 0", .patch, path, #"{"orderId":1,"quantity":0}"#, "DEC-1", 400, "VALIDATION_ERROR"),
                ("quantity -1", .patch, path, #"{"orderId":1,"quantity":-1}"#, "DEC-1", 400, "VALIDATION_ERROR"),
                ("quantity 1.5", .patch, path, #"{"orderId":1,"quantity":1.5}"#, "DEC-1", 400, "VALIDATION_ERROR"),
                ("quantity text", .patch, path, #"{"orderId":1,"quantity":"3"}"#, "DEC-1", 400, "VALIDATION_ERROR"),
                ("quantity 2^63", .patch, path, #"{"orderId":1,"quantity":9223372036854775808}"#, "DEC-1", 400, "VALIDATION_ERROR"),
                ("quantity missing", .patch, path, #"{"orderId":1}"#, "DEC-1", 400, "VALIDATION_ERROR"),
                ("quantity twice", .patch, path, #"{"orderId":1,"quantity":1,"quantity":2}"#, "DEC-1", 400, "VALIDATION_ERROR"),
                ("no key", .patch, path, #"{"orderId":1,"quantity":1}"#, nil, 400, "VALIDATION_ERROR"),
                ("foreign key", .patch, path, #"{"orderId":1,"quantity":1}"#, "INC-1", 400, "VALIDATION_ERROR"),
                ("broken JSON", .patch, path, #"{"orderId":1,"quantity""#, "DEC-1", 400, "VALIDATION_ERROR"),
                ("no object", .patch, path, "[]", "DEC-1", 400, "VALIDATION_ERROR"),
                ("2 MB", .patch, path, String(repeating: " ", count: 2 << 20), "DEC-1", 413, "PAYLOAD_TOO_LARGE"),
                ("unknown route", .get, "/nothing", nil, nil, 404, "NOT_FOUND"),
                ("wrong method", .delete, path, nil, nil, 405, "METHOD_NOT_ALLOWED"),
                ("stock too large", .post, "/products", #"{"name":"x","price":1,"stock":1000000000001}"#, nil, 400, "VALIDATION_ERROR"),
                ("name with a tab", .post, "/products", #"{"name":"a\tb","price":1,"stock":1}"#, nil, 400, "VALIDATION_ERROR"),
                ("digits as a code", .post, "/products", #"{"name":"a","price":1,"stock":1,"code":"123"}"#, nil, 400, "VALIDATION_ERROR"),
                ("page size", .get, "/products?size=101", nil, nil, 400, "VALIDATION_ERROR"),
            ]
            for (name, method, path, body, key, status, code) in cases {
                let answer = try await server.ask(method, path, body, key: key)
                #expect(answer.status == status, "\(name): \(answer.body)")
                #expect(answer.error == code, "\(name): \(answer.body)")
                #expect(answer["message"] != nil && answer["details"] != nil, "\(name)")
            }
            let audit = try await server.ask(.get, "/admin/audit/products/\(id)", admin: true)
            #expect(audit["databaseStock"] == 10 && audit["redisStock"] == 10 && audit["redisPending"] == 0 && audit["sold"] == 0)
            #expect(try await server.ask(.get, "/products/\(id)/stock/ledger")["totalElements"] == 0)
            #expect(try await server.ask(.get, "/products")["totalElements"] == 1)
            #expect(try server.redis.call(["DBSIZE"]) == keysBefore)
        }
    }

    @Test func adminOfStock() async throws {
        try await ProductServerFixture.with { server in
            let id = try await server.addProduct(stock: 10)
            let more = try await server.ask(
                .post,
                "/admin/products/\(id)/stock-adjustments",
                #"{"quantity":-4,"reason":"count"}"#,
                key: "count-1",
                admin: true
            )
            #expect(more["remainingStock"] == 6)
            let below = try await server.ask(
                .post,
                "/admin/products/\(id)/stock-adjustments",
                #"{"quantity":-7}"#,
                key: "count-2",
                admin: true
            )
            #expect(below.status == 400 && below.error == "INSUFFICIENT_STOCK")
            _ = try server.redis.call(["FLUSHALL"])
            let loaded = try await server.ask(.post, "/admin/products/\(id)/load-stock-redis", admin: true)
            #expect(loaded["productId"] == .int(id) && loaded["stock"] == 6)
            let audit = try await server.ask(.get, "/admin/audit/products/\(id)", admin: true)
            #expect(audit["redisStock"] == 6 && audit["drift"] == 0 && audit["restocked"] == -4)
            let breakers = try await server.ask(.get, "/admin/circuitbreakers", admin: true)
            #expect(breakers.body.contains(#""redisStock":{"state":"CLOSED""#))
        }
    }

    /// What is beyond a range is refused by name, changes nothing, and leaves its key to the one that is right.
    @Test(arguments: ["DB_ONLY", "REDIS_FIRST"]) func adjustmentsHaveARange(strategy: String) async throws {
        try await ProductServerFixture.with { server in
            let id = try await server.addProduct(stock: 10, strategy: strategy)
            func adjust(_ quantity: String, key: String) async throws -> ProductServerFixture.Answer {
                let body = "{\"quantity\":\(quantity)}"
                return try await server.ask(.post, "/admin/products/\(id)/stock-adjustments", body, key: key, admin: true)
            }
            for quantity in [
                "0", "-0", "1000000000001", "-1000000000001", "9223372036854775807", "-9223372036854775808", "9223372036854775808",
                "-9223372036854775809", "1e400", "1.5", "\"5\"", "null", "true", "[1]",
                // With what is there it is one more than a product may have.
                "999999999991", "1000000000000",
            ] {
                let refused = try await adjust(quantity, key: "k")
                #expect(refused.status == 400 && refused.error == "VALIDATION_ERROR", "\(quantity): \(refused.body)")
                #expect(refused["details"]?["field"] == "quantity", "\(quantity): \(refused.body)")
            }
            for quantity in ["-11", "-1000000000000"] {
                let refused = try await adjust(quantity, key: "k")
                #expect(refused.status == 400 && refused.error == "INSUFFICIENT_STOCK", "\(quantity): \(refused.body)")
                #expect(refused["details"]?["remainingStock"] == 10)
            }
            let before = try await server.ask(.get, "/admin/audit/products/\(id)", admin: true)
            #expect(before["databaseStock"] == 10 && before["restocked"] == 0, "\(before.body)")
            #expect(try await server.ask(.get, "/products/\(id)/stock/ledger")["totalElements"] == 0)
            #expect(try await adjust("999999999990", key: "k")["remainingStock"] == 1_000_000_000_000)
            #expect(try await adjust("1", key: "l").error == "VALIDATION_ERROR")
            #expect(try await adjust("-1000000000000", key: "l")["remainingStock"] == 0)
            #expect(try await adjust("-1", key: "m").error == "INSUFFICIENT_STOCK")
            let after = try await server.ask(.get, "/admin/audit/products/\(id)", admin: true)
            #expect(after["databaseStock"] == 0 && after["restocked"] == -10, "\(after.body)")
        }
    }

    /// An increase with another order, quantity or product than its decrease's: 422 over every way in, nothing changed, and the right one still works.
    @Test func aWrongIncreaseIsKeyReused() async throws {
        try await ProductServerFixture.with { server in
            let id = try await server.addProduct(stock: 10)
            let other = try await server.addProduct(stock: 10)
            let path = "/products/\(id)/stock"
            let sold = try await server.ask(.patch, path, #"{"orderId":41,"quantity":3}"#, key: "DEC-41.2")
            #expect(sold["remainingStock"] == 7)
            let wrong: [(product: Int64, body: String)] = [
                (id, #"{"orderId":42,"quantity":3}"#), (id, #"{"orderId":41,"quantity":2}"#), (other, #"{"orderId":41,"quantity":3}"#),
                (id, #"{"orderId":9223372036854775807,"quantity":1000000000}"#),
            ]
            func refuse() async throws {
                let books = try await server.ask(.get, "\(path)/ledger").body
                for (product, body) in wrong {
                    for route in ["stock/increase-by-order", "stock"] {
                        let answer = try await server.ask(.patch, "/products/\(product)/\(route)", body, key: "INC-41.2")
                        #expect(answer.status == 422 && answer.error == "KEY_REUSED", "\(product) \(body)")
                        #expect(answer["details"] == .null, "it tells nothing of the decrease: \(answer.body)")
                    }
                    let item = body.dropLast() + #","direction":"IN","productId":\#(product),"key":"INC-41.2"}"#
                    let batch = try await server.ask(.post, "/internal/stock/batch", "{\"items\":[\(item)]}", admin: true)
                    guard case .array(let results)? = batch["items"], let result = results.first else {
                        Issue.record("no items: \(batch.body)")
                        return
                    }
                    #expect(result["status"] == 422 && result["error"] == "KEY_REUSED")
                    #expect(result["details"] == nil || result["details"] == .null)
                }
                #expect(try await server.ask(.get, "\(path)/ledger").body == books)
                #expect(try await server.ask(.get, "/products/\(other)/stock/ledger")["totalElements"] == 0)
            }
            try await refuse()
            #expect(try await server.ask(.get, "\(path)/requests/INC-41.2").status == 404)
            let back = try await server.ask(.patch, path, #"{"orderId":41,"quantity":3}"#, key: "INC-41.2")
            #expect(back.status == 200 && back["remainingStock"] == 10 && back.headers[.idempotencyReplayed] == nil)
            try await refuse()
            let again = try await server.ask(.patch, path, #"{"orderId":41,"quantity":3}"#, key: "INC-41.2")
            #expect(again.body == back.body && again.headers[.idempotencyReplayed] == "true")
            // A change by hand cannot take an order's key either.
            for key in ["DEC-77", "INC-77"] {
                let adjusted = try await server.engine.adjust(ProductID(id), key: key, by: 1, maximum: 100)
                #expect(adjusted.outcome == .keyReused)
            }
            // Redis is told of the increase behind its answer.
            var audit = try await server.ask(.get, "/admin/audit/products/\(id)", admin: true)
            try await eventually("no drift") {
                audit = try await server.ask(.get, "/admin/audit/products/\(id)", admin: true)
                return audit["drift"] == 0
            }
            #expect(audit["sold"] == 3 && audit["returned"] == 3 && audit["databaseStock"] == 10)
        }
    }

    /// A database that the version before made and filled takes the new migrations, and what that version let through stands in nobody's way.
    @Test func aDatabaseOfTheVersionBeforeIsBroughtUp() async throws {
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        let configuration = try PostgresConfiguration.patient(postgres.url)
        let before = ProductServer.migrations.filter { $0.version == 1 || $0.version == 100 }
        #expect(try await Migrator(configuration: configuration).apply(before) == [1, 100])
        let pool = PostgresPool(configuration: configuration, maximumConnections: 1)
        func ask(_ function: String, _ arguments: String) async throws -> Int64 {
            try await pool.query("select outcome from \(function)(\(arguments))").one().decode(0, as: Int64.self)
        }
        _ = try await pool.query("insert into product_stock (product_id, stock, initial_stock) values (1, 10, 10)")
        for key in ["DEC-1", "DEC-2"] {
            #expect(try await ask("stock_commit", "'{1}', '{\(key)}', '{2}', '{\(key.dropFirst(4))}', '{0}', '{0}', '{0}'") == 0)
        }
        // Another order's increase gave back what order 1 had taken.
        #expect(try await ask("stock_increase", "'{1}', '{INC-1}', '{DEC-1}', '{66}'") == 0)
        #expect(try await ask("stock_increase", "'{1}', '{INC-3}', '{DEC-3}', '{3}'") == 2)
        let added = try await Migrator(configuration: configuration).apply(ProductServer.migrations)
        #expect(added.contains(102))
        // Order 1's own cancellation finds its units given back, and the stranger's repeat is refused.
        #expect(try await ask("stock_increase", "'{1}', '{INC-1}', '{DEC-1}', '{1}', '{2}'") == 1)
        #expect(try await ask("stock_increase", "'{1}', '{INC-1}', '{DEC-1}', '{66}', '{2}'") == 4)
        // A closed key whose quantity was not kept.
        #expect(try await ask("stock_increase", "'{1}', '{INC-3}', '{DEC-3}', '{3}', '{9}'") == 3)
        #expect(try await ask("stock_increase", "'{1}', '{INC-3}', '{DEC-3}', '{4}', '{9}'") == 4)
        // A server of the version before, not yet replaced.
        #expect(try await ask("stock_increase", "'{1}', '{INC-2}', '{DEC-2}', '{66}'") == 4)
        #expect(try await ask("stock_increase", "'{1}', '{INC-2}', '{DEC-2}', '{2}'") == 0)
        let row = try await pool.query("select stock from product_stock").one()
        #expect(try row.decode(0, as: Int64.self) == 10)
        #expect(try await Migrator(configuration: configuration).apply(ProductServer.migrations) == [])
        await pool.shutdown()
    }

    /// Whatever number stands in Redis, the audit's answer is one.
    @Test func theAuditOfAnyCounterIsAnswered() async throws {
        try await ProductServerFixture.with(["AUDIT_INTERVAL": "3600s"]) { server in
            let id = try await server.addProduct(stock: 10)
            for (text, counter, drift) in [
                ("-9223372036854775808", Int64.min, Int64.min), ("9223372036854775807", .max, .max - 10), ("0", 0, -10),
                ("18446744073709551616", .min, .min),
            ] {
                // The engine's own audit, which would mend it, does not come by.
                _ = try server.redis.call(["SET", "sg:{\(id)}:stock", text])
                let audit = try await server.ask(.get, "/admin/audit/products/\(id)", admin: true)
                #expect(audit.status == 200 && audit["databaseStock"] == 10)
                #expect(audit["redisStock"] == .int(counter) && audit["drift"] == .int(drift))
                let loaded = try await server.ask(.post, "/admin/products/\(id)/load-stock-redis", admin: true)
                #expect(loaded["stock"] == 10)
            }
            #expect(try await server.ask(.get, "/admin/audit/products/\(id)", admin: true)["drift"] == 0)
        }
    }

    @Test func aBatchIsAnsweredItemByItem() async throws {
        try await ProductServerFixture.with { server in
            let id = try await server.addProduct(stock: 10)
            let items = [
                #"{"direction":"OUT","productId":\#(id),"orderId":1,"quantity":4,"key":"DEC-1"}"#,
                #"{"direction":"OUT","productId":\#(id),"orderId":2,"quantity":100,"key":"DEC-2"}"#,
                #"{"direction":"OUT","productId":\#(id),"orderId":3,"quantity":0,"key":"DEC-3"}"#,
                #"{"direction":"OUT","productId":99,"orderId":4,"quantity":1,"key":"DEC-4"}"#,
                #"{"direction":"IN","productId":\#(id),"orderId":5,"quantity":1,"key":"INC-5"}"#,
            ]
            let answer = try await server.ask(
                .post,
                "/internal/stock/batch",
                "{\"items\":[\(items.joined(separator: ","))]}",
                admin: true
            )
            #expect(answer.status == 200)
            guard case .array(let results)? = answer["items"] else {
                Issue.record("no items: \(answer.body)")
                return
            }
            #expect(results.map { $0["status"] } == [200, 400, 400, 404, 200])
            #expect(results[0]["remainingStock"] == 6)
            #expect(results[1]["error"] == "INSUFFICIENT_STOCK")
            #expect(results[2]["error"] == "VALIDATION_ERROR")
            #expect(results[3]["error"] == "PRODUCT_NOT_FOUND")
            #expect(results[4]["message"] == "NOTHING_TO_RETURN")
            let none = try await server.ask(.post, "/internal/stock/batch", #"{"items":[]}"#, admin: true)
            #expect(none.status == 400)
            // The public port has no such route.
            #expect(try await server.ask(.post, "/internal/stock/batch", #"{"items":[]}"#).status == 404)
        }
    }

    @Test("the batch call's hot path answers as the router's route does, and leaves to it what it cannot decide")
    func batchHotPath() async throws {
        try await ProductServerFixture.with(["SERVICE_TOKENS": "order:5678"]) { server in
            let path = "/internal/stock/batch"
            let added = try await server.ask(
                .post,
                "/products",
                #"{"name":"Keyboard","price":39000,"stock":10,"stockStrategy":"REDIS_FIRST"}"#,
                headers: [.authorization: "Bearer 5678"]
            )
            guard case .int(let id)? = added["id"] else {
                Issue.record("no product: \(added.body)")
                return
            }
            func items(_ keys: String) -> String {
                let items = [
                    #"{"direction":"OUT","productId":\#(id),"orderId":1,"quantity":2,"key":"DEC-\#(keys)1"}"#,
                    #"{"direction":"OUT","productId":\#(id),"orderId":1,"quantity":2,"key":"DEC-\#(keys)1"}"#,
                    #"{"direction":"OUT","productId":\#(id),"orderId":2,"quantity":100,"key":"DEC-\#(keys)2"}"#,
                    #"{"direction":"OUT","productId":\#(id),"orderId":3,"quantity":0,"key":"DEC-\#(keys)3"}"#,
                    #"{"direction":"OUT","productId":99,"orderId":4,"quantity":1,"key":"DEC-\#(keys)4","requestId":"no id"}"#,
                    #"{"direction":"IN","productId":\#(id),"orderId":5,"quantity":1,"key":"INC-\#(keys)5"}"#,
                ]
                return "{\"items\":[\(items.joined(separator: ","))]}"
            }
            for (number, language) in ["en", "ko"].enumerated() {
                let header: HTTPFields = [.acceptLanguage: language]
                let given = try await server.ask(.post, path, items("r\(number)"), headers: header, admin: true)
                let hot = try #require(try await server.askHot(path, items("h\(number)"), ["Accept-Language: \(language)"]))
                #expect(hot.status == given.status)
                // Both take from one product, so the hot one finds two units fewer.
                #expect(given.body.contains("\"remainingStock\":\(8 - 4 * number),\"replayed\":true"), "\(given.body)")
                #expect(hot.body.contains("\"remainingStock\":\(6 - 4 * number),\"replayed\":true"), "\(hot.body)")
                let stock = /"remainingStock":[0-9]+/
                #expect(hot.body.replacing(stock, with: "") == given.body.replacing(stock, with: ""))
            }
            for body in ["", "[]", "{}", #"{"items":[]}"#, #"{"items":[1]}"#, #"{"items":{}}"#, #"{"items":["#] {
                let given = try await server.ask(.post, path, body, admin: true)
                let hot = try #require(try await server.askHot(path, body))
                #expect(hot.status == 400 && given.status == 400, "\(body)")
                #expect(hot.body == given.body)
            }
            // The largest call has room; another path, another kind of body, who is not permitted, or says where it comes from, is the router's.
            let full = #"{"items":[]}"#
            #expect(
                try await server.askHot(path, full + String(repeating: " ", count: StockBatch.maximumBytes - full.utf8.count))?.status
                    == 400
            )
            #expect(try await server.askHot(path, full + String(repeating: " ", count: StockBatch.maximumBytes)) == nil)
            #expect(try await server.askHot(path + "?a=1", full) == nil)
            #expect(try await server.askHot("/metrics", full) == nil)
            #expect(try await server.askHot(path, full, ["Authorization: Bearer 5678"]) != nil)
            #expect(try await server.askHot(path, full, ["Authorization: Basic 5678"]) == nil)
            #expect(try await server.askHot(path, full, ["Origin: http://evil.example"]) == nil)
        }
    }

    @Test("the batch route takes what it says, in items and in bytes, and names the limit that is passed; a request id is a request id")
    func batchLimits() async throws {
        try await ProductServerFixture.with { server in
            let path = "/internal/stock/batch"
            func items(_ count: Int, key: (Int) -> String) -> [String] {
                (0..<count).map { index in
                    #"{"direction":"OUT","productId":9223372036854775807,"orderId":\#(index + 1),"quantity":1,"key":"\#(key(index))"}"#
                }
            }
            func body(_ items: [String], bytes: Int? = nil) -> String {
                let body = "{\"items\":[\(items.joined(separator: ","))]}"
                return body + String(repeating: " ", count: max(0, (bytes ?? 0) - body.utf8.count))
            }
            let most = items(StockBatch.maximumItems) { "DEC-\($0)" }
            let whole = try await server.ask(.post, path, body(most), admin: true)
            #expect(whole.status == 200)
            guard case .array(let results)? = whole["items"] else {
                Issue.record("no items: \(whole.body)")
                return
            }
            #expect(results.count == 512)
            let more = try await server.ask(.post, path, body(most + items(1) { _ in "DEC-x" }), admin: true)
            #expect(more.status == 400)
            #expect(more.error == "VALIDATION_ERROR")
            #expect(more["details"] == ["field": "items", "minimum": 1, "maximum": 512])

            // Keys of 255 characters, and as many bytes as there may be.
            let long = items(StockBatch.maximumItems) { "DEC-\($0)-".padding(to: 255) }
            let full = body(long, bytes: StockBatch.maximumBytes)
            #expect(full.utf8.count == StockBatch.maximumBytes)
            #expect(try await server.ask(.post, path, full, admin: true).status == 200)
            let tooLarge = try await server.ask(.post, path, full + " ", admin: true)
            #expect(tooLarge.status == 413)
            #expect(tooLarge.error == "PAYLOAD_TOO_LARGE")
            #expect(tooLarge["details"] == ["maximumBytes": 262_144])

            func item(_ requestID: String) -> String {
                #"{"direction":"OUT","productId":1,"orderId":1,"quantity":1,"key":"DEC-1","requestId":\#(requestID)}"#
            }
            let named = try await server.ask(
                .post,
                path,
                body([#""r-1""#, "null", #""not an id""#, "7", "\"\(String(repeating: "r", count: 129))\""].map(item)),
                admin: true
            )
            guard case .array(let answers)? = named["items"] else {
                Issue.record("no items: \(named.body)")
                return
            }
            #expect(
                answers.map { $0["error"] } == ["PRODUCT_NOT_FOUND", "PRODUCT_NOT_FOUND"] + Array(repeating: "VALIDATION_ERROR", count: 3)
            )
            #expect(answers[2]["message"] == "items[2].requestId is not valid.")
        }
    }
}

extension String {
    fileprivate func padding(to count: Int) -> String { self + String(repeating: "k", count: max(0, count - utf8.count)) }
}
