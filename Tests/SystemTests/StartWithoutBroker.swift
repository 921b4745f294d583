import Foundation
import MessageBroker
import NIOHTTP1
import PrivateServers
import StockContract
import Testing

extension Faults.Start {
    /// The broker is away, knows no such user, then gives no right to the virtual host, then none to the queues, lets nobody connect, takes no further queue, has a queue of another kind, and
    /// at last takes everything: both servers sell over HTTP all the while and say what is wrong.
    @Test func theBrokerRefuses() async throws {
        let broker = try await PrivateRabbitMQ.onThread { try PrivateRabbitMQ.start() }
        defer { broker.stop() }
        try await PrivateRabbitMQ.onThread { try broker.kill() }
        let postgres = try PrivatePostgres.start(fsync: false)
        defer { postgres.stop() }
        let url = "amqp://late:hidden1@127.0.0.1:\(broker.port)/"
        try await Self.withServer("product-server", ["PRODUCT_DATABASE_URL": postgres.url, "AMQP_URL": url]) { product in
            let (productAddress, _) = try await product.ready()
            let orderDatabase = postgres.url.replacingOccurrences(of: "/postgres", with: "/template1", options: [.anchored, .backwards])
            let settings = [
                "ORDER_DATABASE_URL": orderDatabase, "AMQP_URL": url, "PRODUCT_SERVER_URL": productAddress, "ASYNC_RECOVERY_AGE": "1s",
                "PRODUCT_TIMEOUT": "10s", "ORDER_DEADLINE": "20s", "RECOVERY_AGE": "30s",
            ]
            try await Self.withServer("order-server", settings) { order in
                let (orderAddress, _) = try await order.ready()
                let (products, orders) = (try await Client(productAddress), try await Client(orderAddress))
                defer {
                    products.close()
                    orders.close()
                }
                let made = try await products.call(
                    .POST,
                    "/products",
                    json: #"{"name":"Hot","price":1,"stock":1000,"stockStrategy":"REDIS_FIRST"}"#
                )
                let id = try #require(made.id, "\(made.text)")
                /// Both sell, and both say the same of the broker.
                func sells(while words: String) async throws {
                    for (client, server) in [(products, product), (orders, order)] {
                        try await until("\(server.name) says \(words)", within: .seconds(90)) {
                            let answer = try await client.call(.GET, "/readyz?verbose")
                            return answer.status == 200 && answer.text.contains("DEGRADED") && answer.text.contains(words)
                        }
                        try await until("the log of \(server.name) says \(words)") { !server.lines(words).isEmpty }
                    }
                    let sold = try await orders.call(.POST, "/orders", json: #"{"productId":\#(id),"quantity":1}"#)
                    #expect(sold.status == 200 && sold.json["status"] as? String == "CONFIRMED", "\(words): \(sold.text)")
                    // An order that was to go over the broker does not wait for it longer than a second.
                    let accepted = try await orders.call(.POST, "/v2/orders", json: #"{"productId":\#(id),"quantity":1}"#)
                    #expect(accepted.status == 202, "\(words): \(accepted.text)")
                    let order = try #require(accepted.id)
                    try await until("the order is settled over HTTP while \(words)", within: .seconds(90)) {
                        try await orders.call(.GET, "/orders/\(order)").json["status"] as? String == "CONFIRMED"
                    }
                }
                func control(_ commands: [String]...) async throws {
                    try await PrivateRabbitMQ.onThread { for command in commands { try broker.control(command) } }
                }
                try await sells(while: "late@127.0.0.1:\(broker.port)")
                try await PrivateRabbitMQ.onThread { try broker.restart() }
                try await sells(while: "ACCESS_REFUSED")
                try await control(["add_user", "late", "hidden1"])
                try await sells(while: "access to vhost '/' refused")
                try await control(["set_permissions", "late", "^$", "^$", "^$"])
                try await sells(while: "access to exchange")
                try await control(["set_vhost_limits", "-p", "/", #"{"max-connections": 0}"#])
                try await sells(while: "connection limit (0) is reached")
                try await control(["clear_vhost_limits", "-p", "/"])
                try await control(["set_vhost_limits", "-p", "/", #"{"max-queues": 0}"#], ["set_permissions", "late", ".*", ".*", ".*"])
                try await sells(while: "queue limit in vhost '/' (0) is reached")
                for server in [product, order] { #expect(server.lines("exists with other arguments").isEmpty, "\(server.log)") }
                try await control(["set_permissions", "late", "^$", "^$", "^$"], ["clear_vhost_limits", "-p", "/"])
                // A queue of another kind, by somebody who may.
                let strange = Topology(queues: [.init(StockGateTopology.decreaseQueue, kind: .classic)])
                let stranger = try Publisher(configuration: try BrokerConfiguration(url: broker.url), topology: strange)
                try await stranger.waitUntilConnected(within: .seconds(60))
                await stranger.shutdown()
                try await control(["set_permissions", "late", ".*", ".*", ".*"])
                try await sells(while: "exists with other arguments")
                try await control(["delete_queue", StockGateTopology.decreaseQueue])
                for (client, server) in [(products, product), (orders, order)] {
                    try await until("\(server.name) has its broker", within: .seconds(90)) {
                        let answer = try await client.call(.GET, "/readyz?verbose").json
                        let states = answer["dependencies"] as? [String: [String: Any]]
                        return states?["broker"]?["state"] as? String == "UP"
                    }
                    try await until("the log of \(server.name) says so") {
                        !server.lines("notice \(server.name): the broker is back").isEmpty
                    }
                    #expect(server.lines("the broker is away").count == 1, "\(server.log)")
                    #expect(server.lines("ACCESS_REFUSED - Login was refused").count == 1, "\(server.log)")
                    #expect(!server.log.contains("hidden1"))
                    #expect(server.exitStatus == nil)
                }
                // What goes over the broker now goes over the broker.
                let last = try await orders.call(.POST, "/v2/orders", json: #"{"productId":\#(id),"quantity":1}"#)
                let order = try #require(last.id)
                try await until("the last order is confirmed") {
                    try await orders.call(.GET, "/orders/\(order)").json["status"] as? String == "CONFIRMED"
                }
                let stock = try await products.call(.GET, "/products/\(id)").json["stock"] as? Int
                #expect(stock == 1000 - 7 * 2 - 1)
            }
        }
    }
}
