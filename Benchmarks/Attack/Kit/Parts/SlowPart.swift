// Clients that are slow, silent, numerous, or gone: what such a client costs the server, and what it costs other clients.
//
// The attack starts these servers itself, with timeouts of seconds where a shop has half minutes. Bounds: so many connections and bytes as the settings say, and every wait
// has a deadline.

import Foundation

/// Slow and many.
struct SlowPart {
    /// How much is done.
    struct Size: Sendable {
        /// Connections that are cut during a request.
        var resets: Int
        /// Idle connections at the same time.
        var idle: Int
        /// Bytes that a client that reads no answers sends at most, on each of its connections.
        var unreadBytes: Int
        /// Whether the attack waits until the servers have closed the idle connections.
        var waitsForIdle: Bool
        /// What a slow machine may add to a bound of time.
        var slack: Duration
    }

    let stand: Stand
    let requests: Requests
    let size: Size

    static let requestTimeout = Duration.seconds(2)
    static let answerTimeout = Duration.seconds(2)
    static let idleTimeout = Duration.seconds(6)
    static let maximumConnections = 64
    static let maximumPerAddress = 20

    private func environment(_ more: [String: String]) -> [String: String] {
        var environment = stand.environment.merging(["PATH": ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"]) { $1 }
        for name in ["PRODUCT_PORT", "PRODUCT_ADMIN_PORT", "ORDER_PORT", "ORDER_ADMIN_PORT"] { environment[name] = "0" }
        environment["LOG_LEVEL"] = "warning"
        return environment.merging(more) { $1 }
    }

    /// A product server and an order server that uses it.
    private func servers(_ settings: [String: String]) throws -> (product: ServerProcess, order: ServerProcess) {
        let product = try ServerProcess("product-server", binaries: stand.binaries, environment: environment(settings))
        let order = try ServerProcess(
            "order-server",
            binaries: stand.binaries,
            environment: environment(
                settings.merging([
                    "PRODUCT_SERVER_URL": "http://127.0.0.1:\(product.port)",
                    "PRODUCT_INTERNAL_URL": "http://127.0.0.1:\(product.adminPort)",
                ]) { $1 }
            )
        )
        return (product, order)
    }

    func run() async throws -> PartReport {
        let began = ContinuousClock.now
        var report = PartReport(name: "slow and many")
        let slow = [
            "REQUEST_TIMEOUT": "2s", "ANSWER_TIMEOUT": "2s", "IDLE_TIMEOUT": "6s", "MAX_CONNECTIONS_PER_ADDRESS": "10000",
            "MAX_CONNECTIONS": "12000",
        ]
        let few = [
            "MAX_CONNECTIONS": "\(Self.maximumConnections)", "MAX_CONNECTIONS_PER_ADDRESS": "\(Self.maximumPerAddress)",
            "REQUEST_TIMEOUT": "30s",
        ]
        // Each server has a process of its own, so that they can be attacked at the same time.
        async let slowRecorders = slowServers(slow)
        async let fewRecorders = fewServers(few)
        for recorder in try await slowRecorders + fewRecorders { report.add(recorder) }
        report.took = .now - began
        return report
    }

    private func slowServers(_ settings: [String: String]) async throws -> [Recorder] {
        let (product, order) = try await Workers.run { try servers(settings) }
        defer {
            order.end()
            product.end()
        }
        var recorders = await Workers.map([product, order], workers: 2) { slow($0) }
        // The order server stops first, because it uses the product server.
        for server in [order, product] { recorders.append(try await Workers.run { stop(server) }) }
        return recorders
    }

    private func fewServers(_ settings: [String: String]) async throws -> [Recorder] {
        let (product, order) = try await Workers.run { try servers(settings) }
        defer {
            order.end()
            product.end()
        }
        // This comes first, while the order server has no calls open to the product server.
        let admins = try await Workers.run { silentAdmins(product: product, order: order) }
        return [admins] + (await Workers.map([product, order], workers: 2) { limits($0) })
    }
}
