import Foundation
import PrivateServers
import Testing

/// What stands between the servers and the broker: one proxy for the order servers, one for the product servers.
struct BrokerLinks: Sendable {
    let orders: FaultProxy
    let products: FaultProxy
    /// When the servers had declared the topology.
    var declared = ContinuousClock.now

    func stop() async throws {
        try await orders.shutdown()
        try await products.shutdown()
    }
}

extension Stack {
    /// Starts the proxies, and has the script start the servers through shells that put the proxies' ports in place of the broker's.
    mutating func interposeBrokerLinks() async throws {
        guard let port = URLComponents(string: try await addresses().address("AMQP_URL"))?.port else {
            throw SystemFailure(description: "the stack names no port of a broker")
        }
        let links = BrokerLinks(orders: try await .start(to: port), products: try await .start(to: port))
        broker = links
        let servers = environment["STOCKGATE_BIN_DIR"] ?? ""
        let wrappers = folder.appendingPathComponent("servers")
        try FileManager.default.createDirectory(at: wrappers, withIntermediateDirectories: true)
        for (server, proxy) in [("order-server", links.orders), ("product-server", links.products)] {
            let text = """
                #!/bin/sh
                AMQP_URL=${AMQP_URL%:*}:\(proxy.port)/
                export AMQP_URL
                exec '\(servers)/\(server)' "$@"

                """
            let file = wrappers.appendingPathComponent(server)
            try text.write(to: file, atomically: true, encoding: .utf8)
            try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: file.path)
        }
        environment["STOCKGATE_BIN_DIR"] = wrappers.path
    }

    /// The same stack; servers that are started through this have other settings.
    func with(_ settings: [String: String]) -> Stack {
        var stack = self
        stack.environment.merge(settings) { $1 }
        return stack
    }

    /// Runs one command of `rabbitmqctl`, such as `delete_queue stock.decrease`, or of another of the broker's tools, on one node; takes a second or two.
    func brokerControl(_ command: String, on node: String = "rabbitmq", tool: String = "rabbitmqctl") async throws {
        let libraries = "$(dirname \"$STACK_SCRIPT\")/lib"
        // Not the one on the path: run by root, that one becomes a user who cannot read the stack's folder.
        let script =
            "for library in common process ports rabbitmq; do . \(libraries)/$library.sh; done; load_ports; rabbitmq_environment \(node); "
            + "exec /usr/lib/rabbitmq/bin/\(tool) -q \(command)"
        try await shell("exec /bin/bash -c '\(script)'")
    }

    /// Waits until the broker may be killed.
    ///
    /// RabbitMQ 3.10.8 loses a stream for good when its node is killed within about a second of its first declaration: the queue is in the broker's
    /// database and its coordinator's log is not on the disk. A broker that has just been made is not the fault that these tests are about.
    func brokerMayDie() async throws {
        let declared = broker?.declared ?? .now
        try await until("the stream is three seconds old", within: .seconds(60)) { ContinuousClock.now >= declared + .seconds(3) }
    }
}

extension Trait where Self == StackTrait {
    /// So many servers of each kind with a broker, and a proxy between it and each kind.
    static func stackWithBroker(instances: Int, _ settings: [String: String] = [:]) -> StackTrait {
        StackTrait(instances: instances, hasBroker: true, settings: settings)
    }
}
