import Foundation
import NIOCore
import NIOHTTP1

/// What the servers have counted of messages since the sale opened, over their restarts.
///
/// What a server counted between the last look and its death is lost, so each figure is a lower bound.
actor AsyncTally {
    private let servers: [Client]
    private var last: [[String: Double]]
    private var totals: [String: Double] = [:]
    private var looking: Task<Void, Never>?

    /// Beginnings of the names that are kept.
    private static let names = [
        "stockgate_command", "stockgate_dead_letters", "stockgate_results", "stockgate_order_results", "stockgate_outbox_publish",
        "stockgate_orders_recovered", "stockgate_outbox_overdue", "stockgate_outbox_unanswered",
    ]

    init(_ stack: Stack) async throws {
        var servers: [Client] = []
        for instance in 1...stack.instances {
            for kind in ["PRODUCT", "ORDER"] {
                servers.append(try await Client(try stack.address(kind, instance, "ADMIN_PORT"), timeout: .seconds(5)))
            }
        }
        self.servers = servers
        last = []
        for server in servers { last.append(await Self.samples(of: server) ?? [:]) }
    }

    /// Looks four times a second until `close`.
    func begin() {
        looking = Task {
            while !Task.isCancelled {
                await look()
                try? await Task.sleep(for: .milliseconds(250))
            }
        }
    }

    func look() async {
        // All at once: one that is paused holds nobody up.
        await withTaskGroup(of: (Int, [String: Double]?).self) { group in
            for (index, server) in servers.enumerated() { group.addTask { (index, await Self.samples(of: server)) } }
            for await (index, samples) in group {
                if let samples { add(samples, of: index) }
            }
        }
    }

    func close() async {
        looking?.cancel()
        await looking?.value
        for server in servers { server.close() }
    }

    /// The sum over the servers of a metric's samples, of those with a label if one is given.
    func total(_ name: String, where label: String = "") -> Int {
        Int(
            totals.filter { ($0.key == name || $0.key.hasPrefix("\(name){")) && (label.isEmpty || $0.key.contains(label)) }.values.reduce(
                0,
                +
            )
        )
    }

    private func add(_ samples: [String: Double], of index: Int) {
        for (name, value) in samples {
            let before = last[index][name] ?? 0
            // Less than before: it has been started anew.
            totals[name, default: 0] += value < before ? value : value - before
        }
        last[index] = samples
    }

    /// Samples by name and labels; nil while the server does not answer.
    private static func samples(of server: Client) async -> [String: Double]? {
        guard let answer = try? await server.call(.GET, "/metrics"), answer.status == 200 else { return nil }
        var samples: [String: Double] = [:]
        for line in answer.text.split(separator: "\n") where names.contains(where: { line.hasPrefix($0) }) {
            guard let space = line.lastIndex(of: " "), let value = Double(line[line.index(after: space)...]) else { continue }
            samples[String(line[..<space])] = value
        }
        return samples
    }
}
