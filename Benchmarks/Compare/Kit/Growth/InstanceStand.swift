package import FlashSaleKit
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import PrivateServers

/// Product servers and as many order servers beside the stack's, on its stores: each order server knows all of these product servers and no other.
///
/// Bounds: a server is ready within a minute, or the comparison ends.
struct InstanceStand {
    private let processes: [(kind: String, process: ChildProcess)]
    /// Addresses of the order servers.
    let orders: [String]

    /// The group of processes that each of them belongs to.
    var roots: [Int: String] { Dictionary(processes.map { (Int($0.process.pid), $0.kind) }) { first, _ in first } }

    func end() async {
        // The order servers first: what they have in hand needs the product servers.
        for one in processes.reversed() { await one.process.end() }
    }

    static func start(_ count: Int, environment: [String: String], binaries: String) async throws -> InstanceStand {
        var processes: [(kind: String, process: ChildProcess)] = []
        do {
            var products: [String] = []
            var internals: [String] = []
            var orders: [String] = []
            for index in 1...count {
                let (at, admin) = (try LoopbackPort.free(), try LoopbackPort.free())
                let server = ServerStart(name: "product", folder: "growth-product-\(index)", port: at, adminPort: admin)
                processes.append(("product", try await server.start(environment, without: ["ORDER_DATABASE_URL"], binaries: binaries)))
                products.append("http://127.0.0.1:\(at)")
                internals.append("http://127.0.0.1:\(admin)")
            }
            var settings = environment
            settings["PRODUCT_SERVER_URL"] = products.joined(separator: ",")
            settings["PRODUCT_INTERNAL_URL"] = internals.joined(separator: ",")
            for index in 1...count {
                let at = try LoopbackPort.free()
                let server = ServerStart(name: "order", folder: "growth-order-\(index)", port: at, adminPort: try LoopbackPort.free())
                processes.append(
                    ("order", try await server.start(settings, without: ["REDIS_URL", "PRODUCT_DATABASE_URL"], binaries: binaries))
                )
                orders.append("http://127.0.0.1:\(at)")
            }
            return InstanceStand(processes: processes, orders: orders)
        } catch {
            for one in processes.reversed() { await one.process.end() }
            throw error
        }
    }
}

/// A server of the project beside those of the stack.
package struct ServerStart {
    /// `product` or `order`.
    let name: String
    /// Within the stack's folder.
    let folder: String
    let port: Int
    let adminPort: Int

    package init(name: String, folder: String, port: Int, adminPort: Int) {
        self.name = name
        self.folder = folder
        self.port = port
        self.adminPort = adminPort
    }

    /// Starts it and waits until it is ready.
    /// - Parameters:
    ///   - environment: what `scripts/stack env` prints, and what is to be different.
    ///   - without: settings that are no business of this server.
    package func start(_ environment: [String: String], without: [String], binaries: String) async throws -> ChildProcess {
        var settings = environment
        for setting in without { settings[setting] = nil }
        settings["\(name.uppercased())_PORT"] = String(port)
        settings["\(name.uppercased())_ADMIN_PORT"] = String(adminPort)
        let folder = "\(environment["STACK_DIR"] ?? "")/\(folder)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        let process = try ChildProcess(["\(binaries)/\(name)-server"], environment: settings, log: "\(folder)/log")
        let caller = try await HTTPCaller.make(
            endpoint: try HTTPEndpoint("http://127.0.0.1:\(port)"),
            eventLoop: MultiThreadedEventLoopGroup.singleton.next(),
            timeout: .seconds(2)
        )
        defer { caller.close() }
        let deadline = ContinuousClock.now + .seconds(60)
        while (try? await caller.call(.GET, "/readyz"))?.status != 200 {
            guard process.isRunning, ContinuousClock.now < deadline else {
                let lines = process.lastLines
                await process.end()
                throw Bench.Failure(description: "\(self.folder) is not ready: \(lines)")
            }
            try await Task.sleep(for: .milliseconds(50))
        }
        return process
    }
}
