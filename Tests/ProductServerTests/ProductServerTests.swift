import HTTPTypes
import Hummingbird
@testable import ProductServer
import ServerKit
import StockGate
import Testing

@Suite(.serialized, .timeLimit(.minutes(3)))
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
}
