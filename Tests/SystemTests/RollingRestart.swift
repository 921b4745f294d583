import Foundation
import NIOCore
import NIOHTTP1
import Testing

extension Faults.TwoInstances {
    /// What clients of the gateway saw.
    private actor Seen {
        private(set) var requests = 0
        private(set) var lost: [String] = []
        private(set) var undecided = 0

        func saw(_ status: Int, _ text: String, _ what: String) {
            requests += 1
            // An order that is undecided at its deadline is durable, and settled without its buyer.
            if status == 424 { undecided += 1 } else if status != 200 { lost.append("\(what): \(status) \(text.prefix(160))") }
        }

        func failed(_ error: any Error, _ what: String) {
            requests += 1
            lost.append("\(what): \(error)")
        }
    }

    /// An operator restarts every server, one after the other, while buyers look and order: nobody notices. `restart` returns when the gateway uses the server again.
    @Test func aRollingRestartLosesNoRequest() async throws {
        let stack = try Stack.current
        let product = try await stack.addProduct("Rolled", price: 1_000, stock: 1_000_000)
        let address = try stack.address("GATEWAY_PORT")
        let seen = Seen()
        let order = "{\"productId\":\(product),\"quantity\":1,\"unitPrice\":1000}"
        let kinds: [(HTTPMethod, String, String?)] = [
            (.POST, "/order-service/orders", order), (.GET, "/product-service/products/\(product)", nil),
            (.GET, "/order-service/health_check", nil), (.GET, "/product-service/products?size=1", nil),
        ]
        let buyers = Task {
            await withTaskGroup(of: Void.self) { group in
                for number in 0..<12 {
                    group.addTask {
                        var turn = number
                        var client: Client?
                        // Ends when the restarts are over.
                        while !Task.isCancelled {
                            let (method, path, json) = kinds[turn % kinds.count]
                            turn += 1
                            do {
                                if client == nil { client = try await Client(address, timeout: .seconds(20)) }
                                let began = ContinuousClock.now
                                guard let answer = try await client?.call(method, path, json: json) else { return }
                                // The time tells a server that was gone from one that was late.
                                await seen.saw(answer.status, answer.text, "\(method) \(path) after \((ContinuousClock.now - began).text)")
                            } catch {
                                await seen.failed(error, "\(method) \(path)")
                                client?.close()
                                client = nil
                            }
                        }
                        client?.close()
                    }
                }
            }
        }
        // A fast machine takes one round for it, a slow one up to three.
        for server in Array(repeating: ["order-1", "product-1", "order-2", "product-2"], count: 3).joined() {
            if await seen.requests > 20_000, server == "order-1" { break }
            let before = await seen.requests
            let said = try await stack.run("restart \(server)")
            #expect(!said.contains("killing"), "\(server) did not end by itself: \(said)")
            let after = await seen.requests
            try await until("requests go on after the restart of \(server)") { await seen.requests >= after + 500 }
            #expect(after > before)
        }
        buyers.cancel()
        await buyers.value
        let (requests, lost, undecided) = (await seen.requests, await seen.lost, await seen.undecided)
        print("FAULT rolling restart: \(requests) requests, \(lost.count) lost, \(undecided) undecided at their deadline")
        #expect(undecided == 0)
        #expect(lost.isEmpty, "\(lost.count) of \(requests) lost: \(lost.prefix(5).joined(separator: "; "))")
    }
}

extension Faults.TwoInstances {
    /// The sockets of this machine that wait behind a close which their own side began, as pairs of local and remote port.
    private static func timeWaits(_ stack: Stack) async throws -> Set<[Int]> {
        let table = try await stack.shell("cat /proc/net/tcp")
        return Set(
            table.split(separator: "\n").dropFirst().compactMap { line in
                // `sl local_address rem_address st …`, the ports in hexadecimal behind the colon; 06 is TIME_WAIT.
                let fields = line.split(separator: " ")
                guard fields.count > 3, fields[3] == "06" else { return nil }
                let ports = fields[1...2].compactMap { $0.split(separator: ":").last.flatMap { Int($0, radix: 16) } }
                return ports.count == 2 ? ports : nil
            }
        )
    }

    /// A server that stops never closes a connection on which the gateway may be sending an order: nobody could tell whether the order was carried out. The
    /// gateway has closed what is idle before.
    @Test func theGatewayClosesIdleConnectionsBeforeAStoppingServerDoes() async throws {
        let stack = try Stack.current
        let product = try await stack.addProduct("Idle", price: 1_000, stock: 1_000)
        let gateway = try stack.address("GATEWAY_PORT")
        let ports = try ["ORDER_PORT", "PRODUCT_PORT"].map { try #require(URL(string: try stack.address($0))?.port) }
        let clients = try await withThrowingTaskGroup(of: Client.self) { group in
            for _ in 1...24 { group.addTask { try await Client(gateway) } }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        defer { for client in clients { client.close() } }
        for (server, port) in zip(["order-1", "product-1"], ports) {
            let before = try await Self.timeWaits(stack)
            // At the same time, so that each needs a connection of its own to a server.
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (number, client) in clients.enumerated() {
                    group.addTask {
                        let answer =
                            number % 2 == 0
                            ? try await client.call(
                                .POST,
                                "/order-service/orders",
                                json: "{\"productId\":\(product),\"quantity\":1,\"unitPrice\":1000}"
                            ) : try await client.call(.GET, "/product-service/products/\(product)")
                        #expect(answer.status == 200, "\(answer.text)")
                    }
                }
                try await group.waitForAll()
            }
            // Not by the script, which looks at the server's port meanwhile and would close connections, too.
            try await stack.shell(
                "read -r pid _ <$STACK_DIR/\(server)/pid; kill -TERM $pid; while kill -0 $pid 2>/dev/null; do sleep 0.02; done"
            )
            let since = try await Self.timeWaits(stack).subtracting(before)
            let ofServer = since.filter { $0[0] == port }
            let ofGateway = since.filter { $0[1] == port }
            #expect(
                ofServer.isEmpty,
                "\(server) closed \(ofServer.count) connections before the gateway did, which closed \(ofGateway.count)"
            )
            #expect(!ofGateway.isEmpty, "the gateway had no idle connection to \(server)")
            try await stack.run("start \(server)")
        }
    }
}

extension Faults {
    /// Recovery does not settle what the polls wait for, however long a slow machine takes to begin them.
    @Suite(
        "Long polls through the gateway",
        .serialized,
        .stackWithBroker(
            instances: 2,
            [
                "ASYNC_RECOVERY_AGE": "10m", "ORDER_DEADLINE": "15s", "PRODUCT_TIMEOUT": "10s", "RECOVERY_AGE": "20s",
                "OUTBOX_BACKOFF_MAX": "2s",
            ]
        ),
        .timeLimit(.minutes(5))
    )
    struct LongPolls {}
}

extension Faults.LongPolls {
    /// How a poll ended.
    private struct Poll: Sendable {
        var status: Int
        var order: String?
        /// Since all polls began.
        var after: Duration
    }

    private static func poll(_ orders: [Int64], at address: String, since began: ContinuousClock.Instant) async throws -> [Poll] {
        try await withThrowingTaskGroup(of: Poll.self) { group in
            for id in orders {
                group.addTask {
                    let client = try await Client(address, timeout: .seconds(90))
                    defer { client.close() }
                    let answer = try await client.call(.GET, "/order-service/orders/\(id)?wait=30s")
                    return Poll(status: answer.status, order: answer.json["status"] as? String, after: ContinuousClock.now - began)
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
    }

    /// Slow answers are not dead servers: the gateway goes on using both while buyers wait for as long as they may.
    @Test func twentyFourOfTheLongestHarmNobodyElse() async throws {
        let stack = try Stack.current
        let product = try await stack.addProduct("Waited for", price: 1_000, stock: 100_000)
        let address = try stack.address("GATEWAY_PORT")
        let gateway = try await Client(address)
        // Their messages are on the way, and stay there: these orders are PENDING for as long as the broker sleeps.
        try await stack.run("pause rabbitmq")
        var pending: [Int64] = []
        for _ in 1...24 {
            let answer = try await gateway.call(
                .POST,
                "/order-service/v2/orders",
                json: "{\"productId\":\(product),\"quantity\":1,\"unitPrice\":1000}"
            )
            #expect(answer.status == 202, "\(answer.text)")
            pending.append(try #require(answer.id))
        }
        let began = ContinuousClock.now
        let polls = Task { [pending] in try await Self.poll(pending, at: address, since: began) }
        var others = 0
        // Others look and order for as long as the polls last, and a little longer.
        while ContinuousClock.now - began < .seconds(32) {
            let answer =
                others % 2 == 0
                ? try await gateway.call(.GET, "/product-service/products/\(product)")
                : try await gateway.call(
                    .POST,
                    "/order-service/orders",
                    json: "{\"productId\":\(product),\"quantity\":1,\"unitPrice\":1000}"
                )
            others += 1
            #expect(answer.status == 200, "request \(others) beside the polls: \(answer.text.prefix(160))")
            guard answer.status == 200 else { break }
        }
        for poll in try await polls.value {
            #expect(poll.status == 200 && poll.order == "PENDING", "\(poll)")
            #expect(poll.after > .seconds(29), "a poll that had nothing to tell came back: \(poll)")
        }
        try await stack.run("resume rabbitmq")
        for id in pending {
            let answer = try await gateway.call(.GET, "/order-service/orders/\(id)?wait=4s")
            #expect(answer.status == 200)
        }
        try await until("all orders are settled", within: .seconds(120)) {
            for id in pending where try await gateway.call(.GET, "/order-service/orders/\(id)").json["status"] as? String != "CONFIRMED" {
                return false
            }
            return true
        }
        print("FAULT long polls: 24 of 30 s, \(others) other requests beside them, all 200")
        gateway.close()
    }
}
