import Eventually
import StrictJSON
import HTTPTypes
import HotPath
import ServerKit
import PrivateServers
import Testing

@testable import ProductServer

/// Somebody's open transaction holds a product's row, for longer than any bound here.
@Suite("A locked product over HTTP", .serialized, .timeLimit(.minutes(5)))
struct LockedProductTests {
    @Test("a call that carries it is answered while it is locked, with LOCK_TIMEOUT for its items alone; so is a caller that does not wait")
    func nobodyWaitsForIt() async throws {
        // Whoever waited would not be answered before the lock ends, and that is after the answers.
        try await ProductServerFixture.with(["LOCK_TIMEOUT": "60s", "ANSWER_WITHIN": "60s"]) { server in
            let locked = try await server.addProduct(stock: 100)
            let other = try await server.addProduct(stock: 100)
            let lock = try await RowLock(
                url: server.postgres.url,
                "select 1 from product_stock where product_id = \(locked) for update"
            )
            for call in 1...3 {
                let items = [(locked, "OUT", "DEC"), (other, "OUT", "DEC"), (locked, "IN", "INC"), (other, "IN", "INC")].enumerated().map {
                    let (index, (product, direction, prefix)) = $0
                    let order = 100 * call + index
                    return
                        #"{"direction":"\#(direction)","productId":\#(product),"orderId":\#(order),"quantity":1,"key":"\#(prefix)-\#(order)"}"#
                }
                let answer = try await server.ask(
                    .post,
                    "/internal/stock/batch",
                    "{\"items\":[\(items.joined(separator: ","))]}",
                    admin: true
                )
                guard case .array(let results)? = answer["items"] else {
                    Issue.record("no items: \(answer.body)")
                    return
                }
                #expect(results.map { $0["status"] } == [503, 200, 503, 200], "\(answer.body)")
                #expect(results[0]["error"] == "LOCK_TIMEOUT" && results[2]["error"] == "LOCK_TIMEOUT")
            }
            for (verb, prefix) in [("decrease", "DEC"), ("increase", "INC")] {
                let hasty = try await server.ask(
                    .patch,
                    "/products/\(locked)/stock/\(verb)-by-order",
                    #"{"orderId":900,"quantity":1}"#,
                    key: "\(prefix)-900",
                    headers: [.prefer: "respond-async, Wait = 0"]
                )
                #expect(hasty.status == 503 && hasty.error == "LOCK_TIMEOUT", "\(hasty.body)")
                #expect(hasty.headers[.retryAfter] == "1")
            }
            // The other row counts as well while one of the server's own groups has just been seen in it.
            try await server.waits(forLocked: 1)
            await lock.end()
            // Seen at the next look at the row: until then, who does not wait is refused.
            try await server.waits(forLocked: 0)
            let sold = try await server.ask(
                .patch,
                "/products/\(locked)/stock/decrease-by-order",
                #"{"orderId":901,"quantity":1}"#,
                key: "DEC-901",
                headers: [.prefer: "wait=0"]
            )
            #expect(sold.status == 200, "\(sold.body)")
        }
    }

    @Test("wait=0 alone is hasty")
    func prefer() {
        for hasty in ["wait=0", "WAIT=0", "a, wait = 0", "wait=0,b"] { #expect(!StockRequestHead.isPatient(prefer: hasty)) }
        for patient in [nil, "", "wait=10", "wait", "nowait=0", "respond-async"] { #expect(StockRequestHead.isPatient(prefer: patient)) }
    }
}

extension ProductServerFixture {
    /// Waits until so many products are known to be locked.
    fileprivate func waits(forLocked count: Int) async throws {
        var metrics = ""
        try await eventually("\(count) locked: \(metrics.split(separator: "\n").filter { $0.contains("locked_products") })") {
            metrics = try await ask(.get, "/metrics", admin: true).body
            return metrics.contains("\nstockgate_locked_products \(count)\n")
        }
    }
}
